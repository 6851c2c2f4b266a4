"""The folder of a run: whether training may continue there, and what a finished run leaves."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from lightning.fabric import Fabric

from dxseg.config.presets import read_config
from dxseg.config.schema import RunConfig, SplitConfig
from dxseg.data.splits.known_labels import known_labels
from dxseg.data.splits.mask_budget import budget_units, resolve_budget_unit
from dxseg.data.table.dataset import Dataset
from dxseg.errors import DxsegError, UsageError
from dxseg.inference.model_folder import save_model_folder
from dxseg.inference.model_info import ModelInfo
from dxseg.io.atomic import sha256_file, write_json_atomic, write_text_atomic
from dxseg.io.file_lock import exclusive_lock
from dxseg.models.segmentation_model import SegmentationModel
from dxseg.training.calibration import calibrate
from dxseg.training.component_filter import choose_components
from dxseg.training.datamodule.training_data import TrainingData
from dxseg.training.pseudo_labels import PSEUDO_LABELS_FILE
from dxseg.training.run_record import RUN_FILE, machine, read_run, versions
from dxseg.training.trainer import remove_checkpoints

ENCODER_WEIGHTS_DIGEST = "encoder_weights.sha256"

SOURCE_DIGEST = "source.sha256"

UNBOUND: dict[str, Any] = {"data": {"workers", "cache_dir"}}
"""What may change while a run is continued: no weight depends on it."""

LOCK_SECONDS = 10.0
"""How long to wait for the lock: the processes of an experiment that was killed take a moment to
notice it."""


def lock_folder(output: Path, fabric: Fabric) -> AbstractContextManager[None]:
    """Keep a second training out of a folder; processes that train together count as one.

    Raises:
        DxsegError: another training is in it.
    """
    if fabric.is_global_zero:
        return exclusive_lock(output, "run", LOCK_SECONDS)
    return nullcontext()


def check_folder(output: Path, config: RunConfig, dataset: Dataset) -> None:
    """Check that the folder is free, or that it holds this run.

    Raises:
        DxsegError: it holds something else, or a run of another configuration or dataset.
    """
    path = output / "config.yaml"
    if path.is_file():
        recorded = read_config(path)
        theirs, ours = (one.model_dump(exclude=UNBOUND) for one in (recorded, config))
        if theirs != ours:
            changed = [key for key in ours if ours[key] != theirs[key]]
            details = "; ".join(f"{key}: {theirs[key]} there, {ours[key]} asked" for key in changed)
            raise DxsegError(
                f"{output}: holds a run of another configuration ({details}); choose another "
                "folder with --out, or repeat the options of that run to continue it"
            )
    elif output.is_dir() and any(output.iterdir()):
        raise DxsegError(f"{output}: not empty and not a run; choose another folder with --out")
    digest = output / "dataset.sha256"
    if digest.is_file() and digest.read_text(encoding="utf-8").strip() != dataset.digest():
        raise DxsegError(
            f"{output}: was started on another dataset, or {dataset.root} has changed since; "
            "choose another folder with --out"
        )


def start_folder(output: Path, config: RunConfig, dataset: Dataset) -> None:
    """Record in a new folder what is trained on what."""
    write_text_atomic(output / "config.yaml", config.to_yaml())
    write_text_atomic(output / "dataset.sha256", dataset.digest() + "\n")


def check_encoder_weights(output: Path, config: RunConfig) -> None:
    """Check that the file of encoder weights is the one that the run was started with.

    The first call records its digest in the folder of the run.

    Raises:
        DxsegError: it has changed since.
    """
    if config.model.encoder_weights is None:
        return
    path, digest = output / ENCODER_WEIGHTS_DIGEST, encoder_weights_digest(config)
    if not path.is_file():
        write_text_atomic(path, f"{digest}\n")
    elif path.read_text(encoding="utf-8").strip() != digest:
        raise DxsegError(
            f"{config.model.encoder_weights}: has changed since {output} was started; give that "
            "file again, or choose another folder with --out"
        )


def check_source(output: Path, sources: Sequence[Path]) -> None:
    """Check that a run that is continued goes on from the weights that it was started with.

    Args:
        output: folder of the run.
        sources: files of weights of other runs.

    Raises:
        DxsegError: these are others, or have changed.
    """
    path, digests = output / SOURCE_DIGEST, _digests(sources)
    if path.is_file() and digests is not None and path.read_text(encoding="utf-8") != digests:
        given = ", ".join(map(str, sources)) or "weights of its own"
        raise DxsegError(
            f"{output}: was started from other weights than {given}, or they have changed since; "
            "repeat --stage1 or --stage2 of that run, or choose another folder with --out"
        )


def record_source(output: Path, sources: Sequence[Path]) -> None:
    """Record what the stages of a run start from, once it is known to fit; see `check_source`."""
    digests = _digests(sources)
    if digests is not None:
        write_text_atomic(output / SOURCE_DIGEST, digests)


def _digests(files: Sequence[Path]) -> str | None:
    """Digests, a line for each; None where a file is absent, which is refused where it is read."""
    if not all(path.is_file() for path in files):
        return None
    return "".join(f"{sha256_file(path)}\n" for path in files)


def encoder_weights_digest(config: RunConfig) -> str | None:
    """The digest of the file that encoders start from, if there is one.

    Raises:
        DxsegError: it does not exist.
    """
    if config.model.encoder_weights is None:
        return None
    path = Path(config.model.encoder_weights)
    if not path.is_file():
        raise DxsegError(
            f"{path}: not found; expected a file of weights, as model.encoder_weights names"
        )
    return sha256_file(path)


def check_stage2(other: Path, output: Path, config: RunConfig, dataset: Dataset) -> None:
    """Check that the network of another run is what this run's stage 2 would end with.

    Raises:
        DxsegError: its configuration, masks, splits or dataset differ, or it is not finished.
        UsageError: this run has no stage that could follow.
    """
    if config.stages == ["stage2"]:
        raise UsageError(
            f"method {config.method!r} has no stage that could follow the stage 2 of {other}; "
            "leave the option out, or choose a method with self-training or a student"
        )
    theirs, record = read_config(other / "config.yaml"), read_run(other)
    names = ["method", "self_training", "student", "device"]
    names += ["rule_out_sensitivity", "rule_in_specificity"]
    ignored = UNBOUND | dict.fromkeys(names, True)
    differing = [
        key
        for key, value in config.model_dump(exclude=ignored).items()
        if theirs.model_dump(exclude=ignored)[key] != value
    ]
    differing += theirs.stages[1:]
    if record.get("encoder_weights_sha256") != encoder_weights_digest(config):
        differing.append("encoder weights")
    if record["splits_sha256"] != sha256_file(output / "splits.csv"):
        differing.append("splits")
    if record["dataset_digest"] != dataset.digest():
        differing.append("dataset")
    if differing:
        raise DxsegError(
            f"{other}: cannot replace this run's stage 2: other {', '.join(differing)}; give a run "
            "of the same method that ends with stage 2, on the same splits, with the same seed"
        )


def finish_run(
    output: Path,
    segmenter: SegmentationModel,
    config: RunConfig,
    dataset: Dataset,
    splits: pd.DataFrame,
    data: TrainingData,
    further: dict[str, Any],
) -> dict[str, Any]:
    """Choose temperatures and thresholds, write `model/` and `run.json`, remove checkpoints.

    Args:
        output: folder of the run.
        segmenter: trained.
        config: of the run.
        dataset: it was trained on.
        splits: of the run.
        data: of the run.
        further: keys of `run.json` that only the caller knows.

    Returns:
        The content of `run.json`.
    """
    info, chosen = calibrate(
        segmenter,
        model_info(config, dataset, data, stage=config.stages[-1]),
        data,
        sensitivity=config.rule_out_sensitivity,
        specificity=config.rule_in_specificity,
    )
    components, component_record = choose_components(
        segmenter, info, data.label_validation, data.mask_train
    )
    info = info.model_copy(update={"components": components})
    info = save_model_folder(output / "model", segmenter, info)
    run = {
        "method": config.method,
        "seed": config.seed,
        "dataset": str(dataset.root),
        "dataset_name": dataset.spec.name,
        "dataset_digest": dataset.digest(),
        "splits_sha256": sha256_file(output / "splits.csv"),
        "pixels_sha256": data.pixels_sha256,
        "weights_sha256": info.weights_sha256,
        **_encoder_weights(output),
        "cases": _count_cases(dataset, splits, config.split),
        "parameters": sum(p.numel() for p in segmenter.parameters()),
        "rule_out_threshold": info.rule_out_threshold,
        "rule_in_threshold": info.rule_in_threshold,
        **chosen,
        "components": component_record,
        **further,
        "versions": versions(),
        "machine": machine(config.device),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    write_json_atomic(output / RUN_FILE, run)
    for stage in config.stages:
        remove_checkpoints(output / stage)
        (output / stage / PSEUDO_LABELS_FILE).unlink(missing_ok=True)
    return run


def model_info(config: RunConfig, dataset: Dataset, data: TrainingData, *, stage: str) -> ModelInfo:
    """The content of `model.json`, before temperatures and thresholds are chosen.

    Args:
        config: of the run.
        dataset: it is trained on.
        data: of the run.
        stage: that the network comes from, one of `config.stages`.
    """
    spec = dataset.spec
    model = config.model.student if stage.startswith("student") else config.model
    return ModelInfo(
        # Weights that the training started from are no part of the model: nobody else has the file.
        model=model.model_copy(update={"encoder_weights": None}),
        preprocessing=data.preprocessing,
        labels=spec.labels,
        lesion_free=spec.lesion_free,
        organs_only=spec.organs_only,
        multi_label=spec.multi_label,
        mask_classes=spec.mask_classes,
        sliding_window=config.data.sliding_window,
        lesion_classes=spec.lesion_classes,
        slicing=spec.slicing,
        training={"method": config.method, "seed": config.seed, "dataset": spec.name},
    )


def _encoder_weights(output: Path) -> dict[str, str]:
    """The digest of the file that encoders started from, if there was one."""
    path = output / ENCODER_WEIGHTS_DIGEST
    if not path.is_file():
        return {}
    return {"encoder_weights_sha256": path.read_text(encoding="utf-8").strip()}


def _count_cases(dataset: Dataset, splits: pd.DataFrame, split: SplitConfig) -> dict[str, int]:
    """Cases of each split; of training and validation, usable masks of lesions, and labels.

    Labels are those that may be used. Where budgets count volumes, also the number of volumes with
    such masks.
    """
    counts = {str(name): int(count) for name, count in splits["split"].value_counts().items()}
    masks = splits["use_mask"].to_numpy() & ~dataset.lesion_free.to_numpy()
    known = known_labels(dataset, splits)
    labels = (known.image_labels.ne("") | known.study_labels.ne("")).to_numpy()
    counted = resolve_budget_unit(dataset, split.budget_unit)
    unit = budget_units(dataset, counted)
    for name in ("train", "validation"):
        cases = splits["split"].eq(name).to_numpy()
        counts[f"{name}_masks"] = int((masks & cases).sum())
        counts[f"{name}_labels"] = int((labels & cases).sum())
        if counted == "volume":
            counts[f"{name}_volumes"] = len(np.unique(unit[masks & cases]))
    return counts

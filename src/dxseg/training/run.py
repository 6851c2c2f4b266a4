"""A whole run: splits, stage 1, stage 2, bundle; every finished step is kept and skipped."""

from __future__ import annotations

import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from time import monotonic
from typing import Any

import pandas as pd
from rich.console import Console

from dxseg.config import RunConfig, read_config
from dxseg.data.dataset import Dataset
from dxseg.data.files import sha256_file, write_json_atomic, write_text_atomic
from dxseg.data.splits import read_splits, write_splits
from dxseg.errors import DxsegError
from dxseg.inference.bundle import BundleInfo, save_bundle
from dxseg.models.coarse import CoarseBranch
from dxseg.models.pyramid import PyramidEncoder
from dxseg.progress import reporting
from dxseg.training.calibration import calibrate
from dxseg.training.material import Material, gather, resolve_splits
from dxseg.training.stages import (
    check_choices,
    load_stage1,
    remove_checkpoints,
    train_stage1,
    train_stage2,
)

RUN_FILE = "run.json"


def train_run(
    dataset_path: Path,
    output: Path,
    config: RunConfig,
    *,
    splits_path: Path | None = None,
    stage1_run: Path | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Train an arm; the same call again continues an interrupted run and skips a finished one.

    Args:
        dataset_path: folder of the dataset.
        output: folder of the run, made if absent.
        config: of the run.
        splits_path: a splits.csv to use instead of drawing one.
        stage1_run: another run whose stage 1 is used instead of training one.
        console: where progress is drawn; standard error if absent.

    Returns:
        What ``run.json`` holds.

    Raises:
        DxsegError: the folder holds a run of another configuration or dataset; the given stage 1
            does not fit or has seen validation or test cases; files are damaged.
        KeyboardInterrupt: the user stopped the run.
    """
    console = console or Console(stderr=True)
    dataset = Dataset.load(dataset_path)
    _check_folder(output, config, dataset)
    if (output / RUN_FILE).is_file():
        return read_run(output)
    encoder = PyramidEncoder(config.model.backbone, dataset.spec.channels)
    splits = _splits(dataset, output, config, splits_path, console)
    with reporting(console, "Reading images") as report:
        material = gather(dataset, splits, config, (encoder.mean, encoder.std), report)
    check_choices(material, config)
    started = monotonic()
    stage1 = None
    if config.model.needs_stage1:
        stage1 = _stage1(dataset, splits, material, config, output, stage1_run, console)
    between = monotonic()
    segmenter, metrics = train_stage2(material, config, output / "stage2", stage1, console)
    info = BundleInfo(
        model=config.model,
        preprocessing=material.preprocessing,
        labels=dataset.spec.labels,
        lesion_free=dataset.spec.lesion_free,
        multi_label=dataset.spec.multi_label,
        mask_classes=dataset.spec.mask_classes,
        slicing=dataset.spec.slicing,
        training={"arm": config.arm, "seed": config.seed, "dataset": dataset.spec.name},
    )
    info, calibration = calibrate(segmenter, info, material, config.gate_sensitivity)
    save_bundle(output / "model", segmenter, info)
    run = {
        "arm": config.arm,
        "seed": config.seed,
        "dataset": str(dataset.root),
        "dataset_name": dataset.spec.name,
        "dataset_digest": dataset.digest(),
        "splits_sha256": sha256_file(output / "splits.csv"),
        "stage1_from": None if stage1_run is None else str(stage1_run.resolve()),
        "cases": _count_cases(dataset, splits),
        "parameters": sum(p.numel() for p in segmenter.parameters()),
        "stage2": metrics,
        "gate": info.gate,
        "calibration": calibration,
        "seconds": {
            "stage1": round(between - started, 1),
            "stage2": round(monotonic() - between, 1),
        },
        "versions": _versions(),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    write_json_atomic(output / RUN_FILE, run)
    remove_checkpoints(output / "stage2")
    return run


def read_run(output: Path) -> dict[str, Any]:
    """The ``run.json`` of a finished run.

    Raises:
        DxsegError: there is none, or it is damaged.
    """
    import json

    path = output / RUN_FILE
    try:
        loaded = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DxsegError(
            f"{path}: not found; expected the folder of a finished run: train it, or continue it "
            "with the command that started it"
        ) from error
    except ValueError as error:
        raise DxsegError(f"{path}: not JSON ({error}); remove it and train again") from error
    if not isinstance(loaded, dict):
        raise DxsegError(f"{path}: expected an object; remove it and train again")
    return loaded


def _check_folder(output: Path, config: RunConfig, dataset: Dataset) -> None:
    """Check that the folder is free, or that its run is the one asked for."""
    path = output / "config.yaml"
    if path.is_file():
        recorded = read_config(path)
        if recorded != config:
            theirs, ours = recorded.model_dump(), config.model_dump()
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


def _splits(
    dataset: Dataset, output: Path, config: RunConfig, given: Path | None, console: Console
) -> pd.DataFrame:
    """The run's splits; the folder is claimed once they are known to be possible.

    A budget of masks that cannot be met would otherwise leave a folder behind that refuses the
    corrected command.
    """
    path = output / "splits.csv"
    if not path.is_file():
        with reporting(console, "Looking for near-duplicates") as report:
            splits = resolve_splits(dataset, config, given, report)
        write_text_atomic(output / "config.yaml", config.to_yaml())
        write_text_atomic(output / "dataset.sha256", dataset.digest() + "\n")
        write_splits(path, splits)
    recorded = read_splits(path, dataset)
    if given is not None and not resolve_splits(dataset, config, given).equals(recorded):
        raise DxsegError(
            f"{output}: was started on other splits than {given}; choose another folder with --out"
        )
    return recorded


def _stage1(
    dataset: Dataset,
    splits: pd.DataFrame,
    material: Material,
    config: RunConfig,
    output: Path,
    other: Path | None,
    console: Console,
) -> CoarseBranch:
    """This run's own stage 1, or another run's after checking that it may be used."""
    if other is None:
        case_ids = dataset.cases["case_id"][splits["split"].eq("train").to_numpy()].tolist()
        return train_stage1(material, config, output / "stage1", case_ids, console)
    coarse, record = load_stage1(other / "stage1")
    seen = splits["case_id"].isin(record.case_ids)
    held_out = splits["split"].isin(["validation", "test"])
    seen_groups = set(splits.loc[seen, "group"])
    leaked = held_out & (seen | splits["group"].isin(seen_groups))
    if leaked.any():
        raise DxsegError(
            f"{other / 'stage1'}: this classifier was trained on {int(leaked.sum())} cases (or "
            "others of their patient or near-duplicate group) that are validation or test cases "
            "here; train stage 1 on this run's splits, or give both runs the same --splits file"
        )
    mine = (config.model.backbone, config.model.decoder_channels, material.task)
    if (record.model.backbone, record.model.decoder_channels, record.task) != mine:
        raise DxsegError(
            f"{other / 'stage1'}: another backbone, decoder or set of labels than this run's; use "
            "the same preset and dataset for both"
        )
    return coarse


def _count_cases(dataset: Dataset, splits: pd.DataFrame) -> dict[str, int]:
    """How many cases each split has and how many masks were allowed, lesion-free not counted."""
    counts = {str(name): int(count) for name, count in splits["split"].value_counts().items()}
    masks = splits["use_mask"].to_numpy() & ~dataset.lesion_free.to_numpy()
    for split in ("train", "validation"):
        counts[f"{split}_masks"] = int((masks & splits["split"].eq(split).to_numpy()).sum())
    return counts


def _versions() -> dict[str, str]:
    packages = ("dxseg", "torch", "torchvision", "lightning", "timm", "monai")
    return {"python": platform.python_version()} | {name: version(name) for name in packages}

"""Distillation: a single-branch student learns what a trained two-branch run knows.

After Hinton et al. 2015, for deployment: the student is a U-Net with a label head on the backbone
of its teacher, and costs what the control C1 costs.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Any

import pandas as pd
import torch
from rich.console import Console

from dxseg.config import RunConfig
from dxseg.data.dataset import Dataset
from dxseg.data.files import sha256_file, write_text_atomic
from dxseg.data.splits import read_splits, write_splits
from dxseg.errors import DxsegError, UsageError
from dxseg.inference.bundle import WEIGHTS_FILE, BundleInfo, load_bundle
from dxseg.models.sks import SKS
from dxseg.presets import merge, read_config, validate_config
from dxseg.progress import reporting
from dxseg.training.folder import alone_in, check_folder
from dxseg.training.group import first_alone, first_then_others, together
from dxseg.training.material import Material, gather
from dxseg.training.records import RUN_FILE, read_run
from dxseg.training.run import finish_run
from dxseg.training.stages import check_choices, train_stage2
from dxseg.training.teacher import Taught, teach

TEACHER_FILE = "teacher.sha256"
TARGETS_FILE = "teacher-masks.npy"

FREE_SECTIONS = (
    *("stage2", "augment", "device", "data", "arm"),
    *("gate_sensitivity", "rule_in_specificity"),
)
"""What may differ from the teacher's configuration; of ``data``, all but the size of the image."""


def distill_run(
    teacher: Path,
    output: Path,
    overrides: dict[str, Any] | None = None,
    *,
    dataset_path: Path | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Train a student of a finished run; the same call again continues an interrupted one.

    The student sees the teacher's split and masks, and the soft masks of
    :func:`dxseg.training.teacher.teach`. Its encoder and its label head start from the teacher's
    coarse branch, not from its fine encoder: stage 1 trained the two together, so the student
    names labels from the start, whether or not the teacher's encoders share levels.

    Args:
        teacher: folder of a run whose network has two branches.
        output: folder of the student's run, made if absent.
        overrides: nested values of :class:`dxseg.config.RunConfig`, within `FREE_SECTIONS`.
        dataset_path: the dataset, if it is no longer where the teacher was trained.
        console: where progress is drawn; standard error if absent.

    Returns:
        What ``run.json`` holds: the keys of a trained run, and ``distilled_from``.

    Raises:
        DxsegError: the run is not finished, has no second branch, or its dataset has changed; the
            folder holds something else.
        KeyboardInterrupt: the user stopped the run.
    """
    record = read_run(teacher)
    config = student_config(read_config(teacher / "config.yaml"), overrides or {})
    arguments = teacher, record, output, config, dataset_path
    return together(config.device, console or Console(stderr=True), _distill_run, *arguments)


def _distill_run(
    teacher: Path,
    record: dict[str, Any],
    output: Path,
    config: RunConfig,
    dataset_path: Path | None,
    *,
    console: Console,
) -> dict[str, Any]:
    """What each of the processes that train together does."""
    network, info = load_bundle(teacher / "model")
    if not isinstance(network, SKS):
        raise UsageError(
            f"{teacher}: arm {record.get('arm')!r} has one branch ({info.model.architecture}) "
            "already; distil a run of two, such as sks-evidence"
        )
    dataset = Dataset.load(dataset_path or str(record.get("dataset")))
    if dataset.digest() != record.get("dataset_digest"):
        raise DxsegError(
            f"{dataset.root}: not the dataset that {teacher} was trained on, or changed since; "
            "give that one with --dataset, or train the teacher again"
        )
    digest = sha256_file(teacher / "model" / WEIGHTS_FILE)
    with alone_in(output):
        return _distilled(teacher, digest, network, info, output, config, dataset, console)


def _distilled(
    teacher: Path,
    digest: str,
    network: SKS,
    info: BundleInfo,
    output: Path,
    config: RunConfig,
    dataset: Dataset,
    console: Console,
) -> dict[str, Any]:
    statistics = (info.preprocessing.mean, info.preprocessing.std)

    def prepare() -> tuple[pd.DataFrame, Material, Taught, float] | None:
        check_folder(output, config, dataset)
        _claim(teacher, output, config, dataset, digest)
        if (output / RUN_FILE).is_file():
            return None
        splits = read_splits(output / "splits.csv", dataset)
        with reporting(console, "Reading images") as report:
            material = gather(dataset, splits, config, statistics, report)
        check_choices(material, config)
        started = monotonic()
        training = splits["split"].eq("train").to_numpy()
        free = dataset.lesion_free.to_numpy(dtype=bool)[training]
        with reporting(console, "The teacher's masks") as report:
            where = output / TARGETS_FILE
            taught = teach(network, material, free, where, report, _device(config))
        return splits, material, taught, monotonic() - started

    prepared = first_then_others(prepare)
    if prepared is None:
        return read_run(output)
    splits, material, taught, teaching = prepared
    started = monotonic()
    network.to("cpu")
    lesson = replace(material, mask_train=taught.cases, lesion_free_train=taught.lesion_free)
    segmenter, metrics = train_stage2(lesson, config, output / "stage2", network.coarse, console)
    further = {
        "stage1_from": str(teacher.resolve()),
        "distilled_from": {
            "run": str(teacher.resolve()),
            "weights_sha256": digest,
            "training_images": taught.counts,
        },
        "stage2": metrics,
        "seconds": {
            "teacher": round(teaching, 1),
            "stage2": round(monotonic() - started, 1),
        },
    }
    parts = output, segmenter, config, dataset, splits, material, further
    run = first_alone(lambda: finish_run(*parts))
    (output / TARGETS_FILE).unlink(missing_ok=True)
    return run


def student_config(teacher: RunConfig, overrides: dict[str, Any]) -> RunConfig:
    """The configuration of a student: a U-Net with a label head, the rest as the teacher's.

    It does not train itself: its teacher's masks are its proposals.

    Raises:
        UsageError: a value that has to be the teacher's is to be changed, or is out of range.
    """
    model = {
        "architecture": "unet",
        "backbone": teacher.model.backbone,
        "decoder_channels": teacher.model.decoder_channels,
        "encoder_init": "stage1",
        "label_head": True,
    }
    student = {
        "arm": f"{teacher.arm}-student",
        "model": model,
        "selftraining": None,
    }
    values = merge(teacher.model_dump(exclude={"model"}), student)
    bound = [key for key in overrides if key not in FREE_SECTIONS]
    bound += ["data.image_size"] if "image_size" in (overrides.get("data") or {}) else []
    if bound:
        raise UsageError(
            f"{', '.join(bound)}: a student has these of its teacher; of the others "
            f"{', '.join(FREE_SECTIONS)} may be changed"
        )
    return validate_config(merge(values, overrides))


def _claim(teacher: Path, output: Path, config: RunConfig, dataset: Dataset, digest: str) -> None:
    """Make the folder this student's, or check that it is.

    Raises:
        DxsegError: the folder belongs to a student of another teacher.
    """
    path = output / TEACHER_FILE
    if not path.is_file():
        splits = read_splits(teacher / "splits.csv", dataset)
        write_text_atomic(output / "config.yaml", config.to_yaml())
        write_text_atomic(output / "dataset.sha256", dataset.digest() + "\n")
        write_splits(output / "splits.csv", splits)
        write_text_atomic(path, digest + "\n")
    elif path.read_text(encoding="utf-8").strip() != digest:
        raise DxsegError(
            f"{output}: holds a student of another run than {teacher}, or that run was trained "
            "again since; choose another folder with --out"
        )


def _device(config: RunConfig) -> str:
    """Where the teacher computes: as Lightning would choose, but one GPU at most."""
    wanted = config.device.accelerator in ("auto", "gpu", "cuda")
    return "cuda" if wanted and torch.cuda.is_available() else "cpu"

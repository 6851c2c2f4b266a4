"""Distillation: a single-branch student learns what a trained run knows.

After Hinton et al. 2015: the student is a U-Net with a label head on the backbone of its teacher,
and costs what the control C1 costs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic
from typing import Any

import pandas as pd
import torch
from rich.console import Console

from dxseg.config.presets import read_config
from dxseg.config.schema import RunConfig
from dxseg.data.splits.split_table import read_splits, write_splits
from dxseg.data.table.dataset import Dataset
from dxseg.errors import DxsegError, UsageError
from dxseg.inference.model_folder import WEIGHTS_FILE, ModelInfo, load_model_folder
from dxseg.io.atomic import sha256_file, write_text_atomic
from dxseg.io.progress import reporting
from dxseg.models.coarse_branch import CoarseBranch
from dxseg.models.segmentation_model import SegmentationModel
from dxseg.models.sks import SKS
from dxseg.training.datamodule import Material, gather
from dxseg.training.distributed import rank_zero_first, run_on_rank_zero, together
from dxseg.training.finish import finish_run
from dxseg.training.pseudo_labels import PseudoLabels, teach
from dxseg.training.reuse import load_stage1_of
from dxseg.training.run_folder import check_folder, locked_run_folder
from dxseg.training.run_record import RUN_FILE, has_stage1, read_run
from dxseg.training.stages import train_stage2, validate_selection
from dxseg.training.student import student_config

TEACHER_FILE = "teacher.sha256"
TARGETS_FILE = "teacher-masks.npy"


def distill_run(
    teacher: Path,
    output: Path,
    overrides: dict[str, Any] | None = None,
    *,
    stage1_run: Path | None = None,
    dataset_path: Path | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Train a student of a finished run; the same call again continues an interrupted one.

    Args:
        teacher: folder of a run.
        output: folder of the student's run, made if absent.
        overrides: nested values of :class:`dxseg.config.schema.RunConfig`, within
            `dxseg.training.student.FREE_SECTIONS`.
        stage1_run: see :func:`train_student`.
        dataset_path: the dataset, if it is no longer where the teacher was trained.
        console: where progress is drawn; standard error if absent.

    Returns:
        What ``run.json`` holds: the keys of a trained run, and ``distilled_from``.

    Raises:
        DxsegError: see :func:`train_student`.
        UsageError: a value that has to be the teacher's is to be changed, or is out of range.
        KeyboardInterrupt: the user stopped the run.
    """
    read_run(teacher)  # says best what is amiss with a folder that is no finished run
    config = student_config(read_config(teacher / "config.yaml"), overrides or {})
    return train_student(
        teacher, output, config, stage1_run=stage1_run, dataset_path=dataset_path, console=console
    )


def train_student(
    teacher: Path,
    output: Path,
    config: RunConfig,
    *,
    stage1_run: Path | None = None,
    dataset_path: Path | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Train a student that is configured already.

    The student sees the teacher's split and masks, and the soft masks of
    :func:`dxseg.training.pseudo_labels.teach`. Its encoder and its label head start from the coarse
    branch of a teacher with two branches, not from its fine encoder: stage 1 trained the two
    together, so the student names labels from the start, whether or not the teacher's encoders
    share levels. The student of a teacher with one branch starts from the stage 1 that this one
    started from.

    Args:
        teacher: folder of a run.
        output: folder of the student's run, made if absent.
        config: of the student, by :func:`dxseg.training.student.student_config`.
        stage1_run: of a teacher with one branch, the run whose stage 1 it started from; the teacher
            itself if absent.
        dataset_path: the dataset, if it is no longer where the teacher was trained.
        console: where progress is drawn; standard error if absent.

    Returns:
        What ``run.json`` holds: the keys of a trained run, and ``distilled_from``.

    Raises:
        DxsegError: the run is not finished or its dataset has changed; it has one branch and there
            is no stage 1, or one that does not fit; the folder holds something else.
        KeyboardInterrupt: the user stopped the run.
    """
    record = read_run(teacher)
    arguments = teacher, record, output, config, stage1_run, dataset_path
    return together(config.device, console or Console(stderr=True), _train_student, *arguments)


def _train_student(
    teacher: Path,
    record: dict[str, Any],
    output: Path,
    config: RunConfig,
    stage1_run: Path | None,
    dataset_path: Path | None,
    *,
    console: Console,
) -> dict[str, Any]:
    """What each of the processes that train together does."""
    network, info = load_model_folder(teacher / "model")
    if not isinstance(network, SKS) and not has_stage1((stage1_run or teacher) / "stage1"):
        raise UsageError(
            f"{stage1_run or teacher}: holds no stage 1, from which the student of a method with "
            f"one "
            f"branch ({record.get('method')}) starts; name the run whose stage 1 it started from "
            f"with "
            "--stage1, or distil a run of two branches, such as sks"
        )
    dataset = Dataset.load(dataset_path or str(record.get("dataset")))
    if dataset.digest() != record.get("dataset_digest"):
        raise DxsegError(
            f"{dataset.root}: not the dataset that {teacher} was trained on, or changed since; "
            "give that one with --dataset, or train the teacher again"
        )
    digest = sha256_file(teacher / "model" / WEIGHTS_FILE)
    lesson = _Teacher(teacher, digest, network, info, stage1_run or teacher)
    with locked_run_folder(output):
        return _distilled(lesson, output, config, dataset, console)


@dataclass(frozen=True)
class _Teacher:
    """Who teaches: its folder, the digest of its weights, and where its stage 1 is."""

    teacher: Path
    digest: str
    network: SegmentationModel
    info: ModelInfo
    stage1_run: Path

    def start(self, splits: pd.DataFrame, config: RunConfig, material: Material) -> CoarseBranch:
        """What the student starts from."""
        if isinstance(self.network, SKS):
            return self.network.coarse
        return load_stage1_of(self.stage1_run, splits, config, material.task)


def _distilled(
    lesson: _Teacher, output: Path, config: RunConfig, dataset: Dataset, console: Console
) -> dict[str, Any]:
    teacher, digest, network, info = lesson.teacher, lesson.digest, lesson.network, lesson.info
    statistics = (info.preprocessing.mean, info.preprocessing.std)

    def prepare() -> tuple[pd.DataFrame, Material, PseudoLabels, float] | None:
        check_folder(output, config, dataset)
        _claim(teacher, output, config, dataset, digest)
        if (output / RUN_FILE).is_file():
            return None
        splits = read_splits(output / "splits.csv", dataset)
        with reporting(console, "Reading images") as report:
            material = gather(dataset, splits, config, statistics, report)
        validate_selection(material, config)
        started = monotonic()
        training = splits["split"].eq("train").to_numpy()
        free = dataset.lesion_free.to_numpy(dtype=bool)[training]
        with reporting(console, "The teacher's masks") as report:
            where = output / TARGETS_FILE
            told, device = info.model.has_label_head, _device(config)
            taught = teach(network, material, free, where, report, told=told, device=device)
        return splits, material, taught, monotonic() - started

    prepared = rank_zero_first(prepare)
    if prepared is None:
        return read_run(output)
    splits, material, taught, teaching = prepared
    started = monotonic()
    network.to("cpu")
    start = lesson.start(splits, config, material)
    material = replace(material, mask_train=taught.cases, lesion_free_train=taught.lesion_free)
    segmenter, metrics = train_stage2(material, config, output / "stage2", start, console)
    stage1_from = teacher if isinstance(network, SKS) else lesson.stage1_run
    further = {
        "stage1_from": str(stage1_from.resolve()),
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
    run = run_on_rank_zero(lambda: finish_run(*parts))
    (output / TARGETS_FILE).unlink(missing_ok=True)
    return run


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

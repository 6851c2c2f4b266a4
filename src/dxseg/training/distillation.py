"""Distillation: a single-branch student learns what a trained run knows.

After Hinton et al. 2015: the student is a U-Net with a label head on the backbone of its teacher,
and costs as much as a plain U-Net at inference. A method can end with a student of its own
(`RunConfig.student`); this module makes one of a run that is finished.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback
from lightning.pytorch.loggers import Logger

from dxseg.config.presets import merge, validate_config
from dxseg.config.schema import RunConfig
from dxseg.data.splits.split_table import read_splits, write_splits
from dxseg.data.table.dataset import Dataset
from dxseg.errors import DxsegError, UsageError
from dxseg.inference.ensemble import require_one_input
from dxseg.inference.model_folder import WEIGHTS_FILE, load_model_folder
from dxseg.inference.model_info import ModelInfo
from dxseg.io.atomic import sha256_file, write_text_atomic
from dxseg.io.progress import console, reporting
from dxseg.models.coarse_branch import CoarseBranch
from dxseg.models.segmentation_model import SegmentationModel
from dxseg.models.segmenter_with_classifier import without_classifier
from dxseg.training.datamodule.spacing import require_spacing
from dxseg.training.datamodule.training_data import prepare_training_data
from dxseg.training.preconditions import check_label_head
from dxseg.training.pseudo_labels import Teacher
from dxseg.training.run import finish
from dxseg.training.run_folder import (
    check_encoder_weights,
    check_folder,
    check_source,
    encoder_weights_digest,
    lock_folder,
    record_source,
    start_folder,
)
from dxseg.training.run_record import RUN_FILE, STAGE1_WEIGHTS, has_stage1, read_run
from dxseg.training.sequence import Trained, Work, train_stages
from dxseg.training.stage1_folder import load_stage1_of
from dxseg.training.stages import validate_selection
from dxseg.training.strategy import join_processes
from dxseg.training.trainer import TrainerSettings

TEACHER_FILE = "teacher.sha256"

FREE_SECTIONS = (
    *("student", "augment", "device", "data", "method"),
    *("rule_out_sensitivity", "rule_in_specificity"),
)
"""What may differ from the teacher's configuration; of `data`, all but size, spacing and windows of
the image."""


def student_config(teacher: RunConfig, overrides: dict[str, Any]) -> RunConfig:
    """The configuration of a student: its teacher's, with the stage of a student.

    Args:
        teacher: configuration of the teacher's run.
        overrides: nested values, within `FREE_SECTIONS`.

    Raises:
        UsageError: a value that has to be the teacher's is overridden, or is out of range.
    """
    bound = [key for key in overrides if key not in FREE_SECTIONS]
    data = overrides.get("data") or {}
    bound += [f"data.{key}" for key in ("image_size", "spacing", "sliding_window") if key in data]
    if bound:
        raise UsageError(
            f"{', '.join(bound)}: a student has these of its teacher; of the others "
            f"{', '.join(FREE_SECTIONS)} may be changed"
        )
    student = {"method": f"{teacher.method}-student", "student": {}}
    return validate_config(merge(teacher.model_dump(exclude={"student"}), student, overrides))


def distill_run(
    teachers: Sequence[Path],
    output: Path,
    config: RunConfig,
    *,
    stage1_run: Path | None = None,
    dataset_path: Path | None = None,
    logger: Logger | None = None,
    callbacks: Sequence[Callback] = (),
) -> dict[str, Any]:
    """Train a student of finished runs; the same call again continues an interrupted one.

    Several teachers are an ensemble of runs that differ at most in seed and network: the student
    learns from the mean of their masks, each of which is of the image as its network was trained
    to see it. The first is the teacher in all else.

    The student gets the teacher's split and masks, and the pseudo-labels of
    `dxseg.training.pseudo_labels.make_pseudo_labels`. Its encoder and its label head start from the
    stage-1 classifier in the teacher's model, the coarse branch or the classifier beside it, and
    not from an encoder that masks trained: stage 1 trained the two together, so the student
    predicts labels from the start. A teacher whose model contains no classifier, or one that masks
    have trained on (`model.coarse_learning_rate_scale`), needs the run whose stage 1 it started
    from.

    Args:
        teachers: folders of runs, of the same dataset, split and masks.
        output: folder of the student's run, created if necessary.
        config: of the student, by `student_config`.
        stage1_run: for a teacher without such a classifier, the run whose stage 1 it started from.
            Default: the teacher.
        dataset_path: the dataset, if it is no longer where the teacher was trained.
        logger: see `dxseg.training.run.train_run`.
        callbacks: see `dxseg.training.run.train_run`.

    Returns:
        The content of `run.json`: the keys of a trained run, and `distilled_from`, which has the
        teachers after the first as `others`.

    Raises:
        UsageError: the teachers have different splits, labels, classes or inputs.
        DxsegError: a run is not finished, or its dataset or file of encoder weights has changed;
            the first's model contains no classifier and there is no stage 1, or one that does not
            fit; the folder holds something else.
        KeyboardInterrupt: the user stopped the run.
    """
    fabric = join_processes(config.device)
    settings = TrainerSettings(config.device, config.seed, logger, callbacks)
    teacher, *others = teachers
    record, source = read_run(teacher), stage1_run or teacher
    network, info = load_model_folder(teacher / "model")
    loaded = [(network, info), *_load_others(teacher, info, others)]
    builds_on_stage1 = config.model.requires_stage1
    kept = info.model.keeps_stage1
    coarse: CoarseBranch | None = getattr(network, "coarse", None) if kept else None
    if builds_on_stage1 and coarse is None and not has_stage1(source / "stage1"):
        raise UsageError(
            f"{source}: holds no stage 1, from which the student of {record.get('method')} starts, "
            "and the teacher's model contains no classifier that masks have not changed; give the "
            "run whose stage 1 it started from with --stage1, or distill a method with a "
            "classifier, such as sks"
        )
    dataset = Dataset.load(dataset_path or str(record.get("dataset")))
    if dataset.digest() != record.get("dataset_digest"):
        raise DxsegError(
            f"{dataset.root}: not the dataset that {teacher} was trained on, or changed since; "
            "give that one with --dataset, or train the teacher again"
        )
    _check_encoder_weights(teacher, record, config)
    check_label_head(dataset, read_splits(teacher / "splits.csv", dataset), config)
    digests = [sha256_file(one / "model" / WEIGHTS_FILE) for one in teachers]
    with lock_folder(output, fabric):
        with fabric.rank_zero_first():
            check_folder(output, config, dataset)
            _start_student_folder(teacher, output, config, dataset, " ".join(digests))
            if config.model.student.encoder_init == "pretrained":
                check_encoder_weights(output, config)
            sources = (
                [source / "stage1" / STAGE1_WEIGHTS] if builds_on_stage1 and coarse is None else []
            )
            check_source(output, sources)
            if (output / RUN_FILE).is_file():
                return read_run(output)
            splits = read_splits(output / "splits.csv", dataset)
            statistics = (info.preprocessing.mean, info.preprocessing.std)
            with reporting(console, "Reading images") as report:
                data = prepare_training_data(dataset, splits, config, statistics, report)
            require_spacing(teacher, info.preprocessing.spacing, data.preprocessing.spacing)
            validate_selection(data, config)
        work = Work(dataset, splits, data, config, output, settings, fabric)
        stage1 = coarse
        if coarse is not None:
            source = teacher
        elif builds_on_stage1:
            stage1 = load_stage1_of(source, splits, config, data)
        if fabric.is_global_zero:
            record_source(output, sources)
        first, *rest = (
            {"run": str(one.resolve()), "weights_sha256": digest}
            for one, digest in zip(teachers, digests, strict=True)
        )
        students = [name for name in config.stages if name.startswith("student")]
        trained = train_stages(work, students, Trained(teachers=_teachers(loaded)), stage1)
        return finish(
            work,
            trained,
            {"stage1_from": source if builds_on_stage1 else None},
            distilled_from=first | ({"others": rest} if rest else {}),
        )


def _load_others(
    teacher: Path, info: ModelInfo, others: Sequence[Path]
) -> list[tuple[SegmentationModel, ModelInfo]]:
    """Load the other teachers of an ensemble, and check that they are of the same experiment.

    Raises:
        UsageError: one has another split, so that it may have learned what the student is validated
            on; or other labels, classes or inputs.
    """
    loaded = [load_model_folder(run / "model") for run in others]
    split = read_run(teacher).get("splits_sha256")
    for run in others:
        if read_run(run).get("splits_sha256") != split:
            raise UsageError(
                f"{run}: has another split or other masks than {teacher}: it may have learned what "
                "the student is validated on; give runs of one splits.csv"
            )
    if others:
        infos = [info, *(info for _, info in loaded)]
        require_one_input(infos, [str(run) for run in (teacher, *others)])
    return loaded


def _teachers(loaded: Sequence[tuple[SegmentationModel, ModelInfo]]) -> list[Teacher]:
    return [
        Teacher(without_classifier(network), info.preprocessing, info.mask_temperature)
        for network, info in loaded
    ]


def _check_encoder_weights(teacher: Path, record: dict[str, Any], config: RunConfig) -> None:
    """Check that a student starts from the file of encoder weights that its teacher started from.

    Raises:
        DxsegError: it has changed, or is gone.
    """
    if config.model.student.encoder_init != "pretrained":
        return
    if encoder_weights_digest(config) != record.get("encoder_weights_sha256"):
        raise DxsegError(
            f"{config.model.encoder_weights}: has changed since {teacher} was trained; give that "
            "file again, or train the teacher again"
        )


def _start_student_folder(
    teacher: Path, output: Path, config: RunConfig, dataset: Dataset, digest: str
) -> None:
    """Start the folder of this student, or check that it is its.

    Raises:
        DxsegError: the folder belongs to a student of another teacher.
    """
    path = output / TEACHER_FILE
    if not path.is_file():
        splits = read_splits(teacher / "splits.csv", dataset)
        start_folder(output, config, dataset)
        write_splits(output / "splits.csv", splits)
        write_text_atomic(path, digest + "\n")
    elif path.read_text(encoding="utf-8").strip() != digest:
        raise DxsegError(
            f"{output}: holds a student of another run than {teacher}, or that run was trained "
            "again since; choose another folder with --out"
        )

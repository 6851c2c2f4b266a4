"""The folder `stage1` of a run: weights and record of the classifier, for this run and others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from dxseg.config.network import ModelConfig
from dxseg.config.schema import RunConfig
from dxseg.data.table.cases import TEST, TRAIN, VALIDATION
from dxseg.errors import DxsegError
from dxseg.io.atomic import sha256_file, write_bytes_atomic, write_text_atomic
from dxseg.models.coarse_branch import CoarseBranch
from dxseg.models.factory import Task, build_coarse_branch
from dxseg.training.datamodule.stage_data import has_label
from dxseg.training.datamodule.training_data import TrainingData
from dxseg.training.run_record import STAGE1_RECORD, STAGE1_WEIGHTS


class Stage1Record(BaseModel):
    """`stage1.json`: what a stage-1 classifier is and what it was trained on.

    Attributes:
        model: its network.
        task: channels, classes, labels.
        image_size: side of its input, pixels.
        case_ids: every training case, so that stage 2 can refuse a classifier that was trained on
            its validation or test cases.
        selected_on: the validation cases by which its epoch was chosen, if it was: checkpoint
            "best" or early stopping.
        labels_sha256: of the labels it was trained on; None in records of earlier versions.
        metrics: the last validation metrics.
        weights_sha256: of the weights beside the record.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: ModelConfig
    task: Task
    image_size: int
    case_ids: list[str]
    selected_on: list[str] = []
    labels_sha256: str | None = None
    metrics: dict[str, float]
    weights_sha256: str

    @field_validator("task")
    @classmethod
    def _task_is_possible(cls, task: Task) -> Task:
        """Refuse what no dataset can have before a network is built of it."""
        limits = {"channels": (1, 1024), "mask_classes": (1, 255), "labels": (1, 10_000)}
        for name, (least, most) in limits.items():
            if not least <= getattr(task, name) <= most:
                raise ValueError(f"{name} is {getattr(task, name)}, expected {least} to {most}")
        return task


def save_stage1(
    folder: Path,
    coarse: CoarseBranch,
    config: RunConfig,
    data: TrainingData,
    splits: pd.DataFrame,
    metrics: dict[str, float],
) -> None:
    """Write weights and record, in this order: with both, stage 1 is finished."""
    weights = {name: t.detach().cpu().contiguous() for name, t in coarse.state_dict().items()}
    write_bytes_atomic(folder / STAGE1_WEIGHTS, save(weights))
    record = Stage1Record(
        model=config.model,
        task=data.task,
        image_size=config.coarse_size,
        case_ids=splits.loc[splits["split"].eq(TRAIN), "case_id"].tolist(),
        selected_on=_selection_cases(config, data, splits),
        labels_sha256=data.labels_sha256,
        metrics=metrics,
        weights_sha256=sha256_file(folder / STAGE1_WEIGHTS),
    )
    write_text_atomic(folder / STAGE1_RECORD, record.model_dump_json(indent=2) + "\n")


def load_stage1(folder: Path) -> tuple[CoarseBranch, Stage1Record]:
    """Load a finished stage 1.

    Raises:
        DxsegError: there is none in the folder, or its weights are not those of its record.
    """
    path = folder / STAGE1_RECORD
    try:
        record = Stage1Record.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise DxsegError(f"{path}: not found; expected the stage1 folder of a run") from error
    except ValidationError as error:
        raise DxsegError(f"{path}: not a stage-1 record: {error.errors()[0]['msg']}") from error
    weights = folder / STAGE1_WEIGHTS
    if not weights.is_file() or sha256_file(weights) != record.weights_sha256:
        raise DxsegError(
            f"{weights}: not the weights that {STAGE1_RECORD} describes; remove the folder "
            f"{folder} to train stage 1 again"
        )
    coarse = build_coarse_branch(record.model, record.task, pretrained=False)
    try:
        coarse.load_state_dict(load_file(weights))
    except (RuntimeError, SafetensorError) as error:
        raise DxsegError(
            f"{weights}: does not fit the network of {STAGE1_RECORD}: {error}"
        ) from error
    return coarse, record


def load_stage1_of(
    other: Path, splits: pd.DataFrame, config: RunConfig, data: TrainingData
) -> CoarseBranch:
    """Load the stage 1 of another run.

    Args:
        other: the run.
        splits: of this run.
        config: of this run.
        data: of this run.

    Raises:
        DxsegError: it is not finished, is another network or of another size, was trained on cases
            that are validation or test cases here, or selected on test cases, or learned labels
            that are hidden here.
    """
    coarse, record = load_stage1(other / "stage1")
    for verb, cases, unseen in (
        ("trained", record.case_ids, (VALIDATION, TEST)),
        ("selected", record.selected_on, (TEST,)),
    ):
        if leaked := _count_leaked(splits, cases, unseen):
            raise DxsegError(
                f"{other / 'stage1'}: this classifier was {verb} on {leaked} cases (or others of "
                f"their patient or near-duplicate group) that are {' or '.join(unseen)} cases "
                "here; train stage 1 on this run's splits, or give both runs the same --splits file"
            )
    if record.image_size != config.coarse_size:
        raise DxsegError(
            f"{other / 'stage1'}: this classifier learned from images of {record.image_size} px, "
            f"and classifies images of {config.coarse_size} px here (data.image_size / "
            "model.coarse_reduction); train stage 1 in this run, or set both as in that one"
        )
    if "label_level" in splits and record.labels_sha256 != data.labels_sha256:
        raise DxsegError(
            f"{other / 'stage1'}: this classifier was trained on other labels than those that are "
            "known here, where masks of volumes are hidden; train stage 1 in this run, or give "
            "both runs the same budget, split.budget_unit and split.label_unit"
        )
    mine = (config.model.backbone, config.model.decoder_channels, data.task)
    if (record.model.backbone, record.model.decoder_channels, record.task) != mine:
        raise DxsegError(
            f"{other / 'stage1'}: another backbone, decoder or set of labels than this run's; use "
            "the same preset and dataset for both"
        )
    return coarse


def _selection_cases(config: RunConfig, data: TrainingData, splits: pd.DataFrame) -> list[str]:
    """The validation cases that chose the epoch of a stage 1, if any did."""
    validation = data.label_validation
    if validation is None or not config.stage1.is_selected:
        return []
    labeled = has_label(validation.labels)
    if validation.studies is not None:
        labeled |= validation.studies.numbers >= 0
    return splits.loc[splits["split"].eq(VALIDATION), "case_id"][labeled].tolist()


def _count_leaked(splits: pd.DataFrame, cases: Sequence[str], unseen: Sequence[str]) -> int:
    """How many cases of the unseen splits are among some cases, or in a group with one."""
    seen = splits["case_id"].isin(cases)
    groups = set(splits.loc[seen, "group"])
    return int((splits["split"].isin(unseen) & (seen | splits["group"].isin(groups))).sum())

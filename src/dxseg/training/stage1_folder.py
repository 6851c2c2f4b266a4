"""The folder `stage1` of a run: weights and record of the classifier, for this run and others."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from dxseg.config.network import ModelConfig
from dxseg.config.schema import RunConfig
from dxseg.errors import DxsegError
from dxseg.io.atomic import sha256_file, write_bytes_atomic, write_text_atomic
from dxseg.models.coarse_branch import CoarseBranch
from dxseg.models.factory import Task, build_coarse_branch
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
        labels_sha256: of the labels it was trained on; None in records of earlier versions.
        metrics: the last validation metrics.
        weights_sha256: of the weights beside the record.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: ModelConfig
    task: Task
    image_size: int
    case_ids: list[str]
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
    case_ids: list[str],
    metrics: dict[str, float],
) -> None:
    """Write weights and record, in this order: with both, stage 1 is finished."""
    weights = {name: t.detach().cpu().contiguous() for name, t in coarse.state_dict().items()}
    write_bytes_atomic(folder / STAGE1_WEIGHTS, save(weights))
    record = Stage1Record(
        model=config.model,
        task=data.task,
        image_size=config.coarse_size,
        case_ids=case_ids,
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
        DxsegError: it is not finished, is another network, or was trained on cases that are
            validation or test cases here, or on labels that are hidden here.
    """
    coarse, record = load_stage1(other / "stage1")
    seen = splits["case_id"].isin(record.case_ids)
    unseen = splits["split"].isin(["validation", "test"])
    seen_groups = set(splits.loc[seen, "group"])
    leaked = unseen & (seen | splits["group"].isin(seen_groups))
    if leaked.any():
        raise DxsegError(
            f"{other / 'stage1'}: this classifier was trained on {int(leaked.sum())} cases (or "
            "others of their patient or near-duplicate group) that are validation or test cases "
            "here; train stage 1 on this run's splits, or give both runs the same --splits file"
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

"""The stages of a run, from cached pixels to trained weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator
from rich.console import Console
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from dxseg.config.schema import ModelConfig, RunConfig
from dxseg.data.batches.loader import StratifiedBatchSampler
from dxseg.errors import DxsegError
from dxseg.io.atomic import sha256_file, write_bytes_atomic, write_text_atomic
from dxseg.models.coarse_branch import CoarseBranch
from dxseg.models.factory import Task, build_coarse_branch, build_model
from dxseg.models.segmentation_model import SegmentationModel
from dxseg.training.classification_module import Stage1Module
from dxseg.training.dataloaders import (
    NO_LABELS,
    label_loader,
    mask_pools,
    self_training_pools,
    train_loader,
    validation_loader,
)
from dxseg.training.datamodule import Material
from dxseg.training.distributed import run_on_rank_zero
from dxseg.training.label_batches import LabelBatches
from dxseg.training.losses import LabelLoss, label_balance
from dxseg.training.multitask import MultitaskModule
from dxseg.training.run_record import STAGE1_RECORD, STAGE1_WEIGHTS, has_stage1
from dxseg.training.segmentation_module import Stage2Module
from dxseg.training.self_training import SelfTrainingModule
from dxseg.training.trainer import BEST, LAST, Batches, fit_stage


class Stage1Record(BaseModel):
    """``stage1.json``: what a stage-1 classifier is and whom it has seen.

    Attributes:
        model: its network.
        task: channels, classes, labels.
        image_size: side of its input, pixels.
        case_ids: every training case, so that stage 2 can refuse a classifier that has seen its
            validation or test cases.
        metrics: the last validation metrics.
        weights_sha256: of the weights beside the record.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: ModelConfig
    task: Task
    image_size: int
    case_ids: list[str]
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


def train_stage1(
    material: Material, config: RunConfig, folder: Path, case_ids: list[str], console: Console
) -> CoarseBranch:
    """Train the coarse branch on the labels of training images, or load it if that is done.

    Args:
        material: pixels and labels.
        config: of the run.
        folder: of the stage.
        case_ids: the cases of ``material.stage1_train``, for the record.
        console: where progress is drawn.
    """
    if has_stage1(folder):
        return load_stage1(folder)[0]
    torch.manual_seed(config.seed)
    task = material.task
    coarse = build_coarse_branch(config.model, task, pretrained=True)
    batches = LabelBatches.plan(material.stage1_train, config.data)
    if not len(batches.known()):
        raise DxsegError(NO_LABELS)
    stage = config.stage1.for_images(batches.image_total, config.data.batch_size)
    epoch = stage.epoch_steps * stage.accumulate_grad_batches
    module = Stage1Module(coarse, batches.balance(task), task.labels, stage, config.seed)
    metrics = fit_stage(
        _to_channels_last(module),
        train_loader(material.stage1_train, material, config, batches.sampler(epoch, config.seed)),
        validation_loader(material.label_validation, material, config.data),
        folder,
        title="Stage 1, image-level labels",
        monitor=("val_auroc", "max"),
        config=stage,
        device=config.device,
        console=console,
    )

    def finish() -> None:
        write_bytes_atomic(folder / STAGE1_WEIGHTS, save(_plain(coarse)))
        record = Stage1Record(
            model=config.model,
            task=task,
            image_size=config.data.image_size,
            case_ids=case_ids,
            metrics=metrics,
            weights_sha256=sha256_file(folder / STAGE1_WEIGHTS),
        )
        write_text_atomic(folder / STAGE1_RECORD, record.model_dump_json(indent=2) + "\n")
        remove_checkpoints(folder)

    run_on_rank_zero(finish)
    return coarse


def load_stage1(folder: Path) -> tuple[CoarseBranch, Stage1Record]:
    """A finished stage 1.

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


def train_stage2(
    material: Material,
    config: RunConfig,
    folder: Path,
    stage1: CoarseBranch | None,
    console: Console,
) -> tuple[SegmentationModel, dict[str, float]]:
    """Train the segmenter on the masks that may be used; gives it and its last metrics."""
    torch.manual_seed(config.seed)
    segmenter = build_model(config.model, material.task, stage1=stage1)
    module, train = _stage2_module(segmenter, material, config)
    metrics = fit_stage(
        _to_channels_last(module),
        train,
        validation_loader(material.mask_validation, material, config.data),
        folder,
        title=f"Stage 2, masks ({config.method})",
        monitor=("val_dice", "max"),
        config=config.stage2,
        device=config.device,
        console=console,
        find_unused_parameters=config.model.has_unused_parameters,
    )
    return segmenter, metrics


def _stage2_module(
    segmenter: SegmentationModel, material: Material, config: RunConfig
) -> tuple[Stage2Module, Batches]:
    """How the segmenter learns, and from what: masks, or masks and labels."""
    stage, task = config.stage2, material.task
    pools = mask_pools(material, config, config.data.batch_size)
    sampler = StratifiedBatchSampler(
        pools, stage.epoch_steps * stage.accumulate_grad_batches, config.seed
    )
    masks = train_loader(material.mask_train, material, config, sampler)
    if not config.model.label_head:
        told = _label_prompt_rate(config)
        return Stage2Module(segmenter, config.model, stage, config.seed, told), masks
    labels = label_loader(material, config, stage)
    balance = label_balance(material.label_train.labels, task.labels, task.multi_label)
    loss = LabelLoss(balance, task.multi_label, stage.label_smoothing)
    module = MultitaskModule(segmenter, loss, config.model, stage, config.seed)
    return module, {"masks": masks, "labels": labels}


def self_train(
    material: Material,
    config: RunConfig,
    folder: Path,
    segmenter: SegmentationModel,
    console: Console,
) -> tuple[SegmentationModel, dict[str, float]]:
    """Go on from stage 2 with the images that have only a label; gives the teacher."""
    options = config.self_training
    if options is None:
        raise ValueError("the configuration has no self-training")
    torch.manual_seed(config.seed)
    module = SelfTrainingModule(
        segmenter, config.model, options, config.seed, material.task, _label_prompt_rate(config)
    )
    pools = self_training_pools(material, config, options.unlabeled_fraction)
    sampler = StratifiedBatchSampler(
        pools, options.epoch_steps * options.accumulate_grad_batches, config.seed
    )
    metrics = fit_stage(
        _to_channels_last(module),
        train_loader(material.label_train, material, config, sampler),
        validation_loader(material.mask_validation, material, config.data),
        folder,
        title=f"Self-training ({config.method})",
        monitor=("val_dice", "max"),
        config=options,
        device=config.device,
        console=console,
        find_unused_parameters=config.model.has_unused_parameters,
    )
    return module.teacher, metrics


def validate_selection(material: Material, config: RunConfig) -> None:
    """Refuse a choice by validation where there is nothing to choose by, before hours of training.

    Raises:
        DxsegError: ``checkpoint: best`` or early stopping, and no validation case to measure it on.
    """
    labels, masks = material.label_validation, material.mask_validation
    known = None if labels is None else LabelBatches.plan(labels, config.data).known()
    distinct = 0 if known is None else len(np.unique(known, axis=0))
    lesions = masks is not None and any(masks.mask(case).any() for case in range(len(masks)))
    with_masks = "images with a lesion mask (split.validation_masks)"
    for name, stage, possible, remedy in (
        ("stage1", config.stage1, distinct > 1, "images with different labels"),
        ("stage2", config.stage2, lesions, with_masks),
        ("self_training", config.self_training, lesions, with_masks),
    ):
        if stage is None:
            continue
        chosen = stage.checkpoint == "best" or stage.early_stopping_patience is not None
        if chosen and not possible and (name != "stage1" or config.model.requires_stage1):
            raise DxsegError(
                f"{name}: checkpoint 'best' and early stopping are decided on validation, which "
                f"needs {remedy}; add some, or set {name}.checkpoint=last and no "
                "early_stopping_patience"
            )


def remove_checkpoints(folder: Path) -> None:
    """Remove what was kept to continue a stage that is now through."""
    for name in (LAST, BEST):
        (folder / name).unlink(missing_ok=True)


def _label_prompt_rate(config: RunConfig) -> float:
    """The share of training images whose label the network is told (label prompt).

    A branch that never saw a label must not be told one either.
    """
    return config.data.label_prompt_prob if config.model.has_label_head else 0.0


def _to_channels_last(module: Any) -> Any:
    """Channels last: 1.3 to 1.5 times faster convolutions on CPU, and no slower on a GPU."""
    return module.to(memory_format=torch.channels_last)


def _plain(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Weights in the layout that safetensors stores."""
    return {name: t.detach().cpu().contiguous() for name, t in module.state_dict().items()}

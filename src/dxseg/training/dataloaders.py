"""What each stage draws its batches from."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Sampler

from dxseg.config.schema import DataConfig, RunConfig, StageConfig
from dxseg.data.batches.augment import build_augmentation
from dxseg.data.batches.distributed_samplers import DistributedBatchSampler, DistributedRowSampler
from dxseg.data.batches.loader import (
    Batch,
    BatchDataset,
    CaseDataset,
    SampleIndex,
    SequentialBatchSampler,
    StratifiedBatchSampler,
    make_dataloader,
)
from dxseg.errors import DxsegError
from dxseg.training.datamodule import Material
from dxseg.training.label_batches import labelled

NO_LABELS = (
    "stage 1 and label heads need image-level labels, and no training case has one; add labels to "
    "cases.csv, or train a method without them (--method unet)"
)

Pools = list[tuple[NDArray[np.int64], int]]
"""Rows, and how many of them are in each batch."""


def mask_pools(material: Material, config: RunConfig, size: int) -> Pools:
    """Rows of ``mask_train`` with a lesion and rows without, each with its part of a batch."""
    lesion_free, lesion_free_fraction = material.lesion_free_train, config.data.lesion_free_fraction
    free = np.flatnonzero(lesion_free)
    free_count = round(size * lesion_free_fraction) if len(free) else 0
    free_count = min(free_count, size - 1)  # a batch without a lesion teaches no mask
    return [(np.flatnonzero(~lesion_free), size - free_count), (free, free_count)]


def train_loader(
    arrays: CaseDataset, material: Material, config: RunConfig, sampler: Sampler[list[SampleIndex]]
) -> DataLoader[Batch]:
    """Augmented batches as the sampler draws them; several processes share each out."""
    batches = BatchDataset(arrays, material.preprocessing, build_augmentation(config.augment))
    return make_dataloader(batches, DistributedRowSampler(sampler), config.data.workers)


def label_loader(material: Material, config: RunConfig, stage: StageConfig) -> DataLoader[Batch]:
    """Training images that have a label, whether or not they have a mask."""
    rows = np.flatnonzero(labelled(material.label_train.labels))
    if not len(rows):
        raise DxsegError(NO_LABELS)
    pools = [(rows, config.data.batch_size)]
    sampler = StratifiedBatchSampler(
        pools, stage.epoch_steps * stage.accumulate_grad_batches, config.seed
    )
    return train_loader(material.label_train, material, config, sampler)


def validation_loader(
    arrays: CaseDataset | None, material: Material, data: DataConfig
) -> DataLoader[Batch] | None:
    """Every validation case once, in order, in one of the processes; None where there is none."""
    if arrays is None:
        return None
    batches = BatchDataset(arrays, material.preprocessing, None)
    return make_dataloader(
        batches,
        DistributedBatchSampler(SequentialBatchSampler(len(arrays), 2 * data.batch_size)),
        0,
    )


def self_training_pools(material: Material, config: RunConfig, unlabeled_fraction: float) -> Pools:
    """Rows of ``label_train`` with a mask, lesion-free ones apart, and rows without.

    Where every mask may be used, a batch is all masks.
    """
    masked = material.label_train.mask_rows >= 0
    rows, unmasked = np.flatnonzero(masked), np.flatnonzero(~masked)
    size = config.data.batch_size
    proposed = max(1, round(size * unlabeled_fraction)) if len(unmasked) else 0
    proposed = min(proposed, size - 1)
    pools = mask_pools(material, config, size - proposed)
    return [*((rows[chosen], count) for chosen, count in pools), (unmasked, proposed)]

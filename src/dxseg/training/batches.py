"""What each stage draws its batches from."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Sampler

from dxseg.config import DataConfig, RunConfig, StageConfig
from dxseg.data.augment import build_augmentation
from dxseg.data.loader import (
    Batch,
    CaseArrays,
    CaseBatches,
    Draw,
    InOrder,
    PoolSampler,
    batch_loader,
)
from dxseg.data.sharing import BatchShare, RowShare
from dxseg.errors import DxsegError
from dxseg.training.label_batches import labelled
from dxseg.training.material import Material

NO_LABELS = (
    "stage 1 and label heads need image-level labels, and no training case has one; add labels to "
    "cases.csv, or train an arm without them (--arm unet)"
)

Pools = list[tuple[NDArray[np.int64], int]]
"""Rows, and how many of them are in each batch."""


def mask_pools(material: Material, config: RunConfig, size: int) -> Pools:
    """Rows of ``mask_train`` with a lesion and rows without, each with its part of a batch."""
    lesion_free, lesion_free_share = material.lesion_free_train, config.data.lesion_free_share
    free = np.flatnonzero(lesion_free)
    free_count = round(size * lesion_free_share) if len(free) else 0
    free_count = min(free_count, size - 1)  # a batch without a lesion teaches no mask
    return [(np.flatnonzero(~lesion_free), size - free_count), (free, free_count)]


def train_loader(
    arrays: CaseArrays, material: Material, config: RunConfig, sampler: Sampler[list[Draw]]
) -> DataLoader[Batch]:
    """Augmented batches as the sampler draws them; several processes share each out."""
    batches = CaseBatches(arrays, material.preprocessing, build_augmentation(config.augment))
    return batch_loader(batches, RowShare(sampler), config.data.workers)


def label_loader(material: Material, config: RunConfig, stage: StageConfig) -> DataLoader[Batch]:
    """Training images that have a label, whether or not they have a mask."""
    rows = np.flatnonzero(labelled(material.label_train.labels))
    if not len(rows):
        raise DxsegError(NO_LABELS)
    pools = [(rows, config.data.batch_size)]
    sampler = PoolSampler(pools, stage.epoch_steps * stage.accumulate, config.seed)
    return train_loader(material.label_train, material, config, sampler)


def validation_loader(
    arrays: CaseArrays | None, material: Material, data: DataConfig
) -> DataLoader[Batch] | None:
    """Every validation case once, in order, in one of the processes; None where there is none."""
    if arrays is None:
        return None
    batches = CaseBatches(arrays, material.preprocessing, None)
    return batch_loader(batches, BatchShare(InOrder(len(arrays), 2 * data.batch_size)), 0)


def self_training_pools(material: Material, config: RunConfig, label_only_share: float) -> Pools:
    """Rows of ``label_train`` with a mask, lesion-free ones apart, and rows without.

    Where every mask may be used, a batch is all masks.
    """
    masked = material.label_train.mask_rows >= 0
    rows, unmasked = np.flatnonzero(masked), np.flatnonzero(~masked)
    size = config.data.batch_size
    proposed = max(1, round(size * label_only_share)) if len(unmasked) else 0
    proposed = min(proposed, size - 1)
    pools = mask_pools(material, config, size - proposed)
    return [*((rows[chosen], count) for chosen, count in pools), (unmasked, proposed)]

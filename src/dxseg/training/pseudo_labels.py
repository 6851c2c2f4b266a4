"""Pseudo-labels of a trained network: soft masks of all training images, filtered by label."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dxseg.data.batches.batches import SoftLabelDataset
from dxseg.inference.pipeline import flip_average
from dxseg.io.atomic import atomic_path, preallocate
from dxseg.io.progress import Report
from dxseg.models.segmentation_model import SegmentationModel
from dxseg.training.datamodule.training_data import TrainingData
from dxseg.training.thresholds import implies_lesion

FULL = 255
"""Stored value of a probability of 1."""

_BATCH = 8


@dataclass(frozen=True)
class PseudoLabels:
    """The images that a student can learn a mask from.

    Attributes:
        cases: with their masks, true ones or the teacher's.
        lesion_free: (N,) whether each of them is lesion-free.
        counts: how many have a `true_mask`, are `lesion_free`, have a `teacher_mask`, and how many
            training images are `left_out`.
    """

    cases: SoftLabelDataset
    lesion_free: NDArray[np.bool_]
    counts: dict[str, int]


def make_pseudo_labels(
    teacher: SegmentationModel,
    data: TrainingData,
    lesion_free: NDArray[np.bool_],
    path: Path,
    report: Report,
    *,
    label_prompts: bool,
    device: str = "cpu",
) -> PseudoLabels:
    """Give every training image a soft mask, as far as there is one to trust.

    A mask that may be used takes precedence over the teacher's. A label that means "no lesion"
    gives an empty mask. A label that means a lesion gives the teacher's mask, if it finds one: some
    pixel above one half. All other images are left out: nothing confirms the teacher there.

    Args:
        teacher: the trained network.
        data: of the run that it was trained in.
        lesion_free: (N,) whether the label of each of `data.label_train` says so.
        path: file of the masks while they are needed, a memory map of (N, K, S, S); one that an
            earlier attempt has finished is used again.
        report: called with (done, total).
        label_prompts: whether the teacher gets the labels of the images as prompts, if it has
            learnt labels: these are training images.
        device: torch device string on which the teacher computes.
    """
    train, masked = data.label_train, data.mask_train
    true_row = np.full(len(train), -1)
    # Both are in the order of the table, and an image has one row.
    true_row[np.searchsorted(train.image_rows, masked.image_rows)] = np.arange(len(masked))
    lesion = implies_lesion(train.labels, data.task.lesion_free)
    unlabeled = (true_row < 0) & ~lesion_free & lesion
    if not path.is_file():
        with atomic_path(path) as temporary:
            masks = _with_true_masks(temporary, data, true_row)
            rows = np.flatnonzero(unlabeled)
            _predict_soft_masks(teacher, data, rows, masks, report, label_prompts, device)
            masks.flush()
    masks = np.load(path, mmap_mode="r", allow_pickle=False)
    found = np.array([mask.max() > FULL // 2 for mask in masks])
    is_true, is_pseudo = (true_row >= 0) & ~lesion_free, unlabeled & found
    kept = np.flatnonzero(is_true | lesion_free | is_pseudo)
    cases = SoftLabelDataset(
        train.images, train.image_rows[kept], masks, kept, train.labels[kept], train.mask_classes
    )
    counts = {
        "true_mask": int(is_true.sum()),
        "lesion_free": int(lesion_free.sum()),
        "teacher_mask": int(is_pseudo.sum()),
        "left_out": len(train) - len(kept),
    }
    return PseudoLabels(cases, lesion_free[kept], counts)


def _with_true_masks(
    path: Path, data: TrainingData, true_row: NDArray[np.int64]
) -> np.memmap[Any, np.dtype[np.uint8]]:
    """A memory map of (N, K, S, S): the masks that may be used, and empty ones for all others."""
    train, masked = data.label_train, data.mask_train
    size = data.preprocessing.image_size
    masks = np.lib.format.open_memmap(
        path, mode="w+", dtype=np.uint8, shape=(len(train), train.mask_classes, size, size)
    )
    preallocate(path, path.stat().st_size)
    for case in np.flatnonzero(true_row >= 0):
        known = torch.from_numpy(masked.mask(true_row[case]))
        masks[case] = masked.targets(known).numpy() * FULL
    return masks


def _predict_soft_masks(
    teacher: SegmentationModel,
    data: TrainingData,
    rows: NDArray[np.int64],
    masks: NDArray[np.uint8],
    report: Report,
    label_prompts: bool,
    device: str,
) -> None:
    """Fill in the teacher's masks of some training images, a batch in memory at a time."""
    train, teacher = data.label_train, teacher.eval().to(device)
    for start in range(0, len(rows), _BATCH):
        cases = rows[start : start + _BATCH]
        stored = np.stack([train.image(case) for case in cases])
        pixels = torch.from_numpy(stored).permute(0, 3, 1, 2).to(device)
        labels = torch.from_numpy(train.labels[cases]).to(device) if label_prompts else None
        images = data.preprocessing.normalise(pixels)
        with torch.inference_mode():
            soft = predict_averaged(teacher, images, labels) * FULL
        masks[cases] = soft.round().to(torch.uint8).cpu().numpy()
        report(start + len(cases), len(rows))


def predict_averaged(
    teacher: SegmentationModel, images: Tensor, label_prompt: Tensor | None
) -> Tensor:
    """Mask probabilities (B, K, H, W) of normalised images, averaged with the horizontal flip."""
    [masks] = flip_average(lambda x: [teacher(x, label_prompt).mask_logits.sigmoid()], images)
    assert masks is not None, "every network has masks"
    return masks

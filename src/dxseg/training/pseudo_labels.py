"""What a trained network teaches another: soft masks of all training images, filtered by label."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dxseg.data.batches.loader import CaseDataset, SoftLabelDataset
from dxseg.data.preprocessing import Preprocessing
from dxseg.io.atomic import atomic_path, preallocate
from dxseg.io.progress import Report
from dxseg.models.segmentation_model import SegmentationModel
from dxseg.training.datamodule import Material
from dxseg.training.thresholds import label_says_lesion

FULL = 255
"""Stored for a probability of 1."""

_BATCH = 8


@dataclass(frozen=True)
class PseudoLabels:
    """The images that have something to teach a mask.

    Attributes:
        cases: with their masks, true ones or the teacher's.
        lesion_free: whether each of them is lesion-free, bool (N,).
        counts: how many have a ``true_mask``, are ``lesion_free``, have a ``teacher_mask``, and how
            many of the training images are ``left_out``.
    """

    cases: SoftLabelDataset
    lesion_free: NDArray[np.bool_]
    counts: dict[str, int]


def teach(
    teacher: SegmentationModel,
    material: Material,
    lesion_free: NDArray[np.bool_],
    path: Path,
    report: Report,
    *,
    told: bool,
    device: str = "cpu",
) -> PseudoLabels:
    """Give every training image a soft mask, as far as there is one to trust.

    A mask that may be used wins over the teacher. A label that means "no lesion" gives an empty
    mask. A label that means a lesion lets the teacher speak, if it finds one: some pixel above
    one half. All others are left out: nothing vouches for the teacher there.

    Args:
        teacher: the trained network.
        material: of the run that it was trained in.
        lesion_free: whether the label of each of ``material.label_train`` says so, bool (N,).
        path: where the masks lie while they are needed, a memory map of (N, K, S, S); one that an
            earlier attempt has finished is used again.
        report: called with (done, total).
        told: whether the teacher has learnt labels, so that it is told those of the images it is
            asked about: these are training images, whose labels are known.
        device: as torch names it; the teacher computes there.
    """
    train, masked = material.label_train, material.mask_train
    true_row = np.full(len(train), -1)
    # Both are in the order of the table, and an image has one row.
    true_row[np.searchsorted(train.image_rows, masked.image_rows)] = np.arange(len(masked))
    free_positions = material.task.lesion_free
    asked = (true_row < 0) & ~lesion_free & label_says_lesion(train.labels, free_positions)
    if not path.is_file():
        with atomic_path(path) as temporary:
            masks = _with_true_masks(temporary, material, true_row)
            questions = _UnlabeledImages(material.preprocessing, train, np.flatnonzero(asked), told)
            _ask(teacher, questions, masks, report, device)
            masks.flush()
    masks = np.load(path, mmap_mode="r", allow_pickle=False)
    found = np.array([mask.max() > FULL // 2 for mask in masks])
    is_true, taught = (true_row >= 0) & ~lesion_free, asked & found
    kept = np.flatnonzero(is_true | lesion_free | taught)
    cases = SoftLabelDataset(
        train.images, train.image_rows[kept], masks, kept, train.labels[kept], train.mask_classes
    )
    counts = {
        "true_mask": int(is_true.sum()),
        "lesion_free": int(lesion_free.sum()),
        "teacher_mask": int(taught.sum()),
        "left_out": len(train) - len(kept),
    }
    return PseudoLabels(cases, lesion_free[kept], counts)


def _with_true_masks(
    path: Path, material: Material, true_row: NDArray[np.int64]
) -> np.memmap[Any, np.dtype[np.uint8]]:
    """A memory map of (N, K, S, S): the masks that may be used, and empty ones for all others."""
    train, masked = material.label_train, material.mask_train
    size = material.preprocessing.image_size
    masks = np.lib.format.open_memmap(
        path, mode="w+", dtype=np.uint8, shape=(len(train), train.mask_classes, size, size)
    )
    preallocate(path, path.stat().st_size)
    for case in np.flatnonzero(true_row >= 0):
        known = torch.from_numpy(masked.mask(true_row[case]))
        masks[case] = masked.targets(known).numpy() * FULL
    return masks


@dataclass(frozen=True)
class _UnlabeledImages:
    """What the teacher is asked: these cases of the training images, with or without labels."""

    preprocessing: Preprocessing
    train: CaseDataset
    cases: NDArray[np.int64]
    told: bool

    def batches(self, device: str) -> Iterator[tuple[NDArray[np.int64], Tensor, Tensor | None]]:
        """Cases, their normalised images (B, C, S, S), and the labels to tell."""
        for start in range(0, len(self.cases), _BATCH):
            cases = self.cases[start : start + _BATCH]
            stored = np.stack([self.train.image(case) for case in cases])
            pixels = torch.from_numpy(stored).permute(0, 3, 1, 2).to(device)
            labels = torch.from_numpy(self.train.labels[cases]).to(device)
            yield cases, self.preprocessing.normalise(pixels), labels if self.told else None


def _ask(
    teacher: SegmentationModel,
    questions: _UnlabeledImages,
    masks: NDArray[np.uint8],
    report: Report,
    device: str,
) -> None:
    """Fill in the teacher's answers, a batch in memory at a time."""
    teacher = teacher.eval().to(device)
    done = 0
    for cases, pixels, labels in questions.batches(device):
        soft = flip_averaged(teacher, pixels, labels) * FULL
        masks[cases] = soft.round().to(torch.uint8).cpu().numpy()
        done += len(cases)
        report(done, len(questions.cases))


@torch.inference_mode()
def flip_averaged(network: SegmentationModel, x: Tensor, known: Tensor | None = None) -> Tensor:
    """Mask probabilities (B, K, H, W) of images, the mean over a horizontal flip.

    Args:
        network: the segmenter.
        x: normalised images (B, C, H, W).
        known: what it is told of their labels; see `SegmentationModel`.
    """
    mirrored: Tensor = network(x.flip(-1), known).mask_logits.sigmoid().flip(-1)
    mean: Tensor = (network(x, known).mask_logits.sigmoid() + mirrored) / 2
    return mean

"""Pseudo-labels of a trained network: soft masks of all training images, filtered by label."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from dxseg.data.batches.batches import SoftLabelDataset
from dxseg.data.preprocessing import FULL, Preprocessing
from dxseg.inference.pipeline import flip_average
from dxseg.io.atomic import atomic_path, preallocate
from dxseg.io.progress import Report
from dxseg.models.heads import LESION_PRIOR
from dxseg.models.segmentation_model import SegmentationModel
from dxseg.training.datamodule.training_data import TrainingData
from dxseg.training.thresholds import implies_lesion

PSEUDO_LABELS_FILE = "pseudo-labels.npy"

CONFIDENCE = 0.6
"""Where no label confirms or contradicts a pseudo-label, the teacher must be this certain that the
image has a lesion, or that it has none."""

_BATCH = 8


@dataclass(frozen=True)
class Teacher:
    """A trained network, and what it sees of an image.

    Attributes:
        network: makes the masks.
        preprocessing: that it was trained with: networks differ in the mean and the standard
            deviation of their images.
        mask_temperature: divides the logits of the pixels where its masks are averaged with others.
    """

    network: SegmentationModel
    preprocessing: Preprocessing
    mask_temperature: float = 1.0


@dataclass(frozen=True)
class PseudoLabels:
    """The images that a student can learn a mask from.

    Attributes:
        cases: with their masks, true ones or the teacher's.
        without_lesion: (N,) whether each of them shows no lesion, by its label, or by its mask
            where no label means a lesion.
        counts: how many have a `true_mask`, are `lesion_free`, have a `teacher_mask`, and how many
            training images are `left_out`.
    """

    cases: SoftLabelDataset
    without_lesion: NDArray[np.bool_]
    counts: dict[str, int]


def make_pseudo_labels(
    teachers: Sequence[Teacher],
    data: TrainingData,
    path: Path,
    report: Report,
    *,
    peak: float | None,
    label_prompts: bool,
    device: str = "cpu",
) -> PseudoLabels:
    """Give every training image a soft mask, as far as there is one to trust.

    A mask that may be used takes precedence over the teachers'. A lesion-free image gets an empty
    mask. Every other image gets the mean of the teachers' masks. If its label means a lesion, the
    mask is raised to show one (`raise_peak`), or, with `peak` None, left out unless it shows one:
    some pixel of a lesion class above one half. It is also left out if no probability of a lesion
    reaches that of an untrained network: there is nothing to raise. Without a label, the teachers
    must be certain of a lesion or of none (`CONFIDENCE`).

    Args:
        teachers: of one task and input size; the masks of the others are brought to the temperature
            of the first, so that one that is far too sure does not outvote it.
        data: of the run that they were trained in.
        path: file of the masks while they are needed, a memory map of (N, K, S, S); one that an
            earlier attempt has finished is used again.
        report: called with (done, total).
        peak: probability to which the highest one of a mask is raised if the label means a lesion.
        label_prompts: whether the teachers get the labels of the images as prompts, if they have
            learned labels: these are training images.
        device: torch device string on which the teachers compute.
    """
    train, masked, lesion_free = data.label_train, data.mask_train, data.lesion_free
    true_row = np.full(len(train), -1)
    # Both are in the order of the table, and an image has one row.
    true_row[np.searchsorted(train.image_rows, masked.image_rows)] = np.arange(len(masked))
    lesion = implies_lesion(train.labels, data.task.without_lesion)
    channels = data.task.lesion_channels
    unmasked = (true_row < 0) & ~lesion_free
    if not path.is_file():
        with atomic_path(path) as temporary:
            masks = _with_true_masks(temporary, data, true_row)
            rows = np.flatnonzero(unmasked)
            predicted = _predict_soft_masks(teachers, data, rows, label_prompts, device)
            for done, (row, mask) in enumerate(zip(rows, predicted, strict=True), start=1):
                if lesion[row] and peak is not None:
                    mask[channels] = raise_peak(mask[channels], peak)
                masks[row] = (mask * FULL).round().to(torch.uint8).numpy()
                report(done, len(rows))
            masks.flush()
    masks = np.load(path, mmap_mode="r", allow_pickle=False)
    highest = np.array([mask[channels].max() / FULL for mask in masks])
    certain = (highest > CONFIDENCE) | (highest < 1 - CONFIDENCE)
    is_true = (true_row >= 0) & ~lesion_free
    is_pseudo = unmasked & np.where(lesion, highest > 0.5, certain)
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
    nothing = is_pseudo & ~lesion & (highest < 0.5)
    return PseudoLabels(cases, (data.without_lesion | nothing)[kept], counts)


def raise_peak(probabilities: Tensor, peak: float) -> Tensor:
    """Raise a lesion's highest probability to `peak`, and all others by the same number of logits.

    A mask whose highest probability is above one half shows a lesion and stays as it is; so does
    one that stays below the probability of an untrained network.

    Args:
        probabilities: (K, H, W) of the lesion classes, 0 to 1.
        peak: probability, above one half and below 1.
    """
    highest = float(probabilities.max())
    if highest > 0.5 or highest < LESION_PRIOR:
        return probabilities
    shift = math.log(peak / (1 - peak)) - math.log(highest / (1 - highest))
    return (torch.logit(probabilities, eps=1e-6) + shift).sigmoid()


def keep_largest(masks: Tensor) -> Tensor:
    """The largest connected component of each of the boolean masks (B, K, H, W)."""
    kept = torch.zeros_like(masks)
    for index in np.ndindex(*masks.shape[:2]):
        numbers, count = ndimage.label(masks[index].cpu().numpy())
        if count:
            largest = np.bincount(numbers.ravel())[1:].argmax() + 1
            kept[index] = torch.from_numpy(numbers == largest)
    return kept


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
        masks[case] = (masked.targets(known) * FULL).round().numpy()
    return masks


def _predict_soft_masks(
    teachers: Sequence[Teacher],
    data: TrainingData,
    rows: NDArray[np.int64],
    label_prompts: bool,
    device: str,
) -> Iterator[Tensor]:
    """Yield the teachers' mean mask (K, S, S) of some training images, a batch at a time."""
    train = data.label_train
    # One layout, whether a network was trained just now or loaded: its sums round alike.
    layout: Any = {"device": device, "memory_format": torch.channels_last}
    for teacher in teachers:
        teacher.network.eval().to(**layout)
    for start in range(0, len(rows), _BATCH):
        cases = rows[start : start + _BATCH]
        stored = np.stack([train.image(case) for case in cases])
        pixels = torch.from_numpy(stored).permute(0, 3, 1, 2).to(device)
        labels = torch.from_numpy(train.labels[cases]).to(device) if label_prompts else None
        with torch.inference_mode():
            masks = [
                predict_averaged(
                    teacher.network,
                    teacher.preprocessing.normalize(pixels),
                    labels,
                    teacher.mask_temperature / teachers[0].mask_temperature,
                )
                for teacher in teachers
            ]
        yield from torch.stack(masks).mean(dim=0).cpu()


def predict_averaged(
    network: SegmentationModel,
    images: Tensor,
    label_prompt: Tensor | None,
    temperature: float = 1.0,
) -> Tensor:
    """Mask probabilities (B, K, H, W) of normalized images, averaged with the horizontal flip."""

    def predict(x: Tensor) -> list[Tensor | None]:
        return [(network(x, label_prompt).mask_logits / temperature).sigmoid()]

    [masks] = flip_average(predict, images)
    assert masks is not None, "every network has masks"
    return masks

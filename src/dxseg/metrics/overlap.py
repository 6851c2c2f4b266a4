"""Overlap of two binary masks, of an image or of a volume: Dice and intersection over union.

The empty-mask cells hold for every mask metric of this package:

| truth | prediction | Dice, IoU | HD95 | NSD | counted in |
|---|---|---|---|---|---|
| lesion | lesion | formula | formula | formula | lesion images, all images |
| lesion | empty | 0 | diagonal | 0 | lesion images (missed), all images |
| empty | lesion | 0 | diagonal | 0 | all images (false positive) |
| empty | empty | 1 | 0 | 1 | all images |

A missing prediction is not in this table: it is an error of the caller. Written out, because
libraries leave the empty-mask cells to their callers, as NaN or 0, and the rest is one line.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def as_mask_pair(truth: ArrayLike, prediction: ArrayLike) -> tuple[NDArray[np.bool_], ...]:
    """Check that two masks can be compared, and convert them to booleans.

    Args:
        truth: (H, W) or (D, H, W), zero is background, anything else foreground.
        prediction: The same shape, the same meaning.

    Returns:
        Both masks as boolean arrays.

    Raises:
        ValueError: The shapes differ, have neither two nor three dimensions, or have no pixel.
    """
    first, second = np.asarray(truth), np.asarray(prediction)
    if first.shape != second.shape or first.ndim not in (2, 3) or first.size == 0:
        raise ValueError(
            "truth and prediction must be masks of one non-empty shape, (H, W) or (D, H, W), got "
            f"{first.shape} and {second.shape}"
        )
    return first.astype(bool), second.astype(bool)


def crop_mask_pair(
    first: NDArray[np.bool_], second: NDArray[np.bool_]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Cut two masks to the smallest box that holds both and a margin of one pixel.

    Components, and distances between outlines, stay the same; a lesion in a large volume costs as
    little as in a small one.

    Args:
        first: Booleans, (H, W) or (D, H, W).
        second: The same shape; at least one of both is not empty.
    """
    box = []
    for axis in range(first.ndim):
        others = tuple(other for other in range(first.ndim) if other != axis)
        filled = np.flatnonzero(first.any(axis=others) | second.any(axis=others))
        box.append(slice(max(filled[0] - 1, 0), filled[-1] + 2))
    return first[tuple(box)], second[tuple(box)]


def dice(truth: ArrayLike, prediction: ArrayLike) -> float:
    """Compute the Dice similarity 2|A∩B| / (|A|+|B|), 0 to 1; empty masks as in the module's table.

    Args:
        truth: (H, W) or (D, H, W) binary mask.
        prediction: The same shape.

    Returns:
        Dice, 1 where both masks are empty.

    Raises:
        ValueError: The shapes differ.
    """
    first, second = as_mask_pair(truth, prediction)
    total = int(first.sum()) + int(second.sum())
    return 2 * int((first & second).sum()) / total if total else 1.0


def mean_dice(truth: NDArray[np.uint8], prediction: NDArray[np.uint8], classes: int) -> float:
    """Compute the mean Dice of the classes that either label map has.

    Args:
        truth: (H, W) or (D, H, W), values 0..K.
        prediction: The same shape.
        classes: K.

    Returns:
        Mean Dice, 1 where both label maps are empty.

    Raises:
        ValueError: The shapes differ.
    """
    pairs = [(truth == value, prediction == value) for value in range(1, classes + 1)]
    scores = [dice(*pair) for pair in pairs if pair[0].any() or pair[1].any()]
    return float(np.mean(scores)) if scores else 1.0


def iou(truth: ArrayLike, prediction: ArrayLike) -> float:
    """Compute the intersection over union |A∩B| / |A∪B|, 0 to 1; empty masks: see the module.

    Args:
        truth: (H, W) or (D, H, W) binary mask.
        prediction: The same shape.

    Returns:
        Intersection over union, 1 where both masks are empty.

    Raises:
        ValueError: The shapes differ.
    """
    first, second = as_mask_pair(truth, prediction)
    union = int((first | second).sum())
    return int((first & second).sum()) / union if union else 1.0

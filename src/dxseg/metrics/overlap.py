"""Overlap of two binary masks: Dice and intersection over union.

The empty-mask cells hold for every mask metric of this package:

| truth | prediction | Dice, IoU | HD95 | NSD | counted in |
|---|---|---|---|---|---|
| lesion | lesion | formula | formula | formula | lesion images, all images |
| lesion | empty | 0 | image diagonal | 0 | lesion images (missed), all images |
| empty | lesion | 0 | image diagonal | 0 | all images (false positive) |
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
        truth: (H, W), zero is background, anything else foreground.
        prediction: The same shape, the same meaning.

    Returns:
        Both masks as boolean arrays.

    Raises:
        ValueError: The shapes differ, are not two-dimensional, or have no pixel.
    """
    first, second = np.asarray(truth), np.asarray(prediction)
    if first.shape != second.shape or first.ndim != 2 or first.size == 0:
        raise ValueError(
            "truth and prediction must be two-dimensional masks of one non-empty shape, got "
            f"{first.shape} and {second.shape}"
        )
    return first.astype(bool), second.astype(bool)


def dice(truth: ArrayLike, prediction: ArrayLike) -> float:
    """Compute the Dice similarity 2|A∩B| / (|A|+|B|), 0 to 1; empty masks as in the module's table.

    Args:
        truth: (H, W) binary mask.
        prediction: (H, W) binary mask.

    Returns:
        Dice, 1 where both masks are empty.

    Raises:
        ValueError: The shapes differ.
    """
    first, second = as_mask_pair(truth, prediction)
    total = int(first.sum()) + int(second.sum())
    return 2 * int((first & second).sum()) / total if total else 1.0


def iou(truth: ArrayLike, prediction: ArrayLike) -> float:
    """Compute the intersection over union |A∩B| / |A∪B|, 0 to 1; empty masks: see the module.

    Args:
        truth: (H, W) binary mask.
        prediction: (H, W) binary mask.

    Returns:
        Intersection over union, 1 where both masks are empty.

    Raises:
        ValueError: The shapes differ.
    """
    first, second = as_mask_pair(truth, prediction)
    union = int((first | second).sum())
    return int((first & second).sum()) / union if union else 1.0

"""Distances between mask outlines: 95th-percentile Hausdorff distance, normalized surface Dice.

Both are MONAI's. This module adds the empty-mask cells of `dxseg.metrics.overlap`, where MONAI
returns NaN or infinity: averaging over the other images would make missing a lesion *improve* the
mean.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dxseg.metrics.overlap import as_mask_pair

if TYPE_CHECKING:
    import torch

Spacing = tuple[float, float]
DEFAULT_TOLERANCE = 2.0
_PIXELS: Spacing = (1.0, 1.0)


def image_diagonal(shape: tuple[int, int], spacing: Spacing | None = None) -> float:
    """Compute the length of the image's diagonal, an upper bound of every distance in it.

    Args:
        shape: Height and width in pixels.
        spacing: Millimeters per pixel along y and x; default: pixels.

    Returns:
        Length in millimeters where spacing is given, else in pixels.

    Raises:
        ValueError: The spacing is not two positive finite numbers.
    """
    step = _checked(spacing)
    return float(np.hypot(shape[0] * step[0], shape[1] * step[1]))


def hd95(truth: ArrayLike, prediction: ArrayLike, spacing: Spacing | None = None) -> float:
    """Compute the 95th-percentile symmetric Hausdorff distance between two mask outlines.

    The larger of the two directed 95th percentiles, between the centers of outline pixels
    (pixels of a mask that have a background 4-neighbor or touch the image border).

    Args:
        truth: (H, W) binary mask.
        prediction: (H, W) binary mask.
        spacing: Millimeters per pixel along y and x; default: pixels.

    Returns:
        Distance, 0 and up, in millimeters where spacing is given, else in pixels. The image
        diagonal where exactly one mask is empty, 0 where both are.

    Raises:
        ValueError: The shapes differ, or the spacing is not positive.
    """
    first, second = as_mask_pair(truth, prediction)
    step = _checked(spacing)
    if not first.any() or not second.any():
        one_empty = bool(first.any() or second.any())
        return image_diagonal((first.shape[0], first.shape[1]), step) if one_empty else 0.0

    from monai.metrics.hausdorff_distance import compute_hausdorff_distance

    with _silence_monai():
        distance = compute_hausdorff_distance(
            _one_hot(second), _one_hot(first), include_background=True, percentile=95, spacing=step
        )
    return float(distance)


def nsd(
    truth: ArrayLike,
    prediction: ArrayLike,
    spacing: Spacing | None = None,
    *,
    tolerance: float = DEFAULT_TOLERANCE,
) -> float:
    """Compute the normalized surface Dice: the fraction of both outlines within a tolerance.

    Outline lengths are weighted as in Nikolov et al. (arXiv 1809.04430), which is correct for
    anisotropic spacing.

    Args:
        truth: (H, W) binary mask.
        prediction: (H, W) binary mask.
        spacing: Millimeters per pixel along y and x; default: pixels.
        tolerance: Largest distance that counts as correct, in the unit of the spacing.

    Returns:
        Fraction, 0 to 1. 0 where exactly one mask is empty, 1 where both are.

    Raises:
        ValueError: The shapes differ, the spacing is not positive, or the tolerance is negative.
    """
    first, second = as_mask_pair(truth, prediction)
    step = _checked(spacing)
    if not (np.isfinite(tolerance) and tolerance >= 0):
        raise ValueError(f"tolerance must be a finite number of at least 0, got {tolerance}")
    if not first.any() or not second.any():
        return 0.0 if first.any() or second.any() else 1.0

    from monai.metrics.surface_dice import compute_surface_dice

    with _silence_monai():
        fraction = compute_surface_dice(
            _one_hot(second),
            _one_hot(first),
            class_thresholds=[tolerance],
            include_background=True,
            spacing=step,
            use_subvoxels=True,
        )
    return min(float(fraction), 1.0)  # a sum in single precision may be slightly above 1


def _checked(spacing: Spacing | None) -> Spacing:
    if spacing is None:
        return _PIXELS
    values = tuple(float(value) for value in spacing)
    if len(values) != 2 or not all(np.isfinite(value) and value > 0 for value in values):
        raise ValueError(f"spacing must be two positive finite numbers (y, x), got {spacing}")
    return values[0], values[1]


@contextmanager
def _silence_monai() -> Iterator[None]:
    """Silence the deprecation warning that MONAI 1.5 and 1.6 raise about a call of their own.

    The argument is not ours to change, and the warning would appear once per image.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r".*always_return_as_numpy.*")
        yield


def _one_hot(mask: NDArray[np.bool_]) -> torch.Tensor:
    """The mask as MONAI's (1, 1, H, W) batch of one class."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(mask))[None, None].float()

"""Distances between outlines or surfaces: 95th-percentile Hausdorff distance, surface Dice.

Masks are of an image, (H, W) with its spacing along y and x, or of a volume, (D, H, W) with the
distance of its slices first. Both metrics are MONAI's. This module adds the empty-mask cells of
`dxseg.metrics.overlap`, where MONAI returns NaN or infinity: averaging over the other images would
make missing a lesion *improve* the mean.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dxseg.metrics.overlap import as_mask_pair, crop_mask_pair

if TYPE_CHECKING:
    import torch

Spacing = tuple[float, ...]
"""Of the axes of a mask: y and x, of a volume z, y and x."""
DEFAULT_TOLERANCE = 2.0


def image_diagonal(shape: tuple[int, ...], spacing: Spacing | None = None) -> float:
    """Compute the length of an image's or volume's diagonal, an upper bound of distances in it.

    Args:
        shape: (H, W) or (D, H, W), in pixels.
        spacing: Millimeters per pixel along each axis; default: pixels.

    Returns:
        Length in millimeters where spacing is given, else in pixels.

    Raises:
        ValueError: The spacing is not a positive finite number for each axis.
    """
    return float(np.linalg.norm(np.multiply(shape, _checked(spacing, len(shape)))))


def hd95(truth: ArrayLike, prediction: ArrayLike, spacing: Spacing | None = None) -> float:
    """Compute the 95th-percentile symmetric Hausdorff distance between two outlines or surfaces.

    The larger of the two directed 95th percentiles, between the centers of outline pixels
    (pixels of a mask that share an edge, voxels that share a face, with the background or the
    border).

    Args:
        truth: (H, W) or (D, H, W) binary mask.
        prediction: The same shape.
        spacing: Millimeters per pixel along each axis; default: pixels.

    Returns:
        Distance, 0 and up, in millimeters where spacing is given, else in pixels. The
        diagonal where exactly one mask is empty, 0 where both are.

    Raises:
        ValueError: The shapes differ, or the spacing is not positive.
    """
    first, second = as_mask_pair(truth, prediction)
    step = _checked(spacing, first.ndim)
    if not first.any() or not second.any():
        one_empty = bool(first.any() or second.any())
        return image_diagonal(first.shape, step) if one_empty else 0.0

    from monai.metrics.hausdorff_distance import compute_hausdorff_distance

    first, second = crop_mask_pair(first, second)
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

    Outline lengths, of volumes surface areas, are weighted as in Nikolov et al. (arXiv 1809.04430),
    which is correct for anisotropic spacing.

    Args:
        truth: (H, W) or (D, H, W) binary mask.
        prediction: The same shape.
        spacing: Millimeters per pixel along each axis; default: pixels.
        tolerance: Largest distance that counts as correct, in the unit of the spacing.

    Returns:
        Fraction, 0 to 1. 0 where exactly one mask is empty, 1 where both are.

    Raises:
        ValueError: The shapes differ, the spacing is not positive, or the tolerance is negative.
    """
    first, second = as_mask_pair(truth, prediction)
    step = _checked(spacing, first.ndim)
    if not (np.isfinite(tolerance) and tolerance >= 0):
        raise ValueError(f"tolerance must be a finite number of at least 0, got {tolerance}")
    if not first.any() or not second.any():
        return 0.0 if first.any() or second.any() else 1.0

    from monai.metrics.surface_dice import compute_surface_dice

    first, second = crop_mask_pair(first, second)
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


def _checked(spacing: Spacing | None, axes: int) -> Spacing:
    if spacing is None:
        return (1.0,) * axes
    values = tuple(float(value) for value in spacing)
    if len(values) != axes or not all(np.isfinite(value) and value > 0 for value in values):
        raise ValueError(
            f"spacing must be {axes} positive finite numbers, one for each axis, got {spacing}"
        )
    return values


@contextmanager
def _silence_monai() -> Iterator[None]:
    """Silence the deprecation warning that MONAI 1.5 and 1.6 raise about a call of their own.

    The argument is not ours to change, and the warning would appear once per image.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r".*always_return_as_numpy.*")
        yield


def _one_hot(mask: NDArray[np.bool_]) -> torch.Tensor:
    """The mask as MONAI's batch of one image and one class, (1, 1, ...)."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(mask))[None, None].float()

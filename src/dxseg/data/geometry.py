"""Where an image lies in the square input of a network, and what that size costs.

Without torch: the check of a dataset runs it in processes that start quickly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Spacing = tuple[float, float]
"""Height and width of a pixel, millimeters."""

Zoom = tuple[float, float]
"""Factors on the height and the width of an image, pixels."""


@dataclass(frozen=True)
class Geometry:
    """The position of an image in the square input of the network, in pixels.

    Attributes:
        height: Native height.
        width: Native width.
        fitted_height: Height after resizing; rows below are padding.
        fitted_width: Width after resizing; columns to the right are padding.
    """

    height: int
    width: int
    fitted_height: int
    fitted_width: int

    @property
    def area_scale(self) -> float:
        """Native pixels per pixel of the network's input, as areas."""
        return (self.height * self.width) / (self.fitted_height * self.fitted_width)


def voxel_volume(spacing: Spacing | None, distance: float | None) -> float | None:
    """Compute the volume of a voxel, cubic millimeters.

    Args:
        spacing: Height and width of a pixel of a slice, mm; None where unknown.
        distance: Millimeters between slices; None where unknown.
    """
    return None if spacing is None or distance is None else spacing[0] * spacing[1] * distance


def zoom_to(target: Spacing | None, spacing: Spacing | None) -> Zoom | None:
    """Compute the zoom that brings an image to a spacing.

    Args:
        target: The spacing that is wanted; None: any.
        spacing: Of the image; None where it is not known, it is taken to be the one wanted.

    Returns:
        None if any spacing will do.
    """
    if target is None:
        return None
    height, width = spacing or target
    return height / target[0], width / target[1]


def zoomed_size(height: int, width: int, zoom: Zoom) -> tuple[int, int]:
    """Compute the size of an image after a zoom, at least one pixel along each axis."""
    return max(1, round(height * zoom[0])), max(1, round(width * zoom[1]))


def fit_geometry(height: int, width: int, image_size: int, zoom: Zoom | None = None) -> Geometry:
    """Compute the geometry that fits (height, width) into a square of `image_size`.

    Args:
        height: Native height, pixels.
        width: Native width, pixels.
        image_size: Side of the square, pixels.
        zoom: From `zoom_to`; what would be larger than the square is reduced to it. None: the
            longer side becomes that of the square.
    """
    if zoom is None:
        scale = image_size / max(height, width)
        zoom = (scale, scale)
    else:
        scale = min(1.0, image_size / max(height * zoom[0], width * zoom[1]))
        zoom = (zoom[0] * scale, zoom[1] * scale)
    return Geometry(height, width, *zoomed_size(height, width, zoom))


def attainable_dice(
    mask: NDArray[np.uint8], image_size: int, zoom: Zoom | None = None, *, soft: bool = False
) -> float:
    """Compute the Dice that a perfect network could reach at an input size.

    The true mask is sent through the preprocessing and back: reduced with anti-aliasing, cut at one
    half, enlarged and cut again, as `dxseg.data.preprocessing` does it.

    Args:
        mask: Label map (H, W) with a lesion: some value is not 0.
        image_size: Side of the square that images are fitted into, pixels.
        zoom: See `fit_geometry`.
        soft: Whether the network learns soft masks, which are cut only after they are enlarged.

    Returns:
        0, if the lesion vanishes, to 1.
    """
    lesion = mask > 0
    predicted = _restored(lesion, image_size, zoom, soft=soft)
    return float(2 * (lesion & predicted).sum() / (lesion.sum() + predicted.sum()))


def attainable_by_lesion(
    lesions: NDArray[np.bool_], image_size: int, zoom: Zoom | None = None, *, soft: bool = False
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Compute the Dice of `attainable_dice` for each lesion of a mask.

    A lesion is a connected component, of pixels with 8 neighbors; a pixel that comes back belongs
    to the lesion that is nearest. In the Dice of the whole mask a large lesion hides small ones.

    Args:
        lesions: Mask (H, W) of some lesion.
        image_size: Side of the square that images are fitted into, pixels.
        zoom: See `fit_geometry`.
        soft: See `attainable_dice`.

    Returns:
        The area of each lesion, pixels, and its Dice; (L,) each.
    """
    from scipy import ndimage

    predicted = _restored(lesions, image_size, zoom, soft=soft)
    numbers, count = ndimage.label(lesions, np.ones((3, 3), bool))
    nearest = ndimage.distance_transform_edt(
        numbers == 0, return_distances=False, return_indices=True
    )
    owner = numbers[tuple(nearest)]
    areas, found, shared = (
        np.bincount(owner[pixels], minlength=count + 1)[1:]
        for pixels in (lesions, predicted, lesions & predicted)
    )
    return areas, 2 * shared / (areas + found)


def _restored(
    lesion: NDArray[np.bool_], image_size: int, zoom: Zoom | None, *, soft: bool
) -> NDArray[np.bool_]:
    """Send a mask through the preprocessing and back."""
    height, width = lesion.shape
    geometry = fit_geometry(height, width, image_size, zoom)
    reduced = _resize(lesion, geometry.fitted_height, geometry.fitted_width)
    return _resize(reduced if soft else reduced >= 0.5, height, width) >= 0.5


def _resize(mask: NDArray[Any], height: int, width: int) -> NDArray[np.float32]:
    image = Image.fromarray(mask.astype(np.float32))
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))

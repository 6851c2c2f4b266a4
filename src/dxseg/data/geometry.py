"""Where an image lies in the square input of a network, and what that size costs.

Without torch: the check of a dataset runs it in processes that start quickly.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image


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


def fit_geometry(height: int, width: int, image_size: int) -> Geometry:
    """Compute the geometry that fits (height, width) into a square of `image_size`."""
    scale = image_size / max(height, width)
    return Geometry(height, width, max(1, round(height * scale)), max(1, round(width * scale)))


def attainable_dice(mask: NDArray[np.uint8], image_size: int) -> float:
    """Compute the Dice that a perfect network could reach at an input size.

    The true mask is sent through the preprocessing and back: reduced with anti-aliasing, cut at one
    half, enlarged and cut again, as `dxseg.data.preprocessing` does it.

    Args:
        mask: Label map (H, W) with a lesion: some value is not 0.
        image_size: Side of the square that images are fitted into, pixels.

    Returns:
        0, if the lesion vanishes, to 1.
    """
    lesion = mask > 0
    height, width = mask.shape
    geometry = fit_geometry(height, width, image_size)
    reduced = _resize(lesion, geometry.fitted_height, geometry.fitted_width)
    predicted = _resize(reduced, height, width)
    return float(2 * (lesion & predicted).sum() / (lesion.sum() + predicted.sum()))


def _resize(lesion: NDArray[np.bool_], height: int, width: int) -> NDArray[np.bool_]:
    image = Image.fromarray(lesion.astype(np.float32))
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR)) >= 0.5

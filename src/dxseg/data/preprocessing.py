"""Preprocessing of images of any size to the square input of the network, and back.

Training and inference use the same functions; the model folder stores the parameters.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, model_validator
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as TF

from dxseg.data.geometry import Geometry, Spacing, Zoom, fit_geometry, zoom_to, zoomed_size
from dxseg.errors import DxsegError

Image = NDArray[np.uint8] | NDArray[np.uint16]

FULL = 255
"""Stored value of a pixel of a soft mask that is wholly of the lesion."""

LONGEST_SIDE = 2**14
"""Of an image at the spacing of a network, pixels: a header may claim any spacing."""


class Preprocessing(BaseModel):
    """Resize, pad and normalize; stored in the model folder, used in training and inference.

    The aspect ratio is kept: the longer side becomes `image_size`, or an image is brought to
    `spacing`; the rest is zero-padded at the bottom and the right. Postprocessing crops the padding
    and resizes to native size.

    Attributes:
        image_size: Side of the square input, pixels.
        spacing: Height and width of a pixel of the input, millimeters. An image whose spacing is
            not known is taken to have it; one that is larger than `image_size` then is reduced.
            None: the longer side of an image becomes `image_size`.
        channels: Number of image channels.
        dtype: Stored type of the training images.
        low: Intensity that maps to 0 before standardization, in stored units.
        high: Intensity that maps to 1.
        mean: Mean of the backbone's pretraining data, per channel.
        std: Standard deviation of the same, per channel.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    image_size: int = Field(ge=32, le=4096)
    spacing: tuple[PositiveFloat, PositiveFloat] | None = None
    channels: int = Field(ge=1, le=1024)
    dtype: Literal["uint8", "uint16"] = "uint8"
    low: float = 0.0
    high: float = 255.0
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @model_validator(mode="after")
    def _consistent(self) -> Preprocessing:
        if len(self.mean) != self.channels or len(self.std) != self.channels:
            raise ValueError(f"mean and std need one value for each of {self.channels} channels")
        if not self.high > self.low or min(self.std) <= 0:
            raise ValueError("high must exceed low, and every std must be positive")
        return self

    def fit(self, image: Image, spacing: Spacing | None = None) -> tuple[Image, Geometry]:
        """Resize and pad an image (H, W, C) to (image_size, image_size, C), dtype kept.

        Args:
            image: Of any size.
            spacing: Of the image, where it is known; see `spacing`.

        Raises:
            DxsegError: The image has another type or number of channels than the model.
        """
        if str(image.dtype) != self.dtype or image.shape[2] != self.channels:
            raise DxsegError(
                f"image of {image.shape[2]} channels, {image.dtype}: the model was trained on "
                f"{self.channels} channels, {self.dtype}; convert the image"
            )
        return fit_image(image, self.image_size, zoom_to(self.spacing, spacing))

    def size_at_spacing(self, image: Image, spacing: Spacing | None) -> tuple[int, int]:
        """Compute the size of an image (H, W, C) at `spacing`, whatever fits; else its own."""
        zoom = zoom_to(self.spacing, spacing) or (1.0, 1.0)
        return zoomed_size(image.shape[0], image.shape[1], zoom)

    def resample(self, image: Image, spacing: Spacing | None) -> Image:
        """Bring an image (H, W, C) to `spacing`, whatever its size; without one it is left alone.

        Raises:
            DxsegError: It would be too large.
        """
        size = self.size_at_spacing(image, spacing)
        if self.spacing is not None and max(size) > LONGEST_SIDE:
            raise DxsegError(
                f"an image of {spacing} mm would have {size[0]} x {size[1]} pixels at the "
                f"{self.spacing} mm of the network; correct its spacing"
            )
        return _resize(image, [*size])

    def normalize(self, images: Tensor) -> Tensor:
        """Convert stored intensities (B, C, H, W) to the float32 input of a network."""
        return self.standardise(self.scale(images))

    def scale(self, images: Tensor) -> Tensor:
        """Scale stored intensities to float32 in [0, 1]; values outside low..high are clipped."""
        return ((images.float() - self.low) / (self.high - self.low)).clamp(0, 1)

    def standardise(self, scaled: Tensor) -> Tensor:
        """Standardize intensities in [0, 1], (B, C, H, W), by the statistics of the pretraining."""
        mean = scaled.new_tensor(self.mean)[:, None, None]
        std = scaled.new_tensor(self.std)[:, None, None]
        return (scaled - mean) / std

    def postprocess(self, probabilities: Tensor, geometry: Geometry) -> Tensor:
        """Crop and resize probabilities (K, S, S) of the square input to native size, (K, H, W)."""
        inside = probabilities[None, :, : geometry.fitted_height, : geometry.fitted_width]
        size = (geometry.height, geometry.width)
        return F.interpolate(inside, size=size, mode="bilinear", align_corners=False)[0]


def fit_image(image: Any, image_size: int, zoom: Zoom | None = None) -> tuple[Any, Geometry]:
    """Resize an image (H, W, C) with anti-aliasing, as `fit_geometry` says, pad to a square."""
    height, width, channels = image.shape
    geometry = fit_geometry(height, width, image_size, zoom)
    size = [geometry.fitted_height, geometry.fitted_width]
    resized = _resize(image, size)
    square = np.zeros((image_size, image_size, channels), dtype=image.dtype)
    square[: size[0], : size[1]] = resized
    return square, geometry


def fit_mask(
    mask: NDArray[np.uint8], image_size: int, classes: int, zoom: Zoom | None = None
) -> NDArray[np.uint8]:
    """Resize a label map (H, W) with values 0..classes as its image is, (S, S).

    Each class is resized as a soft mask, and a pixel gets the class that covers most of it if that
    is at least half.
    """
    return cut_mask(_fit_coverage(mask, image_size, classes, zoom))


def fit_soft_mask(
    mask: NDArray[np.uint8], image_size: int, classes: int, zoom: Zoom | None = None
) -> NDArray[np.uint8]:
    """The same without the cut: how much of a pixel each class covers, (K, S, S) in 255ths."""
    return np.rint(_fit_coverage(mask, image_size, classes, zoom) * FULL).astype(np.uint8)


def cut_mask(soft: NDArray[Any], full: float = 1.0) -> NDArray[np.uint8]:
    """Cut a soft mask (K, S, S), 0 to `full`, at one half: a label map (S, S)."""
    return np.where(soft.max(axis=0) >= full / 2, soft.argmax(axis=0) + 1, 0).astype(np.uint8)


def _fit_coverage(
    mask: NDArray[np.uint8], image_size: int, classes: int, zoom: Zoom | None
) -> NDArray[np.float32]:
    one_hot = np.stack([mask == value for value in range(1, classes + 1)], axis=-1)
    square: NDArray[np.float32] = fit_image(one_hot.astype(np.float32), image_size, zoom)[0]
    return square.transpose(2, 0, 1)


def _resize(array: NDArray[Any], size: list[int]) -> NDArray[Any]:
    """Bilinear resizing of (H, W, C) with anti-aliasing; integers are rounded, never wrapped."""
    if list(array.shape[:2]) == size:
        return array
    tensor = torch.from_numpy(np.ascontiguousarray(array.transpose(2, 0, 1)).astype(np.float32))
    resized = TF.resize(tensor, size, antialias=True).numpy().transpose(1, 2, 0)
    if np.issubdtype(array.dtype, np.integer):
        limits = np.iinfo(array.dtype)
        resized = np.clip(np.rint(resized), limits.min, limits.max)
    result: NDArray[Any] = resized.astype(array.dtype)
    return result


def intensity_range(images: NDArray[Any], rows: NDArray[np.int64]) -> tuple[float, float]:
    """Find the range that maps to [0, 1]: all of it for 8 bit, percentiles for 16 bit.

    Scanners store 10 or 12 bits in 16: the 0.1 and 99.9 percentiles of training pixels are used as
    the range. At most 256 images, evenly spaced, are read, one at a time.

    Args:
        images: Images (N, S, S, C) uint8 or uint16, such as a memory map.
        rows: Training images among them.
    """
    if images.dtype == np.uint8:
        return 0.0, 255.0
    counts = np.zeros(2**16, dtype=np.int64)
    for row in rows[:: -(-len(rows) // 256)]:
        counts += np.bincount(images[row].ravel(), minlength=2**16)
    low, high = (_quantile(counts, q) for q in (0.001, 0.999))
    return low, max(high, low + 1.0)


def _quantile(counts: NDArray[np.int64], q: float) -> float:
    """Compute a quantile of integers from their counts, interpolated as in np.quantile."""
    position = q * (counts.sum() - 1)
    ranks = np.floor(position) + np.array([0, 1])
    lower, upper = np.searchsorted(counts.cumsum(), ranks, side="right").clip(max=len(counts) - 1)
    return float(lower + (upper - lower) * (position - ranks[0]))

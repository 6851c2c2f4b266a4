"""Sliding-window inference: masks of images that are larger than the network's input.

Resizing a large image to the network's input loses its small lesions. Windows keep them, at a scale
that the network must have been trained at: they suit networks that were trained at a spacing, or on
images hardly larger than `image_size`. Labels, evidence and the image-level thresholds still use
the whole image, resized; the coarse branch that prompts the masks sees it as it is cut.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

OVERLAP = 0.25
"""Of neighboring windows, as a fraction of their side."""

Pixels = NDArray[np.uint8] | NDArray[np.uint16]


def pad_to_window(pixels: Pixels, side: int) -> Pixels:
    """Pad (H, W, C) with zeros at the bottom and the right, as smaller images are, up to `side`."""
    height, width, channels = pixels.shape
    padded = np.zeros((max(height, side), max(width, side), channels), dtype=pixels.dtype)
    padded[:height, :width] = pixels
    return padded


def predict_windows(
    images: Tensor, side: int, network: Callable[[Tensor, Tensor], Tensor], batch_size: int
) -> Tensor:
    """Run a network on overlapping windows and blend the logits, centers weighing most.

    Args:
        images: (B, C, H, W) normalized, H and W at least `side`.
        side: Of a window, pixels.
        network: Maps (B, C, side, side), and the x and y (B, 2) of their upper left corners, to
            logits (B, K, side, side).
        batch_size: Windows per forward pass.

    Returns:
        Logits (B, K, H, W).
    """
    from monai.inferers.inferer import SlidingWindowInferer

    inferer = SlidingWindowInferer(
        (side, side), sw_batch_size=batch_size, overlap=OVERLAP, mode="gaussian", with_coord=True
    )

    def at_corners(windows: Tensor, places: list[list[slice]]) -> Tensor:
        return network(windows, torch.tensor([[x.start, y.start] for *_, y, x in places]))

    blended = inferer(images, at_corners)
    assert isinstance(blended, Tensor), "the network returns one tensor"
    return blended

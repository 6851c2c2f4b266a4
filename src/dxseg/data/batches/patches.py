"""Random patches of an image and its mask, more often than not on a lesion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

LESION_FRACTION = 2 / 3
"""Fraction of the patches of an image with a lesion that must show some of it; the others lie
anywhere, since the network must see background too. nnU-Net has one third; with few masks, lesions
are rarer."""


@dataclass(frozen=True)
class PatchSampler:
    """Draws where a patch lies in its image.

    Attributes:
        size: Side of the patches, pixels.
        lesion_channels: Channels of the target that are lesions, where others are organs.
    """

    size: int
    lesion_channels: Sequence[int]

    def draw(self, target: Tensor) -> tuple[int, int]:
        """Draw the x and y of a patch's upper left corner, from PyTorch's global generator.

        Args:
            target: (K, H, W), 0 to 1; pixels above one half are of their class. H and W are at
                least `size`.
        """
        height, width = target.shape[-2:]
        lesion = (target[list(self.lesion_channels)] > 0.5).any(dim=0).nonzero()
        x, y = (int(torch.randint(side - self.size + 1, ())) for side in (width, height))
        if not len(lesion) or torch.rand(()).item() >= LESION_FRACTION:
            return x, y
        row, column = lesion[torch.randint(len(lesion), ())].tolist()
        # The pixel may be anywhere in the patch, as far as the image allows.
        dy, dx = torch.randint(self.size, (2,)).tolist()
        return min(max(column - dx, 0), width - self.size), min(
            max(row - dy, 0), height - self.size
        )

    def cut(self, pixels: Tensor, corner: tuple[int, int]) -> Tensor:
        """Cut a patch (..., size, size) out of (..., H, W)."""
        x, y = corner
        return pixels[..., y : y + self.size, x : x + self.size]

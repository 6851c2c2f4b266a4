"""Small or scattered components of a mask, removed where validation has shown that it helps."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from scipy import ndimage


class ComponentFilter(BaseModel):
    """Which connected components of each class stay in a mask.

    Attributes:
        by_volume: Whether components are of the voxels of a whole volume (26 neighbors) and not of
            the pixels of each image (8 neighbors).
        largest_only: Whether only the largest stays.
        min_area: Smallest size that stays, in pixels of the network's input; of a volume, the sum
            over its slices.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    by_volume: bool = False
    largest_only: bool = False
    min_area: float = Field(default=0.0, ge=0, allow_inf_nan=False)

    def apply(
        self, mask: NDArray[np.uint8], *, scale: float = 1.0, keep_one: bool = False
    ) -> NDArray[np.uint8]:
        """Remove components from a mask.

        Args:
            mask: (H, W) or (D, H, W) label map.
            scale: Pixels of the mask per pixel of the network's input, as areas.
            keep_one: Whether the largest stays, however small, as where a lesion is known.

        Returns:
            A copy; of equally large components the first stays.
        """
        kept = np.zeros_like(mask)
        neighbors = np.ones((3,) * mask.ndim, bool)
        largest = np.zeros_like(mask)
        for value, box in enumerate(ndimage.find_objects(mask), start=1):
            if box is None:
                continue
            numbered, _ = ndimage.label(mask[box] == value, neighbors)
            sizes = np.bincount(numbered.ravel())
            sizes[0] = 0
            first = int(sizes.argmax())
            stays = sizes >= max(self.min_area * scale, 1)
            if self.largest_only:
                stays &= np.arange(len(sizes)) == first
            kept[box][stays[numbered]] = value
            if keep_one and sizes[first] > np.count_nonzero(largest):
                largest = np.zeros_like(mask)
                largest[box][numbered == first] = value
        return largest if keep_one and not kept.any() else kept

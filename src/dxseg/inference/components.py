"""Small or scattered components of a mask, removed where validation has shown that it helps."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from scipy import ndimage

_EIGHT_NEIGHBORS = np.ones((3, 3), bool)


class ComponentFilter(BaseModel):
    """Which connected components (8 neighbors) of each class stay in a mask.

    Attributes:
        largest_only: Whether only the largest stays.
        min_area: Smallest area that stays, in pixels of the network's input.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    largest_only: bool = False
    min_area: float = Field(default=0.0, ge=0, allow_inf_nan=False)

    def apply(
        self, mask: NDArray[np.uint8], *, scale: float = 1.0, keep_one: bool = False
    ) -> NDArray[np.uint8]:
        """Remove components from a mask.

        Args:
            mask: (H, W) label map.
            scale: Pixels of the mask per pixel of the network's input, as areas.
            keep_one: Whether the largest stays, however small, as where a lesion is known.

        Returns:
            A copy; of equally large components the first stays.
        """
        kept = np.zeros_like(mask)
        largest: NDArray[np.bool_] = np.zeros(mask.shape, bool)
        for value in np.unique(mask[mask > 0]):
            numbered, _ = ndimage.label(mask == value, _EIGHT_NEIGHBORS)
            areas = np.bincount(numbered.ravel())
            areas[0] = 0
            first = int(areas.argmax())
            stays = areas >= max(self.min_area * scale, 1)
            if self.largest_only:
                stays &= np.arange(len(areas)) == first
            kept[stays[numbered]] = value
            if areas[first] > largest.sum():
                largest = numbered == first
        if keep_one and not kept.any():
            kept[largest] = mask[largest]
        return kept

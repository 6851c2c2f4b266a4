"""Small or scattered components of a mask, removed where validation has shown that it helps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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
        min_volume_mm3: Smallest volume that stays, in cubic millimeters; of volumes whose voxels
            have an unknown size nothing is removed for it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    by_volume: bool = False
    largest_only: bool = False
    min_area: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    min_volume_mm3: float = Field(default=0.0, ge=0, allow_inf_nan=False)

    def apply(
        self,
        mask: NDArray[np.uint8],
        *,
        scale: float = 1.0,
        voxel_mm3: float | None = None,
        keep_one_of: Sequence[int] = (),
    ) -> NDArray[np.uint8]:
        """Remove components from a mask.

        Args:
            mask: (H, W) or (D, H, W) label map.
            scale: Pixels of the mask per pixel of the network's input, as areas.
            voxel_mm3: Volume of a voxel of the mask; None where unknown.
            keep_one_of: Values of which the largest component stays, however small, if no other
                does, as where a lesion is known.

        Returns:
            A copy; of equally large components the first stays.
        """
        kept = np.zeros_like(mask)
        largest: tuple[int, Any] = (0, None)
        boxes = ndimage.find_objects(mask)
        for value, box in enumerate(boxes, start=1):
            if box is None:
                continue
            # Of one class no copy is needed.
            inside = mask[box] if len(boxes) == 1 else mask[box] == value
            numbered, count = _label(inside)
            # Plane by plane, for the memory: bincount makes integers of 8 bytes of what it counts.
            sizes = np.zeros(count + 1, np.int64)
            for plane in numbered:
                sizes += np.bincount(plane.ravel(), minlength=count + 1)
            sizes[0] = 0
            first = int(sizes.argmax())
            stays = sizes >= max(self.min_area * scale, 1)
            if voxel_mm3 is not None:
                stays &= sizes * voxel_mm3 >= self.min_volume_mm3
            if self.largest_only:
                stays &= np.arange(len(sizes)) == first
            for plane, numbers in zip(kept[box], numbered, strict=True):
                plane[stays[numbers]] = value
            if value in keep_one_of and sizes[first] > largest[0]:
                largest = int(sizes[first]), (box, numbered == first, value)
        if largest[0] and not np.isin(kept, keep_one_of).any():
            box, inside, value = largest[1]
            kept[box][inside] = value
        return kept


def _label(inside: NDArray[Any]) -> tuple[NDArray[Any], int]:
    """Number the connected components, diagonals included, from 1."""
    neighbors = np.ones((3,) * inside.ndim, bool)
    try:
        # Two bytes a voxel instead of four: of a volume these are most of the memory.
        numbered, count = ndimage.label(inside, neighbors, np.uint16)
    except RuntimeError:  # more components than it can number
        numbered, count = ndimage.label(inside, neighbors)
    return numbered, count

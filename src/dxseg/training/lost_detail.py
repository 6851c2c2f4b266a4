"""What the input size costs, said before anything is trained."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dxseg.data.geometry import Spacing, attainable_by_lesion, zoom_to, zoomed_size
from dxseg.data.table.cases import TRAIN, spacing_of
from dxseg.data.table.dataset import Dataset

MAX_MASKS = 200
"""As many masks are measured, evenly spaced in the table."""

SUFFICIENT = 0.9
"""Dice that the smallest third of the lesions must be able to reach."""


@dataclass(frozen=True)
class LostDetail:
    """What a perfect network could reach at an input size; see `attainable_by_lesion`.

    Attributes:
        image_size: The input size, pixels.
        side: Median of the longer sides of the images, at the spacing if there is one, pixels.
        areas: (N,) native area of each lesion, pixels, in ascending order.
        dice: (N,) attainable Dice of each.
    """

    image_size: int
    side: int
    areas: NDArray[np.int64]
    dice: NDArray[np.float64]

    @property
    def thirds(self) -> list[float]:
        """Mean attainable Dice of the smallest, middle and largest third of the lesions."""
        return [float(third.mean()) for third in np.array_split(self.dice, 3) if len(third)]

    def warning(self) -> str:
        """What is lost and what to do about it; empty if nothing much is."""
        vanished = int((self.dice == 0).sum())
        if not len(self.dice) or (self.thirds[0] >= SUFFICIENT and not vanished):
            return ""
        reached = ", ".join(f"{dice:.2f}" for dice in self.thirds)
        smallest = self.areas[-(-len(self.areas) // 3) - 1]
        factor = min(max(round(self.side / self.image_size), 2), 8)
        lost = f"{vanished} of {len(self.dice)} would vanish; " if vanished else ""
        larger = f"--set data.image_size={self.image_size * factor}"
        cheaper = f"--set data.patch_size={self.image_size} --set model.coarse_reduction={factor}"
        return (
            f"data.image_size = {self.image_size} loses detail: of the lesions with a mask, from "
            f"the smallest third (up to {smallest} pixels) to the largest, a perfect network could "
            f"reach a Dice of {reached}; {lost}{larger} keeps more, and with {cheaper} a step "
            "costs little more"
        )


def measure_lost_detail(
    dataset: Dataset,
    splits: pd.DataFrame,
    image_size: int,
    spacing: Spacing | None = None,
    *,
    soft: bool = False,
) -> LostDetail:
    """Measure it on each lesion of the training masks that may be used.

    Args:
        dataset: The cases.
        splits: With `use_mask`, in the order of the cases.
        image_size: Side of the square that images are fitted into, pixels.
        spacing: That they are brought to, if they are.
        soft: Whether masks are soft.
    """
    usable = splits["split"].eq(TRAIN).to_numpy() & splits["use_mask"].to_numpy(dtype=bool)
    rows = dataset.cases[usable & dataset.cases["mask"].ne("").to_numpy()]
    step = max(1, -(-len(rows) // MAX_MASKS))
    measured: list[tuple[int, float]] = []
    sides: list[int] = []
    for row in rows.iloc[::step].itertuples():
        mask, zoom = dataset.read_mask(row), zoom_to(spacing, spacing_of(row, dataset.spec))
        assert mask is not None, "the table has a file for it"
        lesions = np.isin(mask, dataset.spec.lesion_values)
        if lesions.any():
            sides.append(max(zoomed_size(mask.shape[0], mask.shape[1], zoom or (1.0, 1.0))))
            reached = attainable_by_lesion(lesions, image_size, zoom, soft=soft)
            measured.extend(zip(*reached, strict=True))
    areas, dice = np.array(sorted(measured), dtype=np.float64).reshape(-1, 2).T
    side = int(np.median(sides)) if len(sides) else image_size
    return LostDetail(image_size, side, areas.astype(np.int64), dice)

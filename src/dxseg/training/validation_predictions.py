"""Predictions for validation images, by the predictor that inference uses."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from dxseg.data.batches.batches import CaseDataset
from dxseg.errors import DxsegError
from dxseg.inference.model_info import ModelInfo
from dxseg.inference.pipeline import Prediction
from dxseg.inference.predictor import Predictor
from dxseg.models.segmentation_model import SegmentationModel

MIN_LESIONS = 5
"""Nothing is chosen with fewer validation masks, of images or slices, that show a lesion."""
MIN_VOLUMES = 2
"""Nothing is chosen for volumes with fewer validation volumes that show a lesion."""
MIN_GAIN = 0.005
"""A gain of mean Dice below this is noise of a few images."""


def predictions(
    segmenter: SegmentationModel, info: ModelInfo, cases: CaseDataset, rows: NDArray[np.int64]
) -> Iterator[tuple[int, Prediction]]:
    """Predict stored images; they have the network's size, so nothing is resized.

    Args:
        segmenter: The network.
        info: Of its model folder.
        cases: The images.
        rows: Of those to predict; slices of a volume beside each other, in their order. Others of
            the volume are predicted too where the model needs them.

    Yields:
        The row, and its prediction, in the order of the rows.
    """
    wanted, order = set(rows.tolist()), rows.tolist()
    positions = {}
    if info.joins_slices and cases.positions is not None:
        units = [unit.tolist() for unit in volumes(cases)]
        of_row = {row: unit for unit in units for row in unit}
        order = list(dict.fromkeys(one for row in order for one in of_row[row]))
        places = ((str(row), cases.positions[row]) for row in order)
        positions = {name: place for name, place in places if place is not None}
    items = ((str(row), partial(cases.image, row)) for row in order)
    for name, found in Predictor(segmenter, info).stream(items, positions=positions):
        if isinstance(found, DxsegError):
            raise found
        if int(name) in wanted:
            yield int(name), found


def is_slice(cases: CaseDataset, row: int) -> bool:
    """Whether the place of a case in a volume is known."""
    return cases.positions is not None and cases.positions[row] is not None


def voxel_mm3(cases: CaseDataset, unit: NDArray[np.int64]) -> float | None:
    """The volume of a stored voxel of a unit; None for an image, or where unknown."""
    position = None if cases.positions is None else cases.positions[unit[0]]
    return None if position is None else position.voxel_mm3


def volumes(cases: CaseDataset) -> list[NDArray[np.int64]]:
    """Rows of the slices of each volume, in their order; of other cases one by one."""
    if cases.positions is None:
        return [np.array([row]) for row in range(len(cases))]
    units: dict[str | int, list[tuple[int, int]]] = {}
    for row, position in enumerate(cases.positions):
        if position is None:
            units[row] = [(0, row)]
        else:
            units.setdefault(position.volume, []).append((position.index, row))
    return [np.array([row for _, row in sorted(unit)]) for unit in units.values()]


def masked_rows(cases: CaseDataset | None) -> NDArray[np.int64]:
    """Rows of the images whose mask may be used."""
    if cases is None or cases.masks is None:
        return np.zeros(0, np.int64)
    return np.flatnonzero(cases.mask_rows >= 0)


def measured_units(cases: CaseDataset | None) -> list[NDArray[np.int64]]:
    """Rows of the volumes whose masks may all be used; without slices, of such images one by one.

    Of a volume whose masks are hidden the slices without a lesion are known all the same: to
    measure these alone would reward a network that finds nothing.
    """
    if cases is None or cases.masks is None:
        return []
    units = [unit for unit in volumes(cases) if (cases.mask_rows[unit] >= 0).all()]
    return [unit for unit in units if is_slice(cases, unit[0])] or units


def predicted_masks(
    segmenter: SegmentationModel,
    info: ModelInfo,
    cases: CaseDataset,
    units: list[NDArray[np.int64]],
) -> Iterator[NDArray[np.uint8]]:
    """The predicted masks (D, S, S) of each of some units.

    Args:
        segmenter: The network.
        info: Of its model folder.
        cases: The images.
        units: From `measured_units`.
    """
    stream = predictions(segmenter, info, cases, np.concatenate(units))
    for unit in units:
        yield np.stack([found.mask for _, found in islice(stream, len(unit))])


def true_masks(cases: CaseDataset, unit: NDArray[np.int64]) -> NDArray[np.uint8]:
    """The masks (D, S, S) of a unit."""
    return np.stack([cases.label_map(row) for row in unit])

"""Volumes: their slices are put together one volume at a time and measured in three dimensions."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dxseg.errors import DxsegError
from dxseg.evaluation.cases import (
    MASK_METRICS,
    EvaluatedCase,
    EvaluationProtocol,
    Row,
    known_truth,
    score_masks,
)

VOXELS = ("true_voxels", "predicted_voxels", "common_voxels")
"""Counts of a volume, of lesions; `<count>_<class>` of a class."""
COLUMNS = (
    *("volume_id", "group", "slices", "lesion_free", *MASK_METRICS),
    *("lesion_sensitivity", "lesion_precision", "lesion_f1"),
    *("lesions_true", "lesions_predicted", "lesions_matched"),
    *("true_ml", "predicted_ml", "volume_error_ml", "false_positive"),
    *VOXELS,
)
_IN_SPACE = ("hd95", "nsd", "true_ml", "predicted_ml", "volume_error_ml")
_PARTLY_KNOWN = "slices whose mask is unknown or that the table lacks"
_UNEQUAL = "slices of different size"


class VolumeScorer:
    """Collects slices that come volume by volume; memory holds the masks of one volume.

    Attributes:
        left_out: Number of volumes that could not be measured, by reason.
    """

    def __init__(self, protocol: EvaluationProtocol) -> None:
        """Start without a volume.

        Args:
            protocol: How to measure.
        """
        self.left_out: Counter[str] = Counter()
        self._protocol = protocol
        self._slices: list[EvaluatedSlice] = []
        self._seen: set[str] = set()
        self._rows: list[Row] = []

    def add(self, case: EvaluatedCase) -> None:
        """Take the next case; one that is no slice of a volume counts for nothing here.

        Raises:
            DxsegError: Slices of another volume came between those of this one.
        """
        if case.place is None:
            return
        volume_id = case.place.volume_id
        if self._slices and self._slices[0].volume_id != volume_id:
            self._finish()
        if not self._slices and volume_id in self._seen:
            raise DxsegError(
                f"volume {volume_id!r}: its slices come apart; sort the cases by volume_id"
            )
        self._seen.add(volume_id)
        self._slices.append(EvaluatedSlice(case))

    def table(self) -> pd.DataFrame:
        """Finish the last volume and return one row per volume, with `COLUMNS`.

        With several mask classes also `<metric>_<class>` and `<count>_<class>`. Distances, in
        millimeters, and volumes, in milliliters, are NaN where the distance of the slices or the
        size of the pixels is unknown.
        """
        self._finish()
        table = pd.DataFrame(self._rows, columns=None if self._rows else list(COLUMNS))
        counts = [name for name in COLUMNS if name.startswith("lesions_")]
        return table.astype(dict.fromkeys(counts, "Int64"))

    def _finish(self) -> None:
        if self._slices:
            reason = _obstacle(self._slices)
            if reason:
                self.left_out[reason] += 1
            else:
                self._rows.append(_score(self._slices, self._protocol))
        self._slices = []


class EvaluatedSlice:
    """What is kept of a slice until its volume is complete: masks, not probabilities."""

    def __init__(self, case: EvaluatedCase) -> None:
        """Keep the masks and the place of a case that is a slice."""
        assert case.place is not None, "a slice of a volume"
        self.place = case.place
        self.volume_id = case.place.volume_id
        self.group = case.group
        self.truth = known_truth(case)
        self.found = case.prediction.mask
        self.spacing = case.spacing


def _obstacle(slices: list[EvaluatedSlice]) -> str:
    """Why a volume cannot be measured; "" if it can."""
    indices = {one.place.index for one in slices}
    known = all(one.truth is not None for one in slices) and None not in indices
    first = min((index for index in indices if index is not None), default=0)
    if not known or indices != set(range(first, first + slices[0].place.slices)):
        return _PARTLY_KNOWN
    return _UNEQUAL if len({one.found.shape for one in slices}) > 1 else ""


def _score(slices: list[EvaluatedSlice], protocol: EvaluationProtocol) -> Row:
    ordered = sorted(slices, key=lambda one: one.place.index or 0)
    truth = np.stack([one.truth for one in ordered if one.truth is not None])
    found = np.stack([one.found for one in ordered])
    first = ordered[0]
    known = first.spacing is not None and first.place.spacing is not None
    spacing = (first.place.spacing or 1.0, *(first.spacing or (1.0, 1.0)))
    scores = score_masks(truth, found, spacing, protocol)
    lesion, found_lesion = protocol.lesions(truth), protocol.lesions(found)
    row: Row = {
        "volume_id": first.volume_id,
        "group": first.group,
        "slices": len(ordered),
        "lesion_free": not lesion.any(),
        "false_positive": not lesion.any() and bool(found_lesion.any()),
        **_voxels(truth, found, protocol),
        **_volumes(lesion, found_lesion, float(np.prod(spacing)) / 1000),
        **scores,
    }
    if not known:
        row |= {name: float("nan") for name in row if name.startswith(_IN_SPACE)}
    others = [name for name in row if name not in COLUMNS]
    return {name: row[name] for name in (*COLUMNS, *others)}


def _voxels(
    truth: NDArray[np.uint8], found: NDArray[np.uint8], protocol: EvaluationProtocol
) -> dict[str, int]:
    """Voxels of lesions and those with the right class; with several classes also of each."""
    lesions, per_class = dict.fromkeys(VOXELS, 0), {}
    for value, name in enumerate(protocol.mask_classes, start=1):
        true, predicted = truth == value, found == value
        counts = (int(np.count_nonzero(one)) for one in (true, predicted, true & predicted))
        for column, count in zip(VOXELS, counts, strict=True):
            per_class[f"{column}_{name}"] = count
            lesions[column] += count * (value in protocol.lesion_values)
    return lesions | per_class if len(protocol.mask_classes) > 1 else lesions


def _volumes(
    lesion: NDArray[np.bool_], found: NDArray[np.bool_], voxel_ml: float
) -> dict[str, float]:
    """Volumes of lesions in milliliters."""
    true, predicted = np.count_nonzero(lesion) * voxel_ml, np.count_nonzero(found) * voxel_ml
    return {
        "true_ml": true,
        "predicted_ml": predicted,
        "volume_error_ml": predicted - true,
    }

"""Whether small components of masks are removed, chosen on validation after training (ours).

Networks that have seen few masks mark scattered specks. Removing them is off unless the validation
masks show a clear gain, no lesion that was found is lost, and every true mask, of training too,
would stay as it is: a few validation images alone say little about the smallest lesion. Where
images are slices, components and Dice are those of volumes, and the smallest one that stays is in
cubic millimeters if all volumes have known voxels: these differ between volumes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from dxseg.data.batches.batches import CaseDataset
from dxseg.inference.components import ComponentFilter
from dxseg.inference.model_info import ModelInfo
from dxseg.metrics.overlap import mean_dice
from dxseg.models.segmentation_model import SegmentationModel
from dxseg.training.validation_predictions import (
    MIN_GAIN,
    MIN_LESIONS,
    MIN_VOLUMES,
    is_slice,
    measured_units,
    predicted_masks,
    true_masks,
    volumes,
    voxel_mm3,
)

AREAS = (4, 8, 16, 32, 64, 128, 256)
VOLUME_AREAS = (*AREAS, 512, 1024, 2048)

_Unit = tuple[CaseDataset, NDArray[np.int64]]


def choose_components(
    segmenter: SegmentationModel,
    info: ModelInfo,
    validation: CaseDataset | None,
    training: CaseDataset,
) -> tuple[ComponentFilter | None, dict[str, Any]]:
    """Choose the filter with the highest mean Dice of the validation masks.

    Args:
        segmenter: The trained network.
        info: Of its model folder, with temperatures and thresholds, without a filter.
        validation: The validation cases with the masks that may be used; None if there is none.
        training: The training cases whose masks may be used.

    Returns:
        The filter, or None; and the entry of `run.json`: images, volumes of which they are slices,
        dice_before, dice_after, and a note if there is no filter.
    """
    units = measured_units(validation)
    if validation is None or not units:
        return None, {"images": 0, "note": "off: no validation mask"}
    by_volume = is_slice(validation, units[0][0])
    record: dict[str, Any] = {"images": sum(map(len, units))}
    record |= {"volumes": len(units)} if by_volume else {}
    known = [(validation, unit) for unit in units]
    known += [(training, unit) for unit in volumes(training)]
    candidates = _that_keep(known, _volume_candidates(known) if by_volume else _candidates())
    if not candidates:
        return None, record | {"note": "off: every filter would remove a part of a true mask"}
    scores, lost = np.zeros(len(candidates) + 1), np.zeros(len(candidates), bool)
    lesions = lesion_units = 0
    for unit, found in zip(units, predicted_masks(segmenter, info, validation, units), strict=True):
        truth = true_masks(validation, unit)
        lesion = np.isin(truth, info.lesion_values)
        lesions += int(lesion.any(axis=(1, 2)).sum())
        lesion_units += bool(lesion.any())
        scores[0] += mean_dice(truth, found, len(info.mask_classes))
        numbered, _ = ndimage.label(lesion, np.ones((3, 3, 3), bool))
        before = _count_found(numbered, truth, found)
        for number, candidate in enumerate(candidates):
            mask = candidate.apply(found, voxel_mm3=voxel_mm3(validation, unit))
            scores[number + 1] += mean_dice(truth, mask, len(info.mask_classes))
            lost[number] |= _count_found(numbered, truth, mask) < before
    unfiltered, *filtered = scores / len(units)
    allowed = np.where(lost, -1.0, filtered)
    best = int(allowed.argmax())
    record |= {"dice_before": round(float(unfiltered), 6)}
    if lesions < MIN_LESIONS:
        return None, record | {"note": f"off: fewer than {MIN_LESIONS} masks with a lesion"}
    if by_volume and lesion_units < MIN_VOLUMES:
        return None, record | {"note": f"off: fewer than {MIN_VOLUMES} volumes with a lesion"}
    if allowed[best] < unfiltered + MIN_GAIN:
        return None, record | {"note": f"off: no filter gains {MIN_GAIN} of validation Dice"}
    return candidates[best], record | {"dice_after": round(float(allowed[best]), 6)}


def _candidates() -> list[ComponentFilter]:
    smallest = (ComponentFilter(min_area=area) for area in AREAS)
    return [*smallest, ComponentFilter(largest_only=True)]


def _volume_candidates(known: Sequence[_Unit]) -> list[ComponentFilter]:
    """In cubic millimeters, as multiples of the median voxel, where all volumes' are known."""
    voxels = [voxel_mm3(*unit) for unit in known if is_slice(unit[0], unit[1][0])]
    sizes = [voxel for voxel in voxels if voxel is not None]
    if len(sizes) == len(voxels):
        unit = float(np.median(sizes))
        smallest = [
            ComponentFilter(by_volume=True, min_volume_mm3=area * unit) for area in VOLUME_AREAS
        ]
    else:
        smallest = [ComponentFilter(by_volume=True, min_area=area) for area in VOLUME_AREAS]
    return [*smallest, ComponentFilter(by_volume=True, largest_only=True)]


def _that_keep(known: Iterable[_Unit], candidates: list[ComponentFilter]) -> list[ComponentFilter]:
    for cases, unit in known:
        truth, voxel = true_masks(cases, unit), voxel_mm3(cases, unit)
        candidates = [
            one for one in candidates if np.array_equal(one.apply(truth, voxel_mm3=voxel), truth)
        ]
        if not candidates:
            break
    return candidates


def _count_found(
    numbered: NDArray[np.int32], truth: NDArray[np.uint8], mask: NDArray[np.uint8]
) -> int:
    """How many lesions a mask touches; `numbered` has the number of each in the truth, else 0."""
    return len(np.unique(numbered[(numbered > 0) & (mask == truth)]))

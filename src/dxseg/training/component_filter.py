"""Whether small components of masks are removed, chosen on validation after training (ours).

Networks that have seen few masks mark scattered specks. Removing them is off unless the validation
masks show a clear gain, no lesion that was found is lost, and every true mask, of training too,
would stay as it is: a few validation images alone say little about the smallest lesion.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dxseg.data.batches.batches import CaseDataset
from dxseg.inference.components import ComponentFilter
from dxseg.inference.model_folder import ModelInfo
from dxseg.metrics.overlap import dice
from dxseg.models.segmentation_model import SegmentationModel
from dxseg.training.calibration import MIN_LESIONS, predictions

CANDIDATES = (
    *(ComponentFilter(min_area=area) for area in (4, 8, 16, 32, 64, 128, 256)),
    ComponentFilter(largest_only=True),
)
MIN_GAIN = 0.005
"""A gain of mean Dice below this is noise of a few images."""


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
        validation: The validation cases whose masks may be used; None if there is none.
        training: The training cases whose masks may be used.

    Returns:
        The filter, or None; and the entry of `run.json`: images, dice_before, dice_after, and a
        note if there is no filter.
    """
    if validation is None:
        return None, {"images": 0, "note": "off: no validation mask"}
    candidates = _that_keep_true_masks([validation, training])
    if not candidates:
        note = "off: every filter would remove a part of a true mask"
        return None, {"images": len(validation), "note": note}
    scores, lost, lesions = np.zeros(len(candidates) + 1), np.zeros(len(candidates), bool), 0
    for row, one in predictions(segmenter, info, validation, np.arange(len(validation))):
        truth = validation.label_map(row)
        lesions += bool(truth.any())
        scores[0] += _dice(truth, one.mask, len(info.mask_classes))
        found = _overlap(truth, one.mask)
        for number, candidate in enumerate(candidates):
            mask = candidate.apply(one.mask)
            scores[number + 1] += _dice(truth, mask, len(info.mask_classes))
            lost[number] |= found and not _overlap(truth, mask)
    before, *after = scores / len(validation)
    allowed = np.where(lost, -1.0, after)
    best = int(allowed.argmax())
    record = {"images": len(validation), "dice_before": round(float(before), 6)}
    if lesions < MIN_LESIONS:
        return None, record | {"note": f"off: fewer than {MIN_LESIONS} masks with a lesion"}
    if allowed[best] < before + MIN_GAIN:
        return None, record | {"note": f"off: no filter gains {MIN_GAIN} of validation Dice"}
    return candidates[best], record | {"dice_after": round(float(allowed[best]), 6)}


def _that_keep_true_masks(datasets: Sequence[CaseDataset]) -> list[ComponentFilter]:
    kept = list(CANDIDATES)
    for cases in datasets:
        for row in range(len(cases)):
            truth = cases.label_map(row)
            kept = [one for one in kept if np.array_equal(one.apply(truth), truth)]
            if not kept:
                return []
    return kept


def _dice(truth: NDArray[np.uint8], mask: NDArray[np.uint8], classes: int) -> float:
    """Mean Dice of the classes that either mask has; 1 where both are empty."""
    pairs = [(truth == value, mask == value) for value in range(1, classes + 1)]
    scores = [dice(*pair) for pair in pairs if pair[0].any() or pair[1].any()]
    return float(np.mean(scores)) if scores else 1.0


def _overlap(truth: NDArray[np.uint8], mask: NDArray[np.uint8]) -> bool:
    return bool(((truth > 0) & (mask == truth)).any())

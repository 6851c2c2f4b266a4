"""How far probabilities are averaged along the axis of volumes, chosen on validation (ours).

Networks see slices. A lesion goes on in the next slice, the errors of two slices do so less: the
cheapest use of the third dimension is to average what they predict. Slices alone are one of the
candidates, and stay unless the gain of the validation volumes exceeds its standard error (after the
rule of Breiman et al., "Classification and Regression Trees", 1984): of few volumes one may decide.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dxseg.data.batches.batches import CaseDataset
from dxseg.errors import DxsegError
from dxseg.inference.along_axis import smooth_along_axis
from dxseg.inference.model_info import ModelInfo
from dxseg.inference.predictor import Predictor
from dxseg.metrics.overlap import mean_dice
from dxseg.models.segmentation_model import SegmentationModel
from dxseg.training.validation_predictions import (
    MIN_GAIN,
    MIN_VOLUMES,
    measured_units,
    true_masks,
)

CANDIDATES = (0.0, 0.5, 1.0, 2.0)
"""Standard deviations, in the median distance of slices of the validation volumes."""
_ROUNDING = 1e-9


def choose_smoothing(
    segmenter: SegmentationModel, info: ModelInfo, validation: CaseDataset | None
) -> tuple[float, dict[str, Any]]:
    """Choose the Gaussian with the highest mean Dice of the validation volumes.

    Args:
        segmenter: The trained network.
        info: Of its model folder, with image-level thresholds, without smoothing.
        validation: The validation cases with the masks that may be used; None if there is none.

    Returns:
        Its standard deviation, millimeters, 0 for none; and the entry of `run.json`: volumes,
        sigma_mm, dice_before, dice_after, and a note if nothing is smoothed.
    """
    volumes = [unit for unit in measured_units(validation) if _spacing(validation, unit)]
    record: dict[str, Any] = {"volumes": len(volumes), "sigma_mm": 0.0}
    if validation is None or not volumes:
        note = "off: no validation volume whose masks and distance of slices are known"
        return 0.0, record | {"note": note}
    distance = float(np.median([_spacing(validation, unit) for unit in volumes]))
    sigmas = [round(candidate * distance, 6) for candidate in CANDIDATES]
    predictor = Predictor(segmenter, info)
    measured = np.array([_scores(predictor, validation, unit, sigmas) for unit in volumes])
    scores, of_lesions = measured[:, :, 0], measured[:, :, 1]
    masks = (true_masks(validation, unit) for unit in volumes)
    lesions = sum(np.isin(mask, info.lesion_values).any() for mask in masks)
    means, gains = scores.mean(axis=0), scores - scores[:, :1]
    record |= {"dice_before": round(float(means[0]), 6)}
    if lesions < MIN_VOLUMES:
        return 0.0, record | {"note": f"off: fewer than {MIN_VOLUMES} volumes with a lesion"}
    lost = ((of_lesions == 0) & (of_lesions[:, :1] > 0)).any(axis=0)
    error = gains.std(axis=0, ddof=1) / np.sqrt(len(volumes))
    gain = gains.mean(axis=0)
    # Where one of three volumes gains and the others do not, both are equal but for rounding.
    clear = (gain >= MIN_GAIN) & (gain > error + _ROUNDING) & ~lost
    if not clear.any():
        note = f"off: no smoothing gains {MIN_GAIN} of validation Dice, and its standard error"
        return 0.0, record | {"note": note}
    best = int(np.where(clear, means, -1.0).argmax())
    chosen = {"sigma_mm": sigmas[best], "dice_after": round(float(means[best]), 6)}
    return sigmas[best], record | chosen


def _spacing(cases: CaseDataset | None, unit: NDArray[np.int64]) -> float | None:
    """Millimeters between the slices of a unit; None for an image, or where unknown."""
    if cases is None or cases.positions is None:
        return None
    position = cases.positions[unit[0]]
    return None if position is None else position.spacing


def _scores(
    predictor: Predictor, cases: CaseDataset, unit: NDArray[np.int64], sigmas: list[float]
) -> list[list[float]]:
    """Dice of a volume under each smoothing, of all classes and of those that are lesions."""
    assert cases.positions is not None, "volumes have positions"
    positions = {str(row): cases.positions[row] for row in unit}
    items = [(str(row), partial(cases.image, row)) for row in unit]
    outputs = list(predictor.outputs(items))
    truth, values, scores = true_masks(cases, unit), predictor.info.lesion_values, []
    for sigma in sigmas:
        masks = []
        for one in smooth_along_axis(outputs, positions, sigma):
            found = predictor.finish(one)
            if isinstance(found, DxsegError):
                raise found
            masks.append(found.mask)
        mask = np.stack(masks)
        pairs = (truth, mask), (truth * np.isin(truth, values), mask * np.isin(mask, values))
        scores.append([mean_dice(one, other, cases.mask_classes) for one, other in pairs])
    return scores

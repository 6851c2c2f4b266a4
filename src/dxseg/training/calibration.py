"""Temperatures and image-level thresholds of a run, chosen on validation after training (ours).

One number divides the logits of the labels, another those of the pixels (temperature scaling:
Guo et al., "On Calibration of Modern Neural Networks", ICML 2017). Within an image no order
changes, and no mask at a threshold of 0.5.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dxseg.data.batches.batches import CaseDataset
from dxseg.inference.model_info import ModelInfo
from dxseg.metrics.calibration import (
    expected_calibration_error,
    fit_temperature,
    temper_labels,
    temper_sigmoid,
)
from dxseg.models.mil_pooling import study_probabilities
from dxseg.models.segmentation_model import SegmentationModel
from dxseg.training.axis_smoothing import choose_smoothing
from dxseg.training.datamodule.stage_data import has_label
from dxseg.training.datamodule.training_data import TrainingData
from dxseg.training.thresholds import validation_thresholds
from dxseg.training.validation_predictions import MIN_LESIONS, masked_rows, predictions

MIN_IMAGES = 20
"""Label logits are not calibrated with fewer labeled validation images."""

PIXELS = 1 << 19
"""Number of pixels times classes to fit on, sampled evenly from all images."""

Record = dict[str, Any]


def calibrate(
    segmenter: SegmentationModel,
    info: ModelInfo,
    data: TrainingData,
    *,
    sensitivity: float | None,
    specificity: float | None,
) -> tuple[ModelInfo, Record]:
    """Choose temperatures and thresholds with the predictor that inference uses.

    In this order, each step after the ones before it: label temperature, rule-out and rule-in
    threshold, smoothing along the axis of volumes, pixel temperature. Labels and thresholds use
    validation labels only, the others the masks that validation may use.

    Args:
        segmenter: The trained network.
        info: Of its model folder, without temperatures and thresholds.
        data: Of the run; its validation cases are used.
        sensitivity: Fraction of the images with a lesion that must not be ruled out; None for no
            rule-out threshold.
        specificity: Fraction of the lesion-free images that must not be ruled in; None for no
            rule-in threshold.

    Returns:
        The info with all five, and entries of `run.json`: `calibration` has for `labels` and
        `masks` each temperature, images, ece_before, ece_after (on the same cases, so optimistic),
        and a note if the temperature stays 1; for `smoothing` see `choose_smoothing`.
    """
    probabilities = _label_probabilities(segmenter, info, data.label_validation)
    cases = data.label_validation or data.label_train
    rows = np.flatnonzero(has_label(cases.labels[: len(probabilities)]))
    labels = cases.labels[rows]
    temperature, label_record = _label_temperature(probabilities[rows], labels, info)
    tempered = temper_labels(probabilities, temperature, multi_label=info.multi_label)
    pooled, of_studies = _study_probabilities(tempered, info, cases)
    rule_out_threshold, rule_in_threshold = validation_thresholds(
        np.concatenate([tempered[rows], pooled]),
        np.concatenate([labels, of_studies]),
        info,
        sensitivity=sensitivity,
        specificity=specificity,
    )
    chosen = {
        "label_temperature": temperature,
        "rule_out_threshold": rule_out_threshold,
        "rule_in_threshold": rule_in_threshold,
    }
    info = info.model_copy(update=chosen)
    sigma, smoothing_record = choose_smoothing(segmenter, info, data.label_validation)
    info = info.model_copy(update={"smoothing_mm": sigma})
    temperature, mask_record = _mask_temperature(segmenter, info, data.label_validation)
    info = info.model_copy(update={"mask_temperature": temperature})
    temperatures = {"labels": label_record, "masks": mask_record}
    return info, {"calibration": temperatures, "smoothing": smoothing_record}


def _label_probabilities(
    segmenter: SegmentationModel, info: ModelInfo, validation: CaseDataset | None
) -> NDArray[np.float64]:
    """Probabilities (N, L) of the labels of all validation images; none without a label head."""
    if validation is None or not info.model.predicts_labels:
        return np.zeros((0, len(info.labels)))
    rows = [
        list((one.label_probabilities or {}).values())
        for _, one in predictions(segmenter, info, validation, np.arange(len(validation)))
    ]
    return np.array(rows, dtype=np.float64).reshape(len(validation), -1)


def _study_probabilities(
    probabilities: NDArray[np.float64], info: ModelInfo, cases: CaseDataset
) -> tuple[NDArray[np.float64], NDArray[Any]]:
    """Probabilities (M, L) and labels of the studies of which these are images."""
    studies = [] if cases.studies is None or not len(probabilities) else cases.studies.members()
    if not studies or cases.studies is None:
        return probabilities[:0], cases.labels[:0]
    pooled = [
        study_probabilities(
            [dict(zip(info.labels, probabilities[row].tolist(), strict=True)) for row in rows],
            info.labels,
            lesion_free=info.lesion_free,
            multi_label=info.multi_label,
        )
        for rows in studies
    ]
    firsts = [rows[0] for rows in studies]
    return np.array([list(one.values()) for one in pooled]), cases.studies.labels[firsts]


def _label_temperature(
    probabilities: NDArray[np.float64], labels: NDArray[Any], info: ModelInfo
) -> tuple[float, Record]:
    if not info.model.predicts_labels:
        return 1.0, _record(None, 0, "the model has learned no labels")
    if len(labels) < MIN_IMAGES:
        return 1.0, _record(None, len(labels), f"fewer than {MIN_IMAGES} labeled images")
    fitted = fit_temperature(probabilities, labels)

    def error(temperature: float) -> float:
        now = temper_labels(probabilities, temperature, multi_label=info.multi_label)
        if info.multi_label:
            return expected_calibration_error(now, labels > 0)
        return expected_calibration_error(now.max(axis=1), now.argmax(axis=1) == labels)

    return fitted or 1.0, _record(fitted, len(labels)) | _errors(error(1.0), error(fitted or 1.0))


def _mask_temperature(
    segmenter: SegmentationModel, info: ModelInfo, validation: CaseDataset | None
) -> tuple[float, Record]:
    """Fit on the same images for every network, whether or not its classifier rules them out."""
    rows = masked_rows(validation)
    if validation is None or not len(rows):
        return 1.0, _record(None, 0, "no validation mask")
    budget = max(1, PIXELS // (len(rows) * validation.mask_classes))
    generator = np.random.default_rng(0)
    values, truths, lesions = [], [], 0
    classes = np.arange(1, validation.mask_classes + 1)[:, None]
    for row, one in predictions(segmenter, info, validation, rows):
        mask = validation.label_map(row).ravel()
        lesions += bool(np.isin(mask, info.lesion_values).any())
        chosen = generator.choice(mask.size, min(budget, mask.size), replace=False, shuffle=False)
        pixels = one.network_probabilities.reshape(len(classes), -1)[:, chosen]
        values.append(pixels.ravel())
        truths.append((mask[chosen] == classes).ravel())
    if lesions < MIN_LESIONS:
        return 1.0, _record(None, len(values), f"fewer than {MIN_LESIONS} masks with a lesion")
    probability, truth = np.concatenate(values), np.concatenate(truths)
    fitted = fit_temperature(probability, truth)
    after = expected_calibration_error(temper_sigmoid(probability, fitted or 1.0), truth)
    errors = _errors(expected_calibration_error(probability, truth), after)
    return fitted or 1.0, _record(fitted, len(values)) | errors


def _record(
    fitted: float | None, images: int, note: str = "validation does not determine it"
) -> Record:
    record: Record = {"temperature": fitted or 1.0, "images": images}
    return record if fitted else record | {"note": f"left at 1: {note}"}


def _errors(before: float, after: float) -> Record:
    return {"ece_before": round(before, 6), "ece_after": round(after, 6)}

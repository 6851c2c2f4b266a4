"""Temperatures and the image-level gate of a run, chosen on validation after training (ours).

One number divides the logits of the labels, another those of the pixels (temperature scaling:
Guo et al., "On Calibration of Modern Neural Networks", ICML 2017). Within an image no order
changes, and no mask at a threshold of 0.5.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dxseg.data.loader import CaseArrays
from dxseg.inference.bundle import BundleInfo
from dxseg.inference.gate import closes
from dxseg.inference.predictor import Prediction, Predictor
from dxseg.inference.studies import study_probabilities
from dxseg.metrics.calibration import (
    expected_calibration_error,
    fit_temperature,
    temper_labels,
    temper_sigmoid,
)
from dxseg.metrics.image_level import lesion_probability
from dxseg.models.segmenter import Segmenter
from dxseg.training.gate import validation_gate
from dxseg.training.material import Material

MIN_IMAGES = 20
"""Labelled validation images below which label logits stay as they are."""

MIN_LESIONS = 5
"""Validation masks with a lesion below which pixel logits stay as they are."""

PIXELS = 1 << 19
"""Pixels and classes that are looked at, drawn evenly from all images."""

Record = dict[str, Any]


def calibrate(
    segmenter: Segmenter, info: BundleInfo, material: Material, sensitivity: float | None
) -> tuple[BundleInfo, Record]:
    """Choose what inference does with the network's outputs, by the predictor itself.

    In this order, each step seeing the ones before it: label temperature, gate, pixel temperature.
    Labels and the gate look at validation labels only, pixels at the masks that validation may
    use.

    Args:
        segmenter: The trained network.
        info: Of its bundle, nothing chosen yet.
        material: Its validation cases.
        sensitivity: Share of the images with a lesion that must pass the gate; None for no gate.

    Returns:
        The info with all three, and what `run.json` says of the temperatures: for `labels` and
        `masks` each temperature, images, ece_before, ece_after (on the same cases, so flattering),
        and a note where the temperature stays 1.
    """
    probabilities, labels = _label_answers(segmenter, info, material)
    temperature, told_labels = _label_temperature(probabilities, labels, info)
    tempered = temper_labels(probabilities, temperature, multi_label=info.multi_label)
    info = info.model_copy(update={"label_temperature": temperature})
    pooled, of_studies = _study_answers(segmenter, info, material)
    gate = validation_gate(
        np.concatenate([tempered, pooled]), np.concatenate([labels, of_studies]), info, sensitivity
    )
    info = info.model_copy(update={"gate": gate})
    temperature, told_masks = _mask_temperature(segmenter, info, material.mask_validation)
    info = info.model_copy(update={"mask_temperature": temperature})
    return info, {"labels": told_labels, "masks": told_masks}


def _label_answers(
    segmenter: Segmenter, info: BundleInfo, material: Material
) -> tuple[NDArray[np.float64], NDArray[Any]]:
    """Probabilities (N, L) and labels of the labelled validation images; none if it knows none."""
    validation = material.label_validation
    if validation is None or not info.model.knows_labels:
        return np.zeros((0, len(info.labels))), material.label_train.labels[:0]
    labels = validation.labels
    rows = np.flatnonzero((labels >= 0).reshape(len(labels), -1).all(axis=1))
    answers = [
        list((one.label_probabilities or {}).values())
        for _, one in _predictions(segmenter, info, validation, rows)
    ]
    return np.array(answers, dtype=np.float64).reshape(len(rows), -1), labels[rows]


def _study_answers(
    segmenter: Segmenter, info: BundleInfo, material: Material
) -> tuple[NDArray[np.float64], NDArray[Any]]:
    """Probabilities (S, L), pooled and tempered, and labels of the validation studies."""
    validation = material.label_validation
    studies = None if validation is None else validation.studies
    if validation is None or studies is None or not info.model.knows_labels:
        return np.zeros((0, len(info.labels))), material.label_train.labels[:0]
    members = studies.members()
    answers = []
    for rows in members:
        images = _predictions(segmenter, info, validation, rows)
        pooled = study_probabilities([one.label_probabilities or {} for _, one in images], info)
        answers.append(list(pooled.values()))
    firsts = [rows[0] for rows in members]
    return np.array(answers).reshape(-1, len(info.labels)), studies.labels[firsts]


def _label_temperature(
    probabilities: NDArray[np.float64], labels: NDArray[Any], info: BundleInfo
) -> tuple[float, Record]:
    if not info.model.knows_labels:
        return 1.0, _record(None, 0, "the network has learnt no labels")
    if len(labels) < MIN_IMAGES:
        return 1.0, _record(None, len(labels), f"fewer than {MIN_IMAGES} labelled images")
    fitted = fit_temperature(probabilities, labels)

    def error(temperature: float) -> float:
        now = temper_labels(probabilities, temperature, multi_label=info.multi_label)
        if info.multi_label:
            return expected_calibration_error(now, labels > 0)
        return expected_calibration_error(now.max(axis=1), now.argmax(axis=1) == labels)

    return fitted or 1.0, _record(fitted, len(labels)) | _errors(error(1.0), error(fitted or 1.0))


def _mask_temperature(
    segmenter: Segmenter, info: BundleInfo, validation: CaseArrays | None
) -> tuple[float, Record]:
    """Fit on images that the gate lets through; what it closes has no probability of its own."""
    if validation is None:
        return 1.0, _record(None, 0, "no validation mask")
    budget = max(1, PIXELS // (len(validation) * validation.mask_classes))
    generator = np.random.default_rng(0)
    values, truths, lesions = [], [], 0
    classes = np.arange(1, validation.mask_classes + 1)[:, None]
    for row, one in _predictions(segmenter, info, validation, np.arange(len(validation))):
        lesion = lesion_probability(one.label_probabilities, info.lesion_free, info.multi_label)
        if closes(info.gate, lesion):
            continue
        mask = validation.mask(row).ravel()
        lesions += bool(mask.any())
        chosen = generator.choice(mask.size, min(budget, mask.size), replace=False, shuffle=False)
        values.append(one.probabilities.reshape(len(classes), -1)[:, chosen].ravel())
        truths.append((mask[chosen] == classes).ravel())
    if lesions < MIN_LESIONS:
        return 1.0, _record(None, len(values), f"fewer than {MIN_LESIONS} masks with a lesion")
    probability, truth = np.concatenate(values), np.concatenate(truths)
    fitted = fit_temperature(probability, truth)
    after = expected_calibration_error(temper_sigmoid(probability, fitted or 1.0), truth)
    errors = _errors(expected_calibration_error(probability, truth), after)
    return fitted or 1.0, _record(fitted, len(values)) | errors


def _predictions(
    segmenter: Segmenter, info: BundleInfo, cases: CaseArrays, rows: NDArray[np.int64]
) -> Iterator[tuple[int, Prediction]]:
    """Predict stored images; they have the network's size, so nothing is resized."""
    predictor = Predictor(segmenter, info)
    for start in range(0, len(rows), predictor.batch_size):  # constant memory
        batch = rows[start : start + predictor.batch_size].tolist()
        yield from zip(batch, predictor.predict([cases.image(r) for r in batch]), strict=True)


def _record(
    fitted: float | None, images: int, note: str = "validation does not determine it"
) -> Record:
    told: Record = {"temperature": fitted or 1.0, "images": images}
    return told if fitted else told | {"note": f"left at 1: {note}"}


def _errors(before: float, after: float) -> Record:
    return {"ece_before": round(before, 6), "ece_after": round(after, 6)}

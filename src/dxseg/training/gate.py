"""The image-level gate of a run, chosen on validation labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dxseg.data.loader import CaseArrays
from dxseg.inference.bundle import BundleInfo
from dxseg.inference.gate import choose_gate
from dxseg.inference.predictor import Predictor
from dxseg.inference.studies import study_probabilities
from dxseg.metrics.image_level import lesion_probability
from dxseg.models.segmenter import Segmenter


def validation_gate(
    segmenter: Segmenter,
    info: BundleInfo,
    validation: CaseArrays | None,
    sensitivity: float | None,
) -> float | None:
    """Choose the gate by the predictor itself; labels only, no mask is looked at.

    A study whose label says that there is a lesion counts as one image, with the probability that
    is pooled from its images. No image of it is known to show the lesion; but the pooled
    probability never exceeds that of its likeliest image, so that at least this one passes the gate
    if the study does.

    Args:
        segmenter: The trained network.
        info: Of its bundle; without a gate yet.
        validation: Validation images with their labels, or None.
        sensitivity: Share of the images and studies with a lesion that must pass; None for no gate.

    Returns:
        The gate, or None where it is off, the network has learnt no labels, no label means
        lesion-free, or validation has no label that says that there is a lesion.
    """
    known = info.model.knows_labels and bool(info.lesion_free)
    if sensitivity is None or validation is None or not known:
        return None
    free = [info.labels.index(name) for name in info.lesion_free]
    predictor = Predictor(segmenter, info)
    labels = validation.labels
    has_lesion = (
        (labels >= 0).all(axis=1) & (labels[:, free] == 0).all(axis=1) & (labels > 0).any(axis=1)
        if info.multi_label
        else (labels >= 0) & ~np.isin(labels, free)
    )
    diagnoses = _diagnoses(predictor, validation, np.flatnonzero(has_lesion).tolist())
    for rows in [] if validation.studies is None else validation.studies.members():
        images = _diagnoses(predictor, validation, rows.tolist())
        diagnoses.append(study_probabilities(images, info))
    found = [lesion_probability(one, info.lesion_free, info.multi_label) for one in diagnoses]
    return choose_gate(found, sensitivity)


def _diagnoses(
    predictor: Predictor, validation: CaseArrays, rows: Sequence[int]
) -> list[dict[str, float]]:
    """Label probabilities of images, in constant memory."""
    found: list[dict[str, float]] = []
    for start in range(0, len(rows), predictor.batch_size):
        batch = [validation.image(row) for row in rows[start : start + predictor.batch_size]]
        found += [one.label_probabilities or {} for one in predictor.predict(batch)]
    return found

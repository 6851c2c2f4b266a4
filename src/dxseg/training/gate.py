"""The image-level gate of a run, chosen on validation labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dxseg.data.loader import CaseArrays
from dxseg.inference.bundle import BundleInfo
from dxseg.inference.gate import choose_gate
from dxseg.inference.predictor import Predictor
from dxseg.metrics.image_level import lesion_probability
from dxseg.models.segmenter import Segmenter


def validation_gate(
    segmenter: Segmenter,
    info: BundleInfo,
    validation: CaseArrays | None,
    sensitivity: float | None,
) -> float | None:
    """Choose the gate by the predictor itself; labels only, no mask is looked at.

    Args:
        segmenter: The trained network.
        info: Of its bundle; without a gate yet.
        validation: Validation images with their labels, or None.
        sensitivity: Share of the images with a lesion that must pass; None for no gate.

    Returns:
        The gate, or None where it is off, the network has learnt no labels, no label means
        lesion-free, or validation has no image whose label says that there is a lesion.
    """
    known = info.model.knows_labels and bool(info.lesion_free)
    if sensitivity is None or validation is None or not known:
        return None
    free = [info.labels.index(name) for name in info.lesion_free]
    has_lesion = label_says_lesion(validation.labels, free)
    predictor = Predictor(segmenter, info)
    rows = np.flatnonzero(has_lesion).tolist()
    found: list[float] = []
    for start in range(0, len(rows), predictor.batch_size):  # constant memory
        batch = [validation.image(row) for row in rows[start : start + predictor.batch_size]]
        found += [
            lesion_probability(one.label_probabilities, info.lesion_free, info.multi_label)
            for one in predictor.predict(batch)
        ]
    return choose_gate(found, sensitivity)


def label_says_lesion(labels: NDArray[Any], lesion_free: Sequence[int]) -> NDArray[np.bool_]:
    """Which images have a label, and none that means: no lesion.

    Args:
        labels: (N,) class indices with -1 for unknown, or (N, L) of 0, 1 and NaN.
        lesion_free: positions of the labels that mean: no lesion.

    Returns:
        Shape (N,).
    """
    if labels.ndim == 1:
        return (labels >= 0) & ~np.isin(labels, lesion_free)
    known, some = (labels >= 0).all(axis=1), (labels > 0).any(axis=1)
    return np.asarray(known & some & (labels[:, list(lesion_free)] == 0).all(axis=1), np.bool_)

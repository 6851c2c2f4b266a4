"""The image-level gate of a run, chosen on validation labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dxseg.inference.bundle import BundleInfo
from dxseg.inference.gate import choose_gate
from dxseg.metrics.image_level import lesion_probability

_ROUNDING = 1e-6


def validation_gate(
    probabilities: NDArray[np.float64],
    labels: NDArray[Any],
    info: BundleInfo,
    sensitivity: float | None,
) -> float | None:
    """Choose the gate; labels only, no mask is looked at.

    A study whose label says that there is a lesion counts as one image, with the probability that
    is pooled from its images. No image of it is known to show the lesion; but the pooled
    probability never exceeds that of its likeliest image, so that at least this one passes the gate
    if the study does.

    Args:
        probabilities: (N, L) of the labels of validation images, as inference will have them, and
            of studies, pooled from their images.
        labels: (N,) label positions, or (N, L) of 0 and 1; what is known of these.
        info: Of the bundle.
        sensitivity: Share of the images and studies with a lesion that must pass; None for no gate.

    Returns:
        The gate, or None where it is off, no label means lesion-free, or there is no image or study
        whose label says that it has a lesion.
    """
    if sensitivity is None or not info.lesion_free:
        return None
    free = [info.labels.index(name) for name in info.lesion_free]
    has_lesion = label_says_lesion(labels, free)
    found = [
        lesion_probability(
            dict(zip(info.labels, row.tolist(), strict=True)), info.lesion_free, info.multi_label
        )
        for row in probabilities[has_lesion]
    ]
    # Rounding must not close the gate on the very image that it was chosen by.
    return choose_gate([chance * (1 - _ROUNDING) for chance in found], sensitivity)


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

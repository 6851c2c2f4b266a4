"""The image-level gate of a run, chosen on validation labels."""

from __future__ import annotations

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

    Args:
        probabilities: (N, L) of the labels of validation images, as inference will have them.
        labels: (N,) label positions, or (N, L) of 0 and 1; what is known of these images.
        info: Of the bundle.
        sensitivity: Share of the images with a lesion that must pass; None for no gate.

    Returns:
        The gate, or None where it is off, no label means lesion-free, or there is no image whose
        label says that it has a lesion.
    """
    if sensitivity is None or not info.lesion_free:
        return None
    free = [info.labels.index(name) for name in info.lesion_free]
    has_lesion = (
        (labels[:, free] == 0).all(axis=1) & (labels > 0).any(axis=1)
        if info.multi_label
        else ~np.isin(labels, free)
    )
    found = [
        lesion_probability(
            dict(zip(info.labels, row.tolist(), strict=True)), info.lesion_free, info.multi_label
        )
        for row in probabilities[has_lesion]
    ]
    # Rounding must not close the gate on the very image that it was chosen by.
    return choose_gate([chance * (1 - _ROUNDING) for chance in found], sensitivity)

"""The image-level thresholds of a run, chosen on validation labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dxseg.inference.model_info import ModelInfo
from dxseg.inference.postprocess import choose_rule_in_threshold, choose_rule_out_threshold
from dxseg.metrics.image_level import lesion_probability

_ROUNDING = 1e-6


def validation_thresholds(
    probabilities: NDArray[np.float64],
    labels: NDArray[Any],
    info: ModelInfo,
    *,
    sensitivity: float | None,
    specificity: float | None,
) -> tuple[float | None, float | None]:
    """Choose the rule-out and the rule-in threshold from labels alone.

    A study whose label means a lesion counts as one image, with the probability that is pooled from
    its images. It is unknown which of them shows the lesion; but the pooled probability never
    exceeds that of its most probable image, so at least this one is not ruled out if the study is
    not.

    Args:
        probabilities: (N, L) of the labels of validation images, as inference will have them, and
            of studies.
        labels: (N,) label positions, or (N, L) of 0 and 1, of these.
        info: Of the model folder.
        sensitivity: Fraction of the images with a lesion that must not be ruled out; None for no
            rule-out threshold.
        specificity: Fraction of the lesion-free images that must not be ruled in; None for no
            rule-in threshold.

    Returns:
        Rule-out and rule-in threshold. Each is None if it is off, if no label means lesion-free, or
        if no image has a label to choose it by.
    """
    if not info.lesion_free:
        return None, None
    chances = np.array(
        [
            lesion_probability(
                dict(zip(info.labels, row.tolist(), strict=True)),
                info.lesion_free,
                info.multi_label,
            )
            for row in probabilities
        ]
    )
    free = [info.labels.index(name) for name in info.lesion_free]
    with_lesion = chances[implies_lesion(labels, free)]
    without = chances[implies_no_lesion(labels, free)]
    # Rounding must not rule out, or in, the very image that decided the threshold.
    rule_out, rule_in = None, None
    if sensitivity is not None:
        rule_out = choose_rule_out_threshold((with_lesion * (1 - _ROUNDING)).tolist(), sensitivity)
    if specificity is not None:
        rule_in = choose_rule_in_threshold(
            np.minimum(without * (1 + _ROUNDING), 1).tolist(), specificity
        )
    return rule_out, rule_in


def implies_lesion(labels: NDArray[Any], lesion_free: Sequence[int]) -> NDArray[np.bool_]:
    """Which images have a label that means a lesion, and none that means no lesion.

    Args:
        labels: (N,) class indices with -1 for unknown, or (N, L) of 0, 1 and NaN.
        lesion_free: positions of the labels that mean no lesion.

    Returns:
        Shape (N,).
    """
    if labels.ndim == 1:
        return (labels >= 0) & ~np.isin(labels, lesion_free)
    known, some = (labels >= 0).all(axis=1), (labels > 0).any(axis=1)
    return np.asarray(known & some & (labels[:, list(lesion_free)] == 0).all(axis=1), np.bool_)


def implies_no_lesion(labels: NDArray[Any], lesion_free: Sequence[int]) -> NDArray[np.bool_]:
    """Which images have a label, and none that means a lesion.

    Args:
        labels: as in `implies_lesion`.
        lesion_free: positions of the labels that mean no lesion.

    Returns:
        Shape (N,).
    """
    if labels.ndim == 1:
        return np.isin(labels, lesion_free)
    others = [label for label in range(labels.shape[1]) if label not in lesion_free]
    known, some = (labels >= 0).all(axis=1), (labels > 0).any(axis=1)
    return np.asarray(known & some & (labels[:, others] == 0).all(axis=1), np.bool_)

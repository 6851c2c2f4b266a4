"""Metrics of whole images: detection of lesions, and false-positive area."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike


def auroc(lesion: ArrayLike, score: ArrayLike) -> float:
    """Area under the receiver operating characteristic, ties counted half.

    Args:
        lesion: (N,) true where the image has a lesion.
        score: (N,) probability of a lesion, 0 to 1.

    Returns:
        Area, 0 to 1, 0.5 for chance. NaN where only one class is present: the area does not
        exist there, and torchmetrics' 0 would look like a result.

    Raises:
        ValueError: The lengths differ, or a score is no probability.
    """
    target = np.asarray(lesion, dtype=bool)
    values = np.asarray(score, dtype=np.float64)
    if target.shape != values.shape or target.ndim != 1:
        raise ValueError(
            f"lesion and score must be of one length, got {target.shape}, {values.shape}"
        )
    # Outside this range torchmetrics takes scores for logits and applies a sigmoid silently.
    if not np.all((values >= 0) & (values <= 1)):
        raise ValueError("score must hold probabilities between 0 and 1, without NaN")
    if target.all() or not target.any():
        return float("nan")

    import torch
    from torchmetrics.functional.classification import binary_auroc

    return float(binary_auroc(torch.tensor(values), torch.tensor(target, dtype=torch.int64)))


def lesion_probability(
    label_probabilities: Mapping[str, float] | None, lesion_free: Sequence[str], multi_label: bool
) -> float:
    """Probability that an image has a lesion, from the label head.

    One minus the probability of the lesion-free labels: of their sum where labels exclude each
    other, of the largest where they do not.

    Args:
        label_probabilities: Probability of each label, or None without a label head.
        lesion_free: The labels that mean lesion-free.
        multi_label: Whether labels are independent instead of exclusive.

    Returns:
        Probability, 0 to 1; NaN without a label head or without lesion-free labels.
    """
    if label_probabilities is None or not lesion_free:
        return float("nan")
    free = [float(label_probabilities[name]) for name in lesion_free]
    return float(np.clip(1.0 - (max(free) if multi_label else sum(free)), 0.0, 1.0))


def decision_score(peak_probability: float, lesion_probability: float) -> float:
    """How strongly a model speaks for a lesion somewhere in an image.

    The log odds of its most probable pixel; with a classifier, plus the log odds of a lesion in the
    image: the product of both odds. Probabilities count as at least 1e-6 from 0 and 1.

    Args:
        peak_probability: Highest mask probability of the image, 0 to 1.
        lesion_probability: Probability of a lesion by the classifier; NaN without one.
    """
    known = [p for p in (peak_probability, lesion_probability) if not np.isnan(p)]
    odds = np.clip(known, 1e-6, 1 - 1e-6)
    return float(np.log(odds / (1 - odds)).sum())


def lowest_threshold(scores: Sequence[float], fraction: float) -> float | None:
    """Choose the lowest threshold that at most a fraction of scores exceeds.

    Args:
        scores: Of any range, finite.
        fraction: In [0, 1).

    Returns:
        One of the scores; None without any.
    """
    if not scores:
        return None
    # The tolerance keeps 0.1 * 30 from losing its third image to rounding.
    return sorted(scores, reverse=True)[math.floor(fraction * len(scores) + 1e-9)]

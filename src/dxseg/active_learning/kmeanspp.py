"""Select cases with high scores that differ from each other: weighted greedy k-means++.

BADGE (Ash et al., ICLR 2020, arXiv 1906.03671) seeds k-means++ (Arthur and Vassilvitskii, SODA
2007) in a space whose lengths are uncertainties and whose directions are features. Here the two
are separate, as in Zhdanov's batches by weighted k-means (arXiv 1901.05954): distances are between
features, and the score of a case is its weight. As in the core-set method (Sener and Savarese,
ICLR 2018, arXiv 1708.00489), annotated cases count as selected.

Not scikit-learn's `kmeans_plusplus`: it takes weights, but no centers that are selected already,
and it cannot be restricted to one case per patient.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

FARTHEST = 4.0
"""Squared distance of two opposite unit vectors."""

BLOCK = 256
"""Annotated cases per comparison, so that memory does not grow with their number."""


def unit_features(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Center features and scale them to length 1, so that no outlier is far from all others.

    Args:
        features: (N, F).

    Returns:
        (N, F).
    """
    centered = features - features.mean(axis=0, keepdims=True)
    lengths = np.linalg.norm(centered, axis=1, keepdims=True)
    unit: NDArray[np.float32] = centered / np.where(lengths > 0, lengths, np.float32(1))
    return unit


def select_cases(
    points: NDArray[np.float32],
    weights: NDArray[np.float64],
    groups: NDArray[np.int64],
    count: int,
    *,
    annotated: NDArray[np.float32],
    seed: int,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Select cases one after the other, at most one per group.

    The potential is the sum over all cases of weight times squared distance to the nearest selected
    or annotated case. A few cases are drawn with probabilities proportional to their term, and the
    one that lowers the potential most is selected. It is far from the annotated cases and near to
    many with high scores, which an outlier is not.

    Args:
        points: (N, F) features of the candidates, see `unit_features`.
        weights: (N,) weights, at least 0.
        groups: (N,) number of the patient or near-duplicate group of each.
        count: Number of cases to select.
        annotated: (M, F) features of the cases with a mask; M may be 0.
        seed: Random seed.

    Returns:
        Positions of the selected cases in order of selection, fewer than `count` if there are fewer
        groups; and their squared distances at that time, 0 to `FARTHEST`.
    """
    generator = np.random.default_rng(seed)
    nearest = np.full(len(points), FARTHEST)
    for start in range(0, len(annotated), BLOCK):
        block = annotated[start : start + BLOCK]
        nearest = np.minimum(nearest, _squared(points, block).min(axis=1))
    available = np.ones(len(points), np.bool_)
    selected: list[int] = []
    distances: list[float] = []
    while len(selected) < count and available.any():
        drawn = _draw(weights * nearest, weights, available, 2 + int(math.log(count)), generator)
        after = np.minimum(nearest[:, None], _squared(points, points[drawn]))
        best = int((weights @ after).argmin())
        selected.append(int(drawn[best]))
        distances.append(float(nearest[drawn[best]]))
        nearest = after[:, best]
        available &= groups != groups[drawn[best]]
    return np.array(selected, np.int64), np.array(distances)


def _draw(
    potential: NDArray[np.float64],
    weights: NDArray[np.float64],
    available: NDArray[np.bool_],
    trials: int,
    generator: np.random.Generator,
) -> NDArray[np.int64]:
    """Draw available cases by potential; by weight, or uniformly, if that is zero for all."""
    for values in (potential, weights, np.ones(len(weights))):
        masses = np.where(available, values, 0.0)
        if masses.sum() > 0:
            break
    return np.unique(generator.choice(len(masses), trials, p=masses / masses.sum()))


def _squared(points: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float64]:
    """Squared distances, (N, M), clipped to their range because of rounding."""
    lengths = [(some.astype(np.float64) ** 2).sum(axis=1) for some in (points, others)]
    squares: NDArray[np.float64] = lengths[0][:, None] + lengths[1] - 2 * (points @ others.T)
    return np.clip(squares, 0, FARTHEST)

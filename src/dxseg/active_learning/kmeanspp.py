"""Choose cases that score high and differ from each other: weighted greedy k-means++.

BADGE (Ash et al., ICLR 2020, arXiv 1906.03671) seeds k-means++ (Arthur and Vassilvitskii, SODA
2007) in a space whose lengths are uncertainties and whose directions are features. Here the two
stay apart, as in Zhdanov's batches by weighted k-means (arXiv 1901.05954): features say how far
cases are from each other, the score is a case's weight. As in the core-set method (Sener and
Savarese, ICLR 2018, arXiv 1708.00489), what is annotated already counts as chosen.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

FARTHEST = 4.0
"""Squared distance of two directions that are opposite."""

BLOCK = 256
"""Annotated cases that are compared at once, so that memory does not grow with their number."""


def directions(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Features, centred and scaled to length 1, so that no outlier is far from everything.

    Args:
        features: (N, F).

    Returns:
        (N, F).
    """
    centred = features - features.mean(axis=0, keepdims=True)
    lengths = np.linalg.norm(centred, axis=1, keepdims=True)
    unit: NDArray[np.float32] = centred / np.where(lengths > 0, lengths, np.float32(1))
    return unit


def choose(
    points: NDArray[np.float32],
    weights: NDArray[np.float64],
    groups: NDArray[np.int64],
    count: int,
    *,
    annotated: NDArray[np.float32],
    seed: int,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Choose cases one after the other, at most one a group.

    The potential is the sum over all cases of weight times squared distance to the nearest case
    that is chosen or annotated. A few cases are drawn in proportion to their part of it, and the
    one that lowers it most is taken: far from what is known, and near to much that scores high, so
    an outlier is not.

    Args:
        points: (N, F) of the candidates, see `directions`.
        weights: (N,) from 0.
        groups: (N,) number of the patient or near-duplicate group of each.
        count: How many.
        annotated: (M, F) of cases with a mask; M may be 0.
        seed: Of the draws.

    Returns:
        Positions of the chosen in the order of choice, fewer than ``count`` where there are fewer
        groups; and the squared distance that each had, 0 to `FARTHEST`.
    """
    generator = np.random.default_rng(seed)
    nearest = np.full(len(points), FARTHEST)
    for start in range(0, len(annotated), BLOCK):
        block = annotated[start : start + BLOCK]
        nearest = np.minimum(nearest, _squared(points, block).min(axis=1))
    open_ = np.ones(len(points), np.bool_)
    chosen: list[int] = []
    distances: list[float] = []
    while len(chosen) < count and open_.any():
        drawn = _draw(weights * nearest, weights, open_, 2 + int(math.log(count)), generator)
        after = np.minimum(nearest[:, None], _squared(points, points[drawn]))
        best = int((weights @ after).argmin())
        chosen.append(int(drawn[best]))
        distances.append(float(nearest[drawn[best]]))
        nearest = after[:, best]
        open_ &= groups != groups[drawn[best]]
    return np.array(chosen, np.int64), np.array(distances)


def _draw(
    potential: NDArray[np.float64],
    weights: NDArray[np.float64],
    open_: NDArray[np.bool_],
    trials: int,
    generator: np.random.Generator,
) -> NDArray[np.int64]:
    """Positions of some open cases, by potential; by weight, or alike, where nothing has any."""
    for shares in (potential, weights, np.ones(len(weights))):
        part = np.where(open_, shares, 0.0)
        if part.sum() > 0:
            break
    return np.unique(generator.choice(len(part), trials, p=part / part.sum()))


def _squared(points: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float64]:
    """Squared distances, (N, M), rounding kept within their range."""
    lengths = [(some.astype(np.float64) ** 2).sum(axis=1) for some in (points, others)]
    squares: NDArray[np.float64] = lengths[0][:, None] + lengths[1] - 2 * (points @ others.T)
    return np.clip(squares, 0, FARTHEST)

"""Uncertainty of means over clustered images: cluster bootstrap, paired differences, Holm.

Images of one patient are not independent, so whole patients (or near-duplicate groups) are
resampled, never images: `scipy.stats.bootstrap` resamples groups, and the statistic is the ratio of
the resampled sums and counts. Percentile intervals; with fewer than about ten groups they are too
narrow, as those of any bootstrap.

Where a fold was trained several times, its trainings are resampled too; see
`dxseg.metrics.two_level_bootstrap`.

Holm's adjustment is written out here: scipy has only the false discovery rate, and statsmodels
would be a dependency for six lines.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dxseg.metrics.two_level_bootstrap import GroupTerms, Weighting, resample

RESAMPLES = 10_000


@dataclass(frozen=True)
class Interval:
    """A mean and its percentile bootstrap interval.

    Attributes:
        mean: Mean of the values; NaN where there are none.
        low: Lower end; NaN with fewer than two groups.
        high: Upper end; NaN with fewer than two groups.
        groups: Number of groups that had a value.
        images: Number of images with a value.
        draws: Smallest number of draws of a fold; with 1, other trainings are not covered.
    """

    mean: float
    low: float
    high: float
    groups: int
    images: int
    draws: int


@dataclass(frozen=True)
class PairedDifference(Interval):
    """Mean difference of two methods on the same images.

    Attributes:
        p_value: Two-sided, from the same resamples as the interval: twice the smaller fraction of
            resampled differences on either side of zero, never below 1 / (resamples + 1). NaN
            with fewer than two groups.
    """

    p_value: float


def mean_by(values: ArrayLike, groups: ArrayLike, *, weighting: Weighting) -> float:
    """Average over images, or over the means of groups; NaN values are left out.

    Args:
        values: (N,) one value per image, or (N, D) of D draws, of which the mean counts; NaN where
            there is none.
        groups: (N,) the patient or group of each image.
        weighting: `image`: every image has the same weight; `group`: every group has.

    Returns:
        The mean, NaN where no value is finite.

    Raises:
        ValueError: The lengths differ.
    """
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.ndim == 2:
        present = (~np.isnan(numbers)).sum(axis=1)
        means = np.full(len(numbers), np.nan)
        numbers = np.divide(np.nansum(numbers, axis=1), present, out=means, where=present > 0)
    terms = GroupTerms.of(_table(numbers), groups, None, weighting)
    if not len(terms.counts):
        return float("nan")
    return float(terms.sums.sum() / terms.counts.sum())


def bootstrap_mean(
    values: ArrayLike,
    groups: ArrayLike,
    *,
    folds: ArrayLike | None = None,
    weighting: Weighting = "image",
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Compute a mean and its bootstrap interval: groups, and draws, are drawn with replacement.

    Args:
        values: (N,) one value per image, or (N, D) one per draw of its fold; NaN where there is
            none: an image has values in all draws of its fold, or in none.
        groups: (N,) the patient or group of each image.
        folds: (N,) the fold of each image, whose draws are resampled apart from those of other
            folds; default: one fold.
        weighting: As in `mean_by`.
        confidence: Coverage of the interval, between 0 and 1.
        resamples: Number of resamples.
        seed: Random seed of the resamples.

    Returns:
        Mean and interval.

    Raises:
        ValueError: The lengths differ, an image lacks a draw, or confidence or resamples are out of
            range.
    """
    terms = GroupTerms.of(_table(values), groups, folds, weighting)
    return _interval(terms, confidence, resamples, seed)[0]


def bootstrap_ratio(
    numerators: ArrayLike,
    denominators: ArrayLike,
    groups: ArrayLike,
    *,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Compute a ratio of two sums and its bootstrap interval: groups are drawn with replacement.

    Args:
        numerators: (N,) one value per image or volume.
        denominators: (N,) at least 0.
        groups: (N,) its patient or group.
        confidence: Coverage of the interval, between 0 and 1.
        resamples: Number of resamples.
        seed: Random seed of the resamples.

    Returns:
        Ratio and interval; NaN where all denominators are 0. Groups whose denominators are 0 do not
        count.
    """
    above, below = (np.asarray(values, dtype=np.float64) for values in (numerators, denominators))
    counted = below > 0
    _, index = np.unique(np.asarray(groups)[counted], return_inverse=True)
    sums, weights = (
        np.bincount(index, values[counted]).astype(np.float64) for values in (above, below)
    )
    terms = GroupTerms(sums[:, None, None], weights, [1], int(counted.sum()))
    return _interval(terms, confidence, resamples, seed)[0]


def paired_bootstrap(
    values: ArrayLike,
    reference: ArrayLike,
    groups: ArrayLike,
    *,
    folds: ArrayLike | None = None,
    weighting: Weighting = "image",
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> PairedDifference:
    """Compute the mean of `values - reference`, its interval and p-value, resampling groups.

    Args:
        values: (N,) or (N, D) values of one method, as in `bootstrap_mean`.
        reference: Of the other method on the same images and draws, NaN where `values` is. If one
            of both has no value at all, neither has the difference.
        groups: (N,) the patient or group of each image.
        folds: As in `bootstrap_mean`.
        weighting: As in `mean_by`.
        confidence: Coverage of the interval, between 0 and 1.
        resamples: Number of resamples.
        seed: Random seed of the resamples.

    Returns:
        Mean difference, interval and two-sided p-value.

    Raises:
        ValueError: The lengths differ, a value is missing on one side only, or confidence or
            resamples are out of range.
    """
    first = np.asarray(values, dtype=np.float64)
    second = np.asarray(reference, dtype=np.float64)
    if first.shape != second.shape:
        raise ValueError(
            f"both methods need a value per image, got {first.shape} and {second.shape}"
        )
    absent = np.isnan(first), np.isnan(second)
    if not (absent[0].all() or absent[1].all() or np.array_equal(*absent)):
        raise ValueError("an image has a value in one method only: the methods are not paired")
    terms = GroupTerms.of(_table(first - second), groups, folds, weighting)
    interval, means = _interval(terms, confidence, resamples, seed)
    p_value = float("nan")
    if len(means):
        below, above = int((means <= 0).sum()), int((means >= 0).sum())
        p_value = min(1.0, 2 * (min(below, above) + 1) / (len(means) + 1))
    return PairedDifference(**vars(interval), p_value=p_value)


def keep_shared(*values: ArrayLike) -> NDArray[np.float64]:
    """Keep the values that all methods have.

    Args:
        values: Of each method, of one shape: (N,) per image, or (N, D) per image and draw.

    Returns:
        (M, ...) the values; NaN in all methods where one of them has none.
    """
    table = np.stack([np.asarray(one, dtype=np.float64) for one in values])
    return np.where(np.isnan(table).any(axis=0), np.nan, table)


def resampled_means(
    values: ArrayLike,
    groups: ArrayLike,
    *,
    folds: ArrayLike | None = None,
    weighting: Weighting = "image",
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> NDArray[np.float64]:
    """Resample the means of several methods together, for statistics other than a difference.

    Args:
        values: (N, M) one column per method, or (N, M, D) with draws; NaN where the image has no
            value, in all columns.
        groups: (N,) the patient or group of each image.
        folds: As in `bootstrap_mean`.
        weighting: As in `mean_by`.
        resamples: Number of resamples.
        seed: Random seed of the resamples.

    Returns:
        (resamples, M) the mean of each column in each resample; no row with fewer than two groups.

    Raises:
        ValueError: The lengths differ, or a value is missing in some columns only.
    """
    table = np.asarray(values, dtype=np.float64)
    table = table[:, :, None] if table.ndim == 2 else table
    missing = np.isnan(table)
    if (missing.any(axis=1) != missing.all(axis=1)).any():
        raise ValueError("an image has a value in some methods only: the methods are not paired")
    terms = GroupTerms.of(table, groups, folds, weighting)
    if len(terms.counts) < 2:
        return np.empty((0, table.shape[1]))
    return np.asarray(resample(terms, 0.95, resamples, seed).bootstrap_distribution.T)


def holm(p_values: ArrayLike, *, family: int | None = None) -> NDArray[np.float64]:
    """Holm's step-down adjustment for several comparisons (Scand. J. Statist. 6:65, 1979).

    Args:
        p_values: (M,) values from 0 to 1; NaN marks a comparison that could not be made.
        family: How many comparisons were planned, at least as many as could be made; default: those
            that could.

    Returns:
        (M,) adjusted p-values in the given order, NaN where NaN came in.

    Raises:
        ValueError: A value lies outside 0 to 1.
    """
    values = np.asarray(p_values, dtype=np.float64)
    known = ~np.isnan(values)
    if np.any((values[known] < 0) | (values[known] > 1)):
        raise ValueError("p-values must lie between 0 and 1")
    order = np.argsort(values[known], kind="stable")
    factors = (family or len(order)) - np.arange(len(order))
    stepped = np.minimum(np.maximum.accumulate(values[known][order] * factors), 1.0)
    unsorted = np.empty(len(order))
    unsorted[order] = stepped
    adjusted = np.full(values.shape, np.nan)
    adjusted[known] = unsorted
    return adjusted


def _table(values: ArrayLike) -> NDArray[np.float64]:
    """Values (N,) or (N, D) of one method, as (N, 1, D)."""
    numbers = np.asarray(values, dtype=np.float64)
    return numbers[:, None, None] if numbers.ndim == 1 else numbers[:, None]


def _interval(
    terms: GroupTerms, confidence: float, resamples: int, seed: int
) -> tuple[Interval, NDArray[np.float64]]:
    """The ratio of sums and counts, its interval, and the resampled ratios."""
    if not 0 < confidence < 1 or resamples < 1:
        raise ValueError(f"confidence {confidence} or resamples {resamples} out of range")
    total, found = len(terms.counts), {"images": terms.images, "draws": min(terms.draws, default=0)}
    mean = float(terms.sums.sum() / terms.counts.sum()) if total else float("nan")
    if total < 2:
        nothing = np.empty(0, dtype=np.float64)
        return Interval(mean, float("nan"), float("nan"), total, **found), nothing
    result = resample(terms, confidence, resamples, seed)
    low, high = (float(end[0]) for end in result.confidence_interval)
    return Interval(mean, low, high, total, **found), result.bootstrap_distribution[0]

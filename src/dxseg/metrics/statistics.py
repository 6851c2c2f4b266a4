"""Uncertainty of means over clustered images: cluster bootstrap, paired differences, Holm.

Images of one patient are not independent, so whole patients (or near-duplicate groups) are
resampled, never images: `scipy.stats.bootstrap` resamples the sum and the count of each group in
pairs, and the statistic is their ratio. Percentile intervals; with fewer than about ten groups they
are too narrow, as those of any bootstrap.

Holm's adjustment is written out here: scipy has only the false discovery rate, and statsmodels
would be a dependency for six lines.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Weighting = Literal["image", "group"]
RESAMPLES = 10_000
_CHUNK = 1_000_000  # indices drawn at a time: 8 MB, and as much for each term


@dataclass(frozen=True)
class Interval:
    """A mean and its percentile bootstrap interval.

    Attributes:
        mean: Mean of the values; NaN where there are none.
        low: Lower end; NaN with fewer than two groups.
        high: Upper end; NaN with fewer than two groups.
        groups: Number of groups that had a value.
        images: Number of values.
    """

    mean: float
    low: float
    high: float
    groups: int
    images: int


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
        values: (N,) one value per image; NaN where the image has none.
        groups: (N,) the patient or group of each image.
        weighting: `image`: every image has the same weight; `group`: every group has.

    Returns:
        The mean, NaN where no value is finite.

    Raises:
        ValueError: The lengths differ.
    """
    sums, counts = _per_group(values, groups)
    if not len(sums):
        return float("nan")
    numerator, denominator = _terms(sums, counts, weighting)
    return float(numerator.sum() / denominator.sum())


def bootstrap_mean(
    values: ArrayLike,
    groups: ArrayLike,
    *,
    weighting: Weighting = "image",
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Compute a mean and its cluster bootstrap interval: groups are drawn with replacement.

    Args:
        values: (N,) one value per image; NaN where the image has none.
        groups: (N,) the patient or group of each image.
        weighting: As in `mean_by`.
        confidence: Coverage of the interval, between 0 and 1.
        resamples: Number of resamples.
        seed: Random seed of the resamples.

    Returns:
        Mean and interval.

    Raises:
        ValueError: The lengths differ, or confidence or resamples are out of range.
    """
    interval, _ = _bootstrap(values, groups, weighting, confidence, resamples, seed)
    return interval


def paired_bootstrap(
    values: ArrayLike,
    reference: ArrayLike,
    groups: ArrayLike,
    *,
    weighting: Weighting = "image",
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> PairedDifference:
    """Compute the mean of `values - reference`, its interval and p-value, resampling groups.

    Args:
        values: (N,) values of one method; NaN where the image has no value.
        reference: (N,) values of the other method on the same images, NaN on the same ones.
        groups: (N,) the patient or group of each image.
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
    if not np.array_equal(np.isnan(first), np.isnan(second)):
        raise ValueError("an image has a value in one method only: the methods are not paired")
    interval, means = _bootstrap(first - second, groups, weighting, confidence, resamples, seed)
    p_value = float("nan")
    if len(means):
        below, above = int((means <= 0).sum()), int((means >= 0).sum())
        p_value = min(1.0, 2 * (min(below, above) + 1) / (len(means) + 1))
    return PairedDifference(**vars(interval), p_value=p_value)


def resampled_means(
    values: ArrayLike,
    groups: ArrayLike,
    *,
    weighting: Weighting = "image",
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> NDArray[np.float64]:
    """Resample the means of several methods together, for statistics other than a difference.

    Args:
        values: (N, M) one column per method; NaN where the image has no value, in all columns.
        groups: (N,) the patient or group of each image.
        weighting: As in `mean_by`.
        resamples: Number of resamples.
        seed: Random seed of the resamples.

    Returns:
        (resamples, M) the mean of each column in each resample; no row with fewer than two groups.

    Raises:
        ValueError: The lengths differ, or a value is missing in some columns only.
    """
    table = np.asarray(values, dtype=np.float64)
    missing = np.isnan(table)
    if (missing.any(axis=1) != missing.all(axis=1)).any():
        raise ValueError("an image has a value in some methods only: the methods are not paired")
    columns = [_per_group(column, groups) for column in table.T]
    if len(columns[0][1]) < 2:
        return np.empty((0, table.shape[1]))
    terms = [_terms(sums, counts, weighting) for sums, counts in columns]
    numerators = [numerator for numerator, _ in terms]
    result = _resample(numerators, terms[0][1], 0.95, resamples, seed)
    return np.asarray(result.bootstrap_distribution.T)


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """Holm's step-down adjustment for several comparisons (Scand. J. Statist. 6:65, 1979).

    Args:
        p_values: (M,) values from 0 to 1; NaN marks a comparison that could not be made and does
            not count towards M.

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
    factors = np.arange(len(order), 0, -1)
    stepped = np.minimum(np.maximum.accumulate(values[known][order] * factors), 1.0)
    unsorted = np.empty(len(order))
    unsorted[order] = stepped
    adjusted = np.full(values.shape, np.nan)
    adjusted[known] = unsorted
    return adjusted


def _per_group(
    values: ArrayLike, groups: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sum and number of finite values of every group that has one."""
    numbers, names = np.asarray(values, dtype=np.float64), np.asarray(groups)
    if numbers.ndim != 1 or numbers.shape != names.shape:
        raise ValueError(
            f"values and groups must be of one length, got {numbers.shape} and {names.shape}"
        )
    if np.isinf(numbers).any():
        raise ValueError("values must be finite, or NaN where an image has none")
    present = ~np.isnan(numbers)
    _, index = np.unique(names[present], return_inverse=True)
    counts = np.bincount(index).astype(np.float64)
    sums = np.bincount(index, weights=numbers[present]).astype(np.float64)
    return sums, counts


def _terms(
    sums: NDArray[np.float64], counts: NDArray[np.float64], weighting: Weighting
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What each group adds to the numerator and to the denominator of the mean."""
    return (sums, counts) if weighting == "image" else (sums / counts, np.ones_like(counts))


def _bootstrap(
    values: ArrayLike,
    groups: ArrayLike,
    weighting: Weighting,
    confidence: float,
    resamples: int,
    seed: int,
) -> tuple[Interval, NDArray[np.float64]]:
    """The interval and the resampled means it comes from (none with fewer than two groups)."""
    if not 0 < confidence < 1 or resamples < 1:
        raise ValueError(f"confidence {confidence} or resamples {resamples} out of range")
    sums, counts = _per_group(values, groups)
    mean = mean_by(values, groups, weighting=weighting)
    images = int(counts.sum())
    if len(sums) < 2:
        nothing = np.empty(0, dtype=np.float64)
        return Interval(mean, float("nan"), float("nan"), len(sums), images), nothing
    numerator, denominator = _terms(sums, counts, weighting)
    result = _resample([numerator], denominator, confidence, resamples, seed)
    low, high = (float(end[0]) for end in result.confidence_interval)
    return Interval(mean, low, high, len(sums), images), result.bootstrap_distribution[0]


def _resample(
    numerators: Sequence[NDArray[np.float64]],
    denominator: NDArray[np.float64],
    confidence: float,
    resamples: int,
    seed: int,
) -> Any:
    """Bootstrap the ratios of (G,) numerators to one (G,) denominator, all under the same draws."""
    from scipy.stats import bootstrap

    def ratios(*terms: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
        *over, under = [term.sum(axis=axis) for term in terms]
        quotients: NDArray[np.float64] = np.stack(over) / under
        return quotients

    return bootstrap(
        (*numerators, denominator),
        ratios,
        paired=True,
        vectorized=True,
        n_resamples=resamples,
        batch=max(1, _CHUNK // len(denominator)),
        confidence_level=confidence,
        method="percentile",
        rng=np.random.default_rng(seed),
    )

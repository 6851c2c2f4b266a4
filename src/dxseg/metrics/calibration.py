"""Expected calibration error, without keeping images in memory, and temperature scaling."""

from __future__ import annotations

from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

DEFAULT_BINS = 15
TEMPERATURES = (0.05, 20.0)
"""Range of plausible temperatures."""

_END = 0.01
_FLAT = 1e-9


class CalibrationHistogram:
    """Running sums over equal-width probability bins, from which the calibration error follows.

    The error is sum over bins of (fraction of samples) x |mean probability - observed frequency|
    of the positive class (binary, L1), as in torchmetrics' `binary_calibration_error`.
    torchmetrics keeps every sample; three sums per bin are enough, and a test set of pixels does
    not fit in memory. The last bin includes probability 1.
    """

    def __init__(self, bins: int = DEFAULT_BINS) -> None:
        """Start empty.

        Args:
            bins: Number of bins, at least 1.

        Raises:
            ValueError: Fewer than one bin.
        """
        if bins < 1:
            raise ValueError(f"bins must be at least 1, got {bins}")
        self.count = np.zeros(bins)
        self.probability = np.zeros(bins)
        self.positive = np.zeros(bins)

    def update(self, probability: ArrayLike, target: ArrayLike) -> None:
        """Add samples.

        Args:
            probability: Any shape, 0 to 1.
            target: The same shape, true where the event happened.

        Raises:
            ValueError: The shapes differ, or a value is no probability.
        """
        values, truth = np.asarray(probability), np.asarray(target, dtype=bool)
        if values.shape != truth.shape:
            raise ValueError(
                f"probability and target must be of one shape, got {values.shape}, {truth.shape}"
            )
        if not np.all((values >= 0) & (values <= 1)):
            raise ValueError("probability must lie between 0 and 1, without NaN")
        flat = values.ravel().astype(np.float64)
        bins = len(self.count)
        index = np.minimum((flat * bins).astype(np.int64), bins - 1)
        self.count += np.bincount(index, minlength=bins)
        self.probability += np.bincount(index, weights=flat, minlength=bins)
        self.positive += np.bincount(index[truth.ravel()], minlength=bins)

    def error(self) -> float:
        """Expected calibration error of everything added, 0 to 1; NaN where nothing was."""
        total = self.count.sum()
        if total == 0:
            return float("nan")
        return float(np.abs(self.probability - self.positive).sum() / total)


def expected_calibration_error(
    probability: ArrayLike, target: ArrayLike, *, bins: int = DEFAULT_BINS
) -> float:
    """Expected calibration error of one set of samples.

    Args:
        probability: Any shape, 0 to 1.
        target: The same shape, true where the event happened.
        bins: Number of equal-width bins.

    Returns:
        Error, 0 to 1; NaN for no samples.

    Raises:
        ValueError: As `CalibrationHistogram`.
    """
    histogram = CalibrationHistogram(bins)
    histogram.update(probability, target)
    return histogram.error()


def temper_sigmoid(probability: NDArray[Any], temperature: float) -> NDArray[Any]:
    """Divide the logits behind probabilities of independent events by a temperature.

    Args:
        probability: Any shape, 0 to 1; interpolation may have overshot by a rounding error.
        temperature: Above 1 makes less sure, 1 changes nothing.

    Returns:
        Probabilities of the same shape and type; what was below, at or above 0.5 still is.
    """
    if temperature == 1:
        return probability
    chance = probability.clip(0, 1)
    # As odds and with numpy's own functions: an image has many pixels, and scipy's expit and logit
    # take over three times as long.
    with np.errstate(divide="ignore", over="ignore"):  # the odds of 0 and 1
        odds = np.exp(np.log((1 - chance) / chance) / float(temperature))
    tempered: NDArray[Any] = 1 / (1 + odds)
    # Just below 0.5 rounding could lift a pixel to a threshold of 0.5.
    half = np.nextafter(tempered.dtype.type(0.5), tempered.dtype.type(0))
    np.minimum(tempered, half, out=tempered, where=chance < 0.5)
    return tempered


def temper_labels(
    probability: NDArray[np.float64], temperature: float, *, multi_label: bool
) -> NDArray[np.float64]:
    """Divide the logits behind label probabilities by a temperature.

    Args:
        probability: (N, L), 0 to 1; rows sum to 1 unless several labels are possible.
        temperature: Above 1 makes less sure, 1 changes nothing.
        multi_label: Whether labels are independent instead of exclusive.

    Returns:
        (N, L) probabilities in the same order within each row.
    """
    if multi_label:
        return temper_sigmoid(probability, temperature)
    if temperature == 1:
        return probability
    from scipy.special import softmax

    tempered: NDArray[np.float64] = softmax(_log(probability) / temperature, axis=1)
    return tempered


def fit_temperature(probability: ArrayLike, target: ArrayLike) -> float | None:
    """The temperature that makes what happened likeliest (Guo et al. 2017).

    The negative log-likelihood is convex in one over the temperature, so a bounded search over its
    logarithm finds the minimum.

    Args:
        probability: Of exclusive labels (N, L), rows summing to 1; or of independent events, any
            shape.
        target: The label (N,) that each row has; or of the same shape as probability, true where
            the event happened.

    Returns:
        Temperature within `TEMPERATURES`. None where the samples do not determine it: without
        samples, or where no mistake, or nothing but mistakes, would make it ever more extreme.

    Raises:
        ValueError: The shapes do not belong together.
    """
    from scipy.optimize import minimize_scalar

    values, truth = np.asarray(probability, dtype=np.float64), np.asarray(target)
    if values.shape == truth.shape:
        # An event and its opposite exclude each other.
        values = np.stack([1 - values.ravel(), values.ravel()], axis=1)
        truth = truth.ravel() > 0
    if values.ndim != 2 or truth.shape != values.shape[:1]:
        raise ValueError(f"probability {values.shape} and target {truth.shape} do not fit")
    if not len(values):
        return None
    logs = _log(values)
    # Measured from what happened: its own column is 0.
    logs -= np.take_along_axis(logs, truth.astype(np.int64)[:, None], axis=1)

    def loss(log_temperature: float) -> float:
        scaled = logs / np.exp(log_temperature)
        # Column by column: ten times faster than `logsumexp` on the millions of rows of pixels.
        return float(reduce(np.logaddexp, scaled.T).mean())

    low, high = np.log(TEMPERATURES)
    found = float(minimize_scalar(loss, bounds=(low, high), method="bounded").x)
    # A minimum at the end of the range is none, nor is a place on a plain.
    inside = low + _END < found < high - _END
    deep = loss(found) + _FLAT < min(loss(low), loss(high))
    return float(np.exp(found)) if inside and deep else None


def _log(probability: NDArray[np.float64]) -> NDArray[np.float64]:
    """Logarithm that stays finite for what rounding made 0."""
    logs: NDArray[np.float64] = np.log(probability.clip(min=1e-38))
    return logs

"""Expected calibration error, accumulated so that no image has to stay in memory."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

DEFAULT_BINS = 15


class CalibrationHistogram:
    """Running sums over equal-width probability bins, from which the calibration error follows.

    The error is sum over bins of (share of samples) x |mean probability - observed frequency|
    of the positive class (binary, L1), as torchmetrics' `binary_calibration_error` has it.
    torchmetrics keeps every sample; three sums a bin are enough, and a test set of pixels does
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

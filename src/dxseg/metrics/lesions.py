"""Lesion-wise detection: matching of true and predicted lesions.

Components and their matching are from scipy; MONAI and torchmetrics have no one-to-one matching of
components.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import ndimage, sparse
from scipy.sparse.csgraph import maximum_bipartite_matching

from dxseg.metrics.overlap import as_mask_pair, crop_mask_pair

MATCH_IOU = 0.1


@dataclass(frozen=True)
class LesionCounts:
    """Lesions of one image or volume, or the sum over several (`a + b`).

    Attributes:
        true: Connected components of the truth.
        predicted: Connected components of the prediction.
        matched: Pairs of the two, each component in at most one pair.
    """

    true: int
    predicted: int
    matched: int

    def __add__(self, other: LesionCounts) -> LesionCounts:
        return LesionCounts(
            self.true + other.true, self.predicted + other.predicted, self.matched + other.matched
        )

    @property
    def sensitivity(self) -> float:
        """Fraction of true lesions that are matched, 0 to 1; NaN without true lesions."""
        return self.matched / self.true if self.true else float("nan")

    @property
    def precision(self) -> float:
        """Fraction of predicted lesions that are matched, 0 to 1; NaN without predicted lesions."""
        return self.matched / self.predicted if self.predicted else float("nan")

    @property
    def f1(self) -> float:
        """Harmonic mean of both, 0 to 1: 0 where one side is empty, NaN where both are."""
        total = self.true + self.predicted
        return 2 * self.matched / total if total else float("nan")


def match_lesions(
    truth: ArrayLike, prediction: ArrayLike, *, minimum_iou: float = MATCH_IOU
) -> LesionCounts:
    """Match the lesions of two masks one to one.

    A lesion is a connected component: of pixels with 8 neighbors, of voxels with 26. A pair may
    match when its intersection over union exceeds `minimum_iou`; among those pairs the largest
    one-to-one matching counts, so that a prediction that covers two lesions matches one of them,
    and a lesion predicted in two pieces leaves one false positive.

    Args:
        truth: (H, W) or (D, H, W) binary mask.
        prediction: The same shape.
        minimum_iou: 0 to 1; pairs at or below it do not match.

    Returns:
        The three counts.

    Raises:
        ValueError: The shapes differ, or the bound lies outside 0 to 1.
    """
    first, second = as_mask_pair(truth, prediction)
    if not 0 <= minimum_iou < 1:
        raise ValueError(f"minimum_iou must be at least 0 and below 1, got {minimum_iou}")
    if not first.any() and not second.any():
        return LesionCounts(0, 0, 0)
    first, second = crop_mask_pair(first, second)
    neighborhood = np.ones((3,) * first.ndim, dtype=bool)
    true_map, true = ndimage.label(first, neighborhood)
    found_map, found = ndimage.label(second, neighborhood)
    if not true or not found:
        return LesionCounts(int(true), int(found), 0)

    both = first & second
    # Sparse, because a speckled prediction may have ten thousand components.
    overlap = sparse.coo_matrix(
        (np.ones(int(both.sum())), (true_map[both] - 1, found_map[both] - 1)), shape=(true, found)
    )
    overlap.sum_duplicates()
    true_area = np.bincount(true_map[first], minlength=true + 1)[1:]
    found_area = np.bincount(found_map[second], minlength=found + 1)[1:]
    union = true_area[overlap.row] + found_area[overlap.col] - overlap.data
    allowed = overlap.data / union > minimum_iou
    pairs = sparse.csr_matrix(
        (np.ones(int(allowed.sum())), (overlap.row[allowed], overlap.col[allowed])),
        shape=(true, found),
    )
    matched = int((maximum_bipartite_matching(pairs, perm_type="column") >= 0).sum())
    return LesionCounts(int(true), int(found), matched)

"""Expected Dice loss of the network on an image without a mask."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Score:
    """Score of a case: the reasons to annotate it.

    Attributes:
        uncertainty: 0 to 1, one minus the soft Dice confidence of the predicted mask; 0 for an
            empty one.
        disagreement: 0 to 1, difference between "the predicted mask is not empty" (1 or 0) and the
            probability of a lesion.
    """

    uncertainty: float
    disagreement: float

    @property
    def score(self) -> float:
        """The expected Dice loss, 0 to 1.

        With a mask, Dice is 0 where there is no lesion and the soft Dice confidence is expected
        where there is one. Without a mask, Dice is 1 where there is no lesion and 0 where there is
        one. These are the four cells of the evaluation.
        """
        return 1 - (1 - self.uncertainty) * (1 - self.disagreement)


def score_image(
    probabilities: NDArray[np.float32], mask: NDArray[np.uint8], lesion_probability: float
) -> Score:
    """Score an image that was predicted without a label prompt.

    Args:
        probabilities: (K, H, W), 0 to 1, calibrated.
        mask: (H, W) label map, 0 is background.
        lesion_probability: Probability of a lesion: 1 if the label names one, else that of the
            label head; NaN without either, and the highest pixel probability is used.

    Returns:
        The score.
    """
    peaks = probabilities.max(axis=0)
    probability = float(peaks.max()) if np.isnan(lesion_probability) else lesion_probability
    lesion = mask > 0
    if not lesion.any():
        return Score(0.0, probability)
    return Score(1 - soft_dice_confidence(peaks, lesion), 1 - probability)


def soft_dice_confidence(probabilities: NDArray[np.float32], mask: NDArray[np.bool_]) -> float:
    """Compute the expected Dice of a mask from the probabilities behind it.

    Borges, Pacheco and Silva, "Soft Dice Confidence", arXiv 2402.10665: close to the expected Dice
    if the errors of pixels are independent.

    Args:
        probabilities: (H, W) probability of lesion, 0 to 1.
        mask: (H, W), true on at least one pixel.

    Returns:
        Expected Dice, 0 to 1.
    """
    shared = probabilities[mask].sum(dtype=np.float64)
    both = probabilities.sum(dtype=np.float64) + np.count_nonzero(mask)
    return float(2 * shared / both)

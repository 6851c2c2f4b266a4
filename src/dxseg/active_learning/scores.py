"""How much Dice the network is expected to lose on an image whose mask nobody has drawn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Score:
    """Why a case is worth a mask.

    Attributes:
        uncertainty: 0..1, one minus the soft Dice confidence of the mask that the network draws; 0
            where it draws none.
        disagreement: 0..1, how far "the network draws a mask" is from the probability that there is
            a lesion.
    """

    uncertainty: float
    disagreement: float

    @property
    def score(self) -> float:
        """The expected Dice loss, 0..1.

        With a mask, Dice is 0 where there is no lesion and the soft Dice confidence is expected
        where there is one. Without a mask, Dice is 1 where there is no lesion and 0 where there is
        one. These are the four cells of the evaluation.
        """
        return 1 - (1 - self.uncertainty) * (1 - self.disagreement)


def score_image(
    probabilities: NDArray[np.float32], mask: NDArray[np.uint8], lesion_probability: float
) -> Score:
    """Score an image that was predicted without knowing its diagnosis.

    Args:
        probabilities: (K, H, W) in 0..1, calibrated.
        mask: (H, W) label map, 0 is background.
        lesion_probability: That the image has a lesion: 1 where the diagnosis says so, else by the
            label head; NaN where neither says anything, and the highest pixel stands in.

    Returns:
        The score.
    """
    peaks = probabilities.max(axis=0)
    told = float(peaks.max()) if np.isnan(lesion_probability) else lesion_probability
    drawn = mask > 0
    if not drawn.any():
        return Score(0.0, told)
    return Score(1 - soft_dice_confidence(peaks, drawn), 1 - told)


def soft_dice_confidence(probabilities: NDArray[np.float32], mask: NDArray[np.bool_]) -> float:
    """The Dice that a mask can expect, by the probabilities it was drawn from.

    Borges, Pacheco and Silva, "Soft Dice Confidence", arXiv 2402.10665: close to the expected Dice
    where pixels err independently.

    Args:
        probabilities: (H, W) that a pixel is lesion, 0..1.
        mask: (H, W), true on at least one pixel.

    Returns:
        0..1.
    """
    shared = probabilities[mask].sum(dtype=np.float64)
    both = probabilities.sum(dtype=np.float64) + np.count_nonzero(mask)
    return float(2 * shared / both)

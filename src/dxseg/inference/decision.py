"""From probabilities to a mask: the threshold, the image-level gate, and what is known already."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dxseg.inference.gate import bounded, closes

PEAK_SHARE = 0.5
"""Share of an image's highest probability that stands in for the threshold where a lesion is known
to be and no pixel reaches it: half, as in the full width at half maximum of a peak."""


def decide(
    probabilities: NDArray[np.float32],
    *,
    threshold: float,
    gate: float | None = None,
    lesion_probability: float = float("nan"),
    known_lesion: bool | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Choose the mask of an image.

    A diagnosis that is known is a rule, not an opinion to weigh: lesion-free gives an empty mask; a
    lesion opens the gate and has to be found, so that the threshold gives way if need be.

    Args:
        probabilities: (K, H, W) in 0..1.
        threshold: A pixel whose highest probability is below it is background.
        gate: Probability of a lesion below which the mask is empty; None for no gate.
        lesion_probability: Of the image, by the label head; NaN without one.
        known_lesion: Whether the image is known to have a lesion; None where it is not known.

    Returns:
        The probabilities, bounded by what the image can have, and the mask of `to_mask`.
    """
    empty = np.zeros(probabilities.shape[1:], np.uint8)
    if known_lesion is False:
        return bounded(probabilities, 0.0), empty
    if known_lesion is None and closes(gate, lesion_probability):
        return bounded(probabilities, lesion_probability), empty
    mask = to_mask(probabilities, threshold)
    peak = float(probabilities.max())
    if known_lesion and peak > 0 and not mask.any():
        mask = to_mask(probabilities, PEAK_SHARE * peak)
    return probabilities, mask


def to_mask(probabilities: NDArray[np.float32], threshold: float) -> NDArray[np.uint8]:
    """Choose a class for every pixel.

    Args:
        probabilities: (K, H, W) in 0..1.
        threshold: A pixel whose highest probability is below it is background.

    Returns:
        (H, W) label map of 0..K; of equal classes the first wins.
    """
    mask = np.zeros(probabilities.shape[1:], np.uint8)
    found = probabilities.max(axis=0) >= threshold
    mask[found] = probabilities.argmax(axis=0)[found] + 1
    return mask

"""From probabilities to a mask: the threshold, the image-level gate, and what is known already."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dxseg.inference.gate import bounded, closes, is_ruled_in
from dxseg.models.heads import LESION_PRIOR

RELATIVE_THRESHOLD = 0.3
"""Where a lesion is known or ruled in, the threshold is at most this share of the highest
probability.

The threshold with the best expected Dice is half of that Dice (Lipton et al., "Optimal
Thresholding of Classifiers to Maximize F1 Measure", ECML PKDD 2014): about 0.3 for the Dice of few
masks. Where nothing is known, so low a threshold would mark lesion-free images."""

MIN_THRESHOLD = LESION_PRIOR
"""Lowest threshold where a lesion is not known but ruled in by the classifier.

Below the probability that an untrained network gives every pixel, the network argues against the
classifier; without a floor a classifier that errs would mark half of an image by a share of next to
nothing."""


def decide(
    probabilities: NDArray[np.float32],
    *,
    threshold: float,
    gate: float | None = None,
    rule_in: float | None = None,
    lesion_probability: float = float("nan"),
    known_lesion: bool | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Choose the mask of an image.

    A diagnosis that is known is a rule, not an opinion to weigh: lesion-free gives an empty mask; a
    lesion opens the gate and has to be found, so that the threshold gives way if need be. Where
    nothing is known, a classifier that is sure enough makes the threshold give way too, but not
    below `MIN_THRESHOLD`.

    Args:
        probabilities: (K, H, W) in 0..1.
        threshold: A pixel whose highest probability is below it is background.
        gate: Probability of a lesion below which the mask is empty; None for no gate.
        rule_in: Probability of a lesion above which the threshold gives way; None for no such rule.
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
    share = RELATIVE_THRESHOLD * float(probabilities.max())
    if known_lesion and share > 0:  # a network that sees nothing at all finds nothing
        threshold = min(threshold, share)
    elif known_lesion is None and is_ruled_in(rule_in, lesion_probability):
        threshold = min(threshold, max(share, MIN_THRESHOLD))
    return probabilities, to_mask(probabilities, threshold)


def to_mask(probabilities: NDArray[np.float32], threshold: float) -> NDArray[np.uint8]:
    """Choose a class for every pixel.

    Args:
        probabilities: (K, H, W) in 0..1.
        threshold: A pixel whose highest probability is below it is background.

    Returns:
        (H, W) label map of 0..K; of equal classes the first wins.
    """
    # Class by class: numpy's argmax over the first axis takes longer than all the rest.
    highest = probabilities[0]
    mask = np.ones(highest.shape, np.uint8)
    for place, chance in enumerate(probabilities[1:], 2):
        mask[chance > highest] = place
        highest = np.maximum(highest, chance)
    mask *= highest >= threshold
    return mask

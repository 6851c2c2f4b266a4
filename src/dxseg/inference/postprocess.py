"""From probabilities to a mask: the threshold, the image-level thresholds and the label prompt.

Image-level labels are many and masks are few, so whether an image has a lesion is left to the
classifier where it is sure, and the segmenter needs to learn only where the lesion is (ours). As in
a diagnostic test there are two thresholds: one rules a lesion out, the other rules one in.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dxseg.metrics.image_level import lowest_threshold
from dxseg.models.heads import LESION_PRIOR

RELATIVE_THRESHOLD = 0.3
"""Where a lesion is known or ruled in, the threshold is at most this fraction of the highest
probability.

The threshold with the best expected Dice is half of that Dice (Lipton et al., "Optimal
Thresholding of Classifiers to Maximize F1 Measure", ECML PKDD 2014): about 0.3 for the Dice of few
masks. Where nothing is known, so low a threshold would mark lesion-free images."""

MIN_THRESHOLD = LESION_PRIOR
"""Lowest threshold where a lesion is not known but ruled in by the classifier.

Below the probability that an untrained network outputs for every pixel, the network argues against
the classifier; without a floor a classifier that errs would mark half of an image by a fraction of
next to nothing."""

MAX_RULE_OUT = 0.5
"""Highest rule-out threshold and lowest rule-in threshold: what is likelier than not is never
overruled, however sure the classifier is of the few validation images."""


def apply_thresholds(
    probabilities: NDArray[np.float32],
    *,
    threshold: float,
    lesion_values: Sequence[int] | None = None,
    rule_out_threshold: float | None = None,
    rule_in_threshold: float | None = None,
    lesion_probability: float = float("nan"),
    known_lesion: bool | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Choose the mask of an image.

    A label prompt is a rule, not one more probability to weigh: a lesion-free label gives an empty
    mask; a lesion label switches the rule-out threshold off, and lowers the pixel threshold of
    lesions until one is found. Without a label prompt, a classifier that is sure enough lowers it
    too, but not below `MIN_THRESHOLD`. Organs keep their threshold and give way: where a lesion is,
    the organ around it may be the likelier class.

    Args:
        probabilities: (K, H, W) in 0..1.
        threshold: A pixel whose highest probability is below it is background.
        lesion_values: The mask values of lesions, where others are organs; None: all.
        rule_out_threshold: Lesion probability below which the mask is empty; None switches it off.
        rule_in_threshold: Lesion probability above which the pixel threshold is lowered; None
            switches it off.
        lesion_probability: Of the image, by the label head; NaN without one.
        known_lesion: Whether the label prompt implies a lesion; None without a label prompt.

    Returns:
        The probabilities, capped by the lesion probability of a ruled-out image, and the mask, a
        label map (H, W).
    """
    empty = np.zeros(probabilities.shape[1:], np.uint8)
    if known_lesion is False:
        return cap(probabilities, 0.0), empty
    if known_lesion is None and is_ruled_out(rule_out_threshold, lesion_probability):
        return cap(probabilities, lesion_probability), empty
    mask = to_mask(probabilities, threshold)
    if not known_lesion and not is_ruled_in(rule_in_threshold, lesion_probability):
        return probabilities, mask
    values = np.array([0, *(lesion_values or range(1, len(probabilities) + 1))], np.uint8)
    lesions = probabilities[values[1:] - 1]
    lowered = RELATIVE_THRESHOLD * float(lesions.max())
    if not known_lesion:
        lowered = max(lowered, MIN_THRESHOLD)
    if lowered > 0:  # where every probability is 0 there is nothing to find
        found = to_mask(lesions, min(threshold, lowered))
        mask = np.where(found > 0, values[found], mask)
    return probabilities, mask


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
    for value, probability in enumerate(probabilities[1:], 2):
        mask[probability > highest] = value
        highest = np.maximum(highest, probability)
    mask *= highest >= threshold
    return mask


def is_ruled_out(rule_out_threshold: float | None, lesion_probability: float) -> bool:
    """Whether an image gets no mask; never without a threshold or a label head (NaN)."""
    return rule_out_threshold is not None and lesion_probability < rule_out_threshold


def is_ruled_in(rule_in_threshold: float | None, lesion_probability: float) -> bool:
    """Whether an image counts as one with a lesion; never without a threshold or a label head."""
    return rule_in_threshold is not None and lesion_probability > rule_in_threshold


def cap(probabilities: NDArray[np.float32], lesion_probability: float) -> NDArray[np.float32]:
    """Limit pixel probabilities: a pixel is in a lesion no more likely than the image has one."""
    return np.minimum(probabilities, np.float32(lesion_probability))


def choose_rule_out_threshold(
    lesion_probabilities: Sequence[float], sensitivity: float
) -> float | None:
    """Choose the highest threshold that keeps enough of the validation images with a lesion.

    Args:
        lesion_probabilities: Of validation images whose label implies a lesion.
        sensitivity: The fraction of them to keep, in (0, 1].

    Returns:
        The lowest probability that is kept, at most `MAX_RULE_OUT`; None without such images.
    """
    if not lesion_probabilities:
        return None
    ordered = sorted(lesion_probabilities)
    # The tolerance keeps 0.02 * 50 from losing its one image to rounding.
    ruled_out = math.floor((1 - sensitivity) * len(ordered) + 1e-9)
    return min(ordered[ruled_out], MAX_RULE_OUT)


def choose_rule_in_threshold(
    lesion_probabilities: Sequence[float], specificity: float
) -> float | None:
    """Choose the lowest threshold that rules in few enough lesion-free validation images.

    Args:
        lesion_probabilities: Of validation images whose label implies that there is no lesion.
        specificity: The fraction of them that must not exceed the threshold, in (0, 1].

    Returns:
        The probability above which an image counts as one with a lesion, at least `MAX_RULE_OUT`;
        None without such images.
    """
    threshold = lowest_threshold(lesion_probabilities, 1 - specificity)
    return None if threshold is None else max(threshold, MAX_RULE_OUT)

"""The image-level gate: what the classifier's opinion of an image means for its mask (ours).

Image-level labels are many and masks are few, so whether there is a lesion is left to the
classifier where it is sure, and the segmenter needs to learn only where one is. As with a
diagnostic test there are two thresholds: one rules a lesion out, the other rules one in.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

MAX_RULE_OUT = 0.5
"""Highest gate and lowest threshold to rule in: what is likelier than not is never overruled,
however sure the classifier is of the few validation images."""


def choose_gate(lesion_probabilities: Sequence[float], sensitivity: float) -> float | None:
    """The highest gate that lets enough of the validation images with a lesion through.

    Args:
        lesion_probabilities: Of validation images whose label says that there is a lesion.
        sensitivity: The share of them that must pass, in (0, 1].

    Returns:
        The least probability that passes, at most `MAX_RULE_OUT`; None where there is nothing to
        choose by.
    """
    if not lesion_probabilities:
        return None
    ordered = sorted(lesion_probabilities)
    # The tolerance keeps 0.02 * 50 from losing its one image to rounding.
    blanked = math.floor((1 - sensitivity) * len(ordered) + 1e-9)
    return min(ordered[blanked], MAX_RULE_OUT)


def choose_rule_in(lesion_probabilities: Sequence[float], specificity: float) -> float | None:
    """The lowest threshold that rules a lesion in on few enough lesion-free validation images.

    Args:
        lesion_probabilities: Of validation images whose label says that there is no lesion.
        specificity: The share of them that must not exceed the threshold, in (0, 1].

    Returns:
        The probability above which an image counts as one with a lesion, at least `MAX_RULE_OUT`;
        None where there is nothing to choose by.
    """
    if not lesion_probabilities:
        return None
    ordered = sorted(lesion_probabilities, reverse=True)
    # As in choose_gate.
    exceeding = math.floor((1 - specificity) * len(ordered) + 1e-9)
    return max(ordered[exceeding], MAX_RULE_OUT)


def closes(gate: float | None, lesion_probability: float) -> bool:
    """Whether an image gets no mask; never without a gate or without a label head (NaN)."""
    return gate is not None and lesion_probability < gate


def is_ruled_in(threshold: float | None, lesion_probability: float) -> bool:
    """Whether an image counts as one with a lesion; never without a threshold or a label head."""
    return threshold is not None and lesion_probability > threshold


def bounded(probabilities: NDArray[np.float32], lesion_probability: float) -> NDArray[np.float32]:
    """Pixel probabilities of an image that the gate closes.

    A pixel is in a lesion no more likely than the image has one.
    """
    return np.minimum(probabilities, np.float32(lesion_probability))

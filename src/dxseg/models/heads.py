"""The last layer of every segmenter, before it has learnt anything."""

from __future__ import annotations

import math

from torch import nn

LESION_PRIOR = 0.05
"""Probability of a lesion that an untrained network gives every pixel."""


def init_prior_bias(head: nn.Conv2d) -> nn.Conv2d:
    """Let a network begin with the belief that a pixel is seldom a lesion.

    From an even start the first thing to be learnt is what background looks like, as it is nearly
    everything. With few masks it can end there: each of the few features in front of the head is
    active on background, nothing is active on lesions, and no logit exceeds the bias. From a low
    one, the lesions are what there is to learn (Lin et al., "Focal Loss for Dense Object
    Detection", ICCV 2017, section 4.1).

    Args:
        head: gives the mask logits; changed in place.

    Returns:
        The same layer.
    """
    assert head.bias is not None, "a head without bias has no prior"
    nn.init.constant_(head.bias, math.log(LESION_PRIOR / (1 - LESION_PRIOR)))
    return head

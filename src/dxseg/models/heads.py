"""Initialization of the segmentation head."""

from __future__ import annotations

import math

from torch import nn

LESION_PRIOR = 0.05
"""Probability of a lesion that an untrained network predicts at every pixel."""


def init_prior_bias(head: nn.Conv2d) -> nn.Conv2d:
    """Set the bias so that the untrained network predicts `LESION_PRIOR` on average.

    With a bias of zero, training first learns what background looks like, as nearly all pixels
    are. With few masks it can end there: each of the few features in front of the head is active
    on background, nothing is active on lesions, and no logit exceeds the bias. With a low bias,
    the lesions are what is left to learn (Lin et al., "Focal Loss for Dense Object Detection",
    ICCV 2017, section 4.1).

    Args:
        head: Computes the mask logits; changed in place.

    Returns:
        The same layer.
    """
    assert head.bias is not None, "a head without bias has no prior"
    nn.init.constant_(head.bias, math.log(LESION_PRIOR / (1 - LESION_PRIOR)))
    return head

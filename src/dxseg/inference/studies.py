"""What the images of a study, taken together, say of the study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from dxseg.inference.model_folder import ModelInfo
from dxseg.models.mil_pooling import pool_images

_SURE = 1e-12
"""Closest that a probability comes to 0 and 1: its logit is finite then."""


def study_probabilities(images: Sequence[Mapping[str, float]], info: ModelInfo) -> dict[str, float]:
    """Pool label probabilities as stage 1 does where labels are of studies.

    Args:
        images: Of each image of the study, at least one; in any order.
        info: Labels, and which of them mean lesion-free.

    Returns:
        Probability of each label, 0 to 1, for the study.
    """
    free = [info.labels.index(name) for name in info.lesion_free]
    table = [[image[name] for name in info.labels] for image in images]
    probabilities = torch.tensor(table, dtype=torch.float64).clamp(_SURE, 1 - _SURE)
    logits = probabilities.logit() if info.multi_label else probabilities.log()
    pooled = pool_images(logits, multi_label=info.multi_label, lesion_free=free)
    values = pooled.sigmoid() if info.multi_label else pooled.softmax(dim=0)
    return dict(zip(info.labels, values.tolist(), strict=True))

"""Multiple-instance pooling: what the images of a study, taken together, say of the study (ours).

A study has a lesion if one of its images shows one. The pooling is that of the evidence maps
(`dxseg.models.coarse_branch`), one step further: with images of one size, pooling places to images
and images to studies is pooling all places of a study at once.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dxseg.models.coarse_branch import logmeanexp


def pool_images(logits: Tensor, *, multi_label: bool, lesion_free: Sequence[int]) -> Tensor:
    """Label logits (n, L) of a study's images to those of the study, (L,).

    Labels that exclude each other are measured from the lesion-free ones: the odds of a lesion of
    the study are the mean of its images' odds. So one image that is sure decides, a study is
    lesion-free if all of its images are, and a sample of images estimates what all would say.
    Labels that do not exclude each other are pooled each by itself, lesion-free ones as a minimum.

    Args:
        logits: Of images in any order; their order does not matter.
        multi_label: Whether labels are independent instead of exclusive.
        lesion_free: Positions of the labels that mean: no lesion.
    """
    free = list(lesion_free)
    if not free:
        return logmeanexp(logits, dims=(0,))
    if multi_label:
        sign = torch.ones_like(logits[0])
        sign[free] = -1
        return sign * logmeanexp(sign * logits, dims=(0,))
    return logmeanexp(logits - logits[:, free].logsumexp(dim=1, keepdim=True), dims=(0,))


def split_by_study(values: Tensor, study: Tensor) -> tuple[Tensor, ...]:
    """The rows of each study, studies in the order of their numbers.

    Args:
        values: (N, ...).
        study: (N,) number of each row's study.
    """
    order = study.argsort(stable=True)
    _, counts = torch.unique(study, return_counts=True)
    return torch.split(values[order], counts.tolist())

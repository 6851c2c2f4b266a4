"""Multiple-instance pooling: from label logits of images to those of their study (ours).

A study has a lesion if one of its images shows one. The pooling is that of the evidence maps
(`dxseg.models.coarse_branch`), one step further: with images of one size, pooling pixels to images
and images to studies is pooling all pixels of a study at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from dxseg.models.coarse_branch import logmeanexp

_EPSILON = 1e-12
"""Probabilities are clamped by it, so that their logits are finite."""


def pool_images(logits: Tensor, *, multi_label: bool, lesion_free: Sequence[int]) -> Tensor:
    """Pool label logits (n, L) of a study's images to those of the study, (L,).

    Labels that exclude each other are measured from the lesion-free ones: the odds of a lesion of
    the study are the mean of its images' odds. So one image with a high logit decides, a study is
    lesion-free if all of its images are, and a sample of images estimates the result for all.
    Labels that do not exclude each other are pooled separately, lesion-free ones as a minimum.

    Args:
        logits: Logits of the images, in any order.
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
    """Split rows by study, studies in the order of their numbers.

    Args:
        values: Rows (N, ...).
        study: Number of each row's study, (N,).
    """
    order = study.argsort(stable=True)
    _, counts = torch.unique(study, return_counts=True)
    return torch.split(values[order], counts.tolist())


def study_probabilities(
    images: Sequence[Mapping[str, float]],
    labels: Sequence[str],
    *,
    lesion_free: Sequence[str],
    multi_label: bool,
) -> dict[str, float]:
    """Pool label probabilities of images as stage 1 does where labels are of studies.

    Args:
        images: Probabilities by label of each image of the study, at least one; in any order.
        labels: Names of the labels.
        lesion_free: Those of them that mean lesion-free.
        multi_label: Whether labels are independent instead of exclusive.

    Returns:
        Probability of each label, 0 to 1, for the study.
    """
    table = [[image[name] for name in labels] for image in images]
    probabilities = torch.tensor(table, dtype=torch.float64).clamp(_EPSILON, 1 - _EPSILON)
    logits = probabilities.logit() if multi_label else probabilities.log()
    free = [labels.index(name) for name in lesion_free]
    pooled = pool_images(logits, multi_label=multi_label, lesion_free=free)
    values = pooled.sigmoid() if multi_label else pooled.softmax(dim=0)
    return dict(zip(labels, values.tolist(), strict=True))

"""Losses of both stages."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F


class LabelLoss(nn.Module):
    """Class-balanced image-level loss: cross-entropy, or binary cross-entropy for multi-label.

    Images without a label do not count.
    """

    balance: Tensor

    def __init__(self, balance: Tensor, multi_label: bool, label_smoothing: float = 0.0) -> None:
        """Hold the weights.

        Args:
            balance: (L,) class weights, or positive weights for multi-label
                (:func:`label_balance`).
            multi_label: whether targets are (B, L).
            label_smoothing: part of the target spread over all labels, [0, 1).
        """
        super().__init__()
        self.register_buffer("balance", balance)
        self.multi_label = multi_label
        self.label_smoothing = label_smoothing

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Mean loss of logits (B, L) against targets as in :class:`dxseg.data.loader.Batch`."""
        if self.multi_label:
            known = ~target.isnan().any(dim=1)
            if not known.any():
                return logits.sum() * 0.0
            smooth = target[known] * (1 - self.label_smoothing) + self.label_smoothing / 2
            return F.binary_cross_entropy_with_logits(
                logits[known], smooth, pos_weight=self.balance
            )
        if not (target >= 0).any():
            return logits.sum() * 0.0
        return F.cross_entropy(
            logits,
            target,
            weight=self.balance,
            ignore_index=-1,
            label_smoothing=self.label_smoothing,
        )


def label_balance(labels: NDArray[Any], count: int, multi_label: bool) -> Tensor:
    """Weights that give every label the same say.

    Args:
        labels: (N,) class indices with -1 for unknown, or (N, L) of 0, 1 and NaN.
        count: L.
        multi_label: which of the two.

    Returns:
        (L,) float32. Multi-class: inverse frequency, mean 1 over the images; multi-label: negatives
        per positive, within 0.1 and 10. Labels that never occur get weight 1.
    """
    if multi_label:
        known = labels[~np.isnan(labels).any(axis=1)]
        positive = known.sum(axis=0)
        ratio = np.where(positive > 0, (len(known) - positive) / np.maximum(positive, 1), 1.0)
        return torch.as_tensor(np.clip(ratio, 0.1, 10.0), dtype=torch.float32)
    frequency = np.bincount(labels[labels >= 0].astype(np.int64), minlength=count)
    present = np.count_nonzero(frequency)
    weight = np.where(frequency > 0, frequency.sum() / np.maximum(frequency * present, 1), 1.0)
    return torch.as_tensor(weight, dtype=torch.float32)


class MaskLoss(nn.Module):
    """Dice plus binary cross-entropy, both with one sigmoid a mask class.

    Dice (Milletari et al. 2016, MONAI's implementation) is taken over the whole batch: per image
    it is constant where the target is empty, and lesion-free images would teach it nothing.
    """

    def __init__(self, soft_targets: bool = False) -> None:
        """Build the loss.

        Args:
            soft_targets: whether targets may lie between 0 and 1. Plain Dice is then lowest at the
                target rounded to 0 and 1; its semimetric form (Wang et al. 2023) at the target.
        """
        super().__init__()
        from monai.losses.dice import DiceLoss

        self.dice = DiceLoss(sigmoid=True, batch=True, soft_label=soft_targets)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Mean loss of logits (B, K, H, W) against masks of the same shape, 0 to 1."""
        dice: Tensor = self.dice(logits, target)
        return dice + F.binary_cross_entropy_with_logits(logits, target)

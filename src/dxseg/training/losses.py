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

    Images without a label are ignored.
    """

    balance: Tensor

    def __init__(self, balance: Tensor, multi_label: bool, label_smoothing: float = 0.0) -> None:
        """Store the weights.

        Args:
            balance: (L,) class weights, or positive weights for multi-label
                (`label_balance`).
            multi_label: whether targets are (B, L).
            label_smoothing: part of the target spread over all labels, [0, 1).
        """
        super().__init__()
        self.register_buffer("balance", balance)
        self.multi_label = multi_label
        self.label_smoothing = label_smoothing

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Mean loss of logits (B, L) against targets as in `dxseg.data.batches.batches.Batch`."""
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


def label_balance(
    labels: NDArray[Any], count: int, multi_label: bool, draws: NDArray[np.float64] | None = None
) -> Tensor:
    """Weights that give every label the same influence.

    Args:
        labels: (N,) class indices with -1 for unknown, or (N, L) of 0, 1 and NaN.
        count: L.
        multi_label: which of the two.
        draws: (N,) how often each is drawn. Default: equally often.

    Returns:
        (L,) float32. Multi-class: inverse frequency, mean 1 over the images; multi-label: negatives
        per positive, within 0.1 and 10. Labels that never occur get weight 1.
    """
    draws = np.ones(len(labels)) if draws is None else draws
    if multi_label:
        known = ~np.isnan(labels).any(axis=1)
        positive = draws[known] @ labels[known]
        ratio = _ratio(draws[known].sum() - positive, positive)
        return torch.as_tensor(np.clip(ratio, 0.1, 10.0), dtype=torch.float32)
    known = np.asarray(labels >= 0)
    frequency = np.bincount(labels[known].astype(np.int64), draws[known], minlength=count).astype(
        np.float64
    )
    weight = _ratio(frequency.sum(), frequency * np.count_nonzero(frequency))
    return torch.as_tensor(weight, dtype=torch.float32)


def _ratio(numerator: Any, denominator: NDArray[np.float64]) -> NDArray[np.float64]:
    """The quotient, 1 if the denominator is 0."""
    quotient = np.ones(denominator.shape)
    np.divide(numerator, denominator, out=quotient, where=denominator > 0)
    return quotient


class MaskLoss(nn.Module):
    """Dice plus binary cross-entropy, both with one sigmoid per mask class.

    Dice (Milletari et al. 2016, MONAI's implementation) is taken over the whole batch: per image
    it is constant for an empty target, and lesion-free images would have no gradient.
    """

    def __init__(self, soft_targets: bool = False) -> None:
        """Build the loss.

        Args:
            soft_targets: whether targets may lie between 0 and 1. Plain Dice is then lowest at the
                target rounded to 0 and 1; its semimetric form (Wang et al. 2023) at the target.
        """
        super().__init__()
        from monai.losses.dice import DiceLoss

        self.dice = DiceLoss(batch=True, soft_label=soft_targets)

    def forward(self, logits: Tensor, target: Tensor, pixels: Tensor | None = None) -> Tensor:
        """Mean loss of logits (B, K, H, W) against masks of the same shape, 0 to 1.

        Args:
            logits: of the masks.
            target: the masks.
            pixels: booleans of the same shape, where targets are known; without any, the loss is 0.
                Default: everywhere.
        """
        probabilities = logits.sigmoid()
        if pixels is None:
            dice: Tensor = self.dice(probabilities, target)
            return dice + F.binary_cross_entropy_with_logits(logits, target)
        known = pixels.to(logits.dtype)
        dice = self.dice(probabilities * known, target * known)
        entropy = F.binary_cross_entropy_with_logits(logits, target, known, reduction="sum")
        return dice + entropy / known.sum().clamp(min=1)

"""Dropout of feature channels between any encoder and its decoder (UniMatch, Yang et al. 2023)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F


@contextmanager
def dropped_features(encoder: nn.Module, probability: float) -> Iterator[None]:
    """Drop channels of all levels that an encoder returns, while it is used in a block.

    Args:
        encoder: returns levels (B, C_l, H_l, W_l).
        probability: of each channel of each image; the others are scaled up in turn.
    """

    def drop(_: nn.Module, __: Any, levels: Sequence[Tensor]) -> list[Tensor]:
        return [F.dropout2d(level, probability) for level in levels]

    handle = encoder.register_forward_hook(drop)
    try:
        yield
    finally:
        handle.remove()

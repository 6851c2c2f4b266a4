"""Skip connections between the coarse and the fine branch: fusions (short skips) and prompts.

Any `nn.Module` that follows the protocol `Fusion` or `Prompt` can be passed to `SKS`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dxseg.models.coarse_branch import EVIDENCE_STRIDE, CoarseBranch, CoarseOutput


class Fusion(Protocol):
    """A module that fuses the levels of the two encoders, one at a time."""

    def forward(self, fine: Tensor, coarse: Tensor, level: int) -> Tensor:
        """Fuse s_l and c_l, each (B, C_l, h, w), to g_l of the same size.

        Args:
            fine: s_l.
            coarse: c_l.
            level: Position among the levels that are fused, 0 for the finest.
        """
        ...


class Prompt(Protocol):
    """A module that turns the coarse branch's output into input of the fine decoder.

    Attributes:
        channels: Number of channels that it adds at each encoder level, finest first.
    """

    channels: list[int]

    def forward(self, coarse: CoarseOutput, evidence: Tensor) -> list[list[Tensor]]:
        """Compute the tensors (B, ., h, w) to concatenate at each encoder level, finest first.

        Args:
            coarse: Output of the coarse branch.
            evidence: (B, L, h, w) class activation maps at `EVIDENCE_STRIDE`, in 0..1; a label
                prompt has been taken into account.
        """
        ...


class FeatureFusion(nn.Module):
    """Short skip: f_fuse = W (f_i + f_k concatenated) + b, W of size C x 2C (paper's equation).

    One 1x1 convolution per level, initialized to the mean of its two inputs, so that training
    starts from a sensible fusion.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        """Build a fusion for levels of these widths."""
        super().__init__()
        fusions = [nn.Conv2d(2 * c, c, 1, bias=True) for c in channels]
        for fusion, width in zip(fusions, channels, strict=True):
            half = torch.eye(width) / 2
            mean = torch.cat([half, half], dim=1)[:, :, None, None]
            fusion.load_state_dict({"weight": mean, "bias": torch.zeros(width)})
        self.fusions = nn.ModuleList(fusions)

    def forward(self, fine: Tensor, coarse: Tensor, level: int) -> Tensor:
        """Fuse s_l and c_l, each (B, C_l, h, w), to g_l of the same size."""
        fused: Tensor = self.fusions[level](torch.cat([fine, coarse], dim=1))
        return fused


class LongSkip(nn.Module):
    """Coarse decoder features u_l enter the fine decoder at each level (paper's name, our reading).

    Attributes:
        channels: Number of channels that it adds at each encoder level, finest first: none at the
            deepest level, where the coarse decoder has no output, and none at levels finer than
            the coarse decoder reaches.
    """

    def __init__(self, coarse: CoarseBranch) -> None:
        super().__init__()
        self.strides = coarse.encoder.strides
        self.channels = [coarse.decoder.channels.get(stride, 0) for stride in self.strides]

    def forward(self, coarse: CoarseOutput, evidence: Tensor) -> list[list[Tensor]]:  # noqa: ARG002
        """Pick the decoder features of each level, finest first."""
        decoded = coarse.decoder_features
        return [[decoded[stride]] if stride in decoded else [] for stride in self.strides]


class EvidencePrompt(nn.Module):
    """The diagnosis made spatial: class activation maps enter every level (ours).

    Attributes:
        channels: One channel per label at each encoder level.
    """

    def __init__(self, coarse: CoarseBranch) -> None:
        super().__init__()
        self.strides = coarse.encoder.strides
        self.channels = [coarse.labels] * len(self.strides)

    def forward(self, coarse: CoarseOutput, evidence: Tensor) -> list[list[Tensor]]:  # noqa: ARG002
        """Resize the evidence (B, L, h, w) to each level, finest first."""
        return [[resize_evidence(evidence, stride)] for stride in self.strides]


def resize_evidence(evidence: Tensor, stride: int) -> Tensor:
    """Average maps at `EVIDENCE_STRIDE` down to a coarser stride, or interpolate to a finer one."""
    # By strides and not by sizes: an exported network then takes images of any size.
    if stride >= EVIDENCE_STRIDE:
        return F.avg_pool2d(evidence, stride // EVIDENCE_STRIDE)
    scale = EVIDENCE_STRIDE / stride
    return F.interpolate(evidence, scale_factor=scale, mode="bilinear", align_corners=False)

"""Skip connections between the coarse and the fine branch, each a module that is built or not."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dxseg.models.coarse_branch import EVIDENCE_STRIDE, CoarseOutput


class FeatureFusion(nn.Module):
    """Short skip: f_fuse = W (f_i + f_k concatenated) + b, W of size C x 2C (paper's equation).

    One 1x1 convolution a level, initialised to the mean of its two inputs, so that training
    starts from a sensible fusion.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        """Build a fusion for each of ``channels``, the widths of the deepest levels."""
        super().__init__()
        fusions = [nn.Conv2d(2 * c, c, 1, bias=True) for c in channels]
        for fusion, width in zip(fusions, channels, strict=True):
            half = torch.eye(width) / 2
            mean = torch.cat([half, half], dim=1)[:, :, None, None]
            fusion.load_state_dict({"weight": mean, "bias": torch.zeros(width)})
        self.fusions = nn.ModuleList(fusions)

    def forward(self, fine: Sequence[Tensor], coarse: Sequence[Tensor]) -> list[Tensor]:
        """Levels s_l and c_l, each (B, C_l, h, w), to g_l of the same size.

        Finer levels without a fusion stay as the fine branch has them.
        """
        own = len(fine) - len(self.fusions)
        fused = [
            fusion(torch.cat([s, c], dim=1))
            for fusion, s, c in zip(self.fusions, fine[own:], coarse[own:], strict=True)
        ]
        return [*fine[:own], *fused]


class NoFeatureShare(nn.Module):
    """Ablation: the fine branch keeps its own features."""

    def forward(self, fine: Sequence[Tensor], coarse: Sequence[Tensor]) -> list[Tensor]:  # noqa: ARG002
        """The fine levels, unchanged."""
        return list(fine)


class ResolutionCompensationSkip(nn.Module):
    """The fused features enter the decoder at every resolution (paper's name, our reading)."""

    def forward(self, fine: Sequence[Tensor], fused: Sequence[Tensor]) -> list[Tensor]:  # noqa: ARG002
        """What the decoder receives: g_l at every level."""
        return list(fused)


class NoResolutionCompensation(nn.Module):
    """Ablation: fusion reaches the decoder through the deepest level only."""

    def forward(self, fine: Sequence[Tensor], fused: Sequence[Tensor]) -> list[Tensor]:
        """What the decoder receives: s_l, and g_l at the deepest level."""
        return [*fine[:-1], fused[-1]]


class LongSkip(nn.Module):
    """Coarse decoder features u_l enter the fine decoder at each level (paper's name, our reading).

    Attributes:
        channels: channels added at each encoder level, finest first; the deepest level, where the
            coarse decoder has no output of its own, and levels finer than it goes get none.
    """

    def __init__(self, strides: Sequence[int], coarse_channels: dict[int, int]) -> None:
        super().__init__()
        self.strides = tuple(strides)
        self.channels = [coarse_channels.get(stride, 0) for stride in strides]

    def forward(self, coarse: CoarseOutput, evidence: Tensor) -> list[list[Tensor]]:  # noqa: ARG002
        """The tensors to concatenate at each level, finest first."""
        decoded = coarse.decoder_features
        return [[decoded[stride]] if stride in decoded else [] for stride in self.strides]


class EvidencePrompt(nn.Module):
    """The diagnosis made spatial: evidence maps enter every level (ours).

    Attributes:
        channels: one channel a label at each encoder level.
    """

    def __init__(self, strides: Sequence[int], labels: int) -> None:
        super().__init__()
        self.strides = tuple(strides)
        self.channels = [labels] * len(strides)

    def forward(self, coarse: CoarseOutput, evidence: Tensor) -> list[list[Tensor]]:  # noqa: ARG002
        """Evidence (B, L, h, w) at the size of each level, finest first."""
        return [[_at_stride(evidence, stride)] for stride in self.strides]


def _at_stride(evidence: Tensor, stride: int) -> Tensor:
    """Average down to a coarser level, interpolate up to a finer one."""
    # By strides and not by sizes: an exported network then takes images of any size.
    if stride >= EVIDENCE_STRIDE:
        return F.avg_pool2d(evidence, stride // EVIDENCE_STRIDE)
    scale = EVIDENCE_STRIDE / stride
    return F.interpolate(evidence, scale_factor=scale, mode="bilinear", align_corners=False)

"""Two encoders with common first levels, computed once and frozen, so that the second costs less.

Ours, not the paper's. Early levels of two encoders that start from the same weights and see the
same image stay much alike; training changes mostly the deeper ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from timm.models import FeatureListNet
from torch import Tensor, nn

from dxseg.errors import UsageError
from dxseg.models.encoder import PyramidEncoder


class EncoderTail(nn.Module):
    """The levels of an encoder one by one, without the first ones if they come from another one.

    Attributes:
        shared: Number of levels that come from the other encoder, 0 for none.
        channels: Channels of all levels, finest first, the shared ones included.
        strides: Their strides.
    """

    def __init__(self, encoder: PyramidEncoder, shared: int) -> None:
        """Take the later modules of `encoder`, weights included.

        Raises:
            UsageError: The backbone cannot be split, or no level would be left.
        """
        super().__init__()
        levels = split_into_stages(encoder)
        if shared >= len(levels):
            raise UsageError(
                f"model.shared_encoder_levels = {shared}: {encoder.backbone_name} has "
                f"{len(levels)} levels, and at least one must be the fine encoder's own; "
                f"choose {len(levels) - 1} or fewer"
            )
        self.shared = shared
        self.channels = encoder.channels
        self.strides = encoder.strides
        self.levels = nn.ModuleList(levels[shared:])

    def forward(self, feature: Tensor) -> list[Tensor]:
        """Compute the deeper levels, finest first, from the deepest shared one (B, C, h, w)."""
        features = []
        for level in self.levels:
            feature = level(feature)
            features.append(feature)
        return features


class ChannelsLast(nn.Module):
    """(B, C, H, W) to (B, H, W, C)."""

    def forward(self, x: Tensor) -> Tensor:
        """Permute."""
        return x.permute(0, 2, 3, 1)


class ChannelsFirst(nn.Module):
    """(B, H, W, C) to (B, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        """Permute."""
        return x.permute(0, 3, 1, 2).contiguous()


def split_into_stages(encoder: PyramidEncoder) -> list[nn.Sequential]:
    """Split an encoder into a chain: the image to its first level, and each level to the next.

    The modules are the encoder's own, not copies.

    Raises:
        UsageError: timm does not build this backbone as a chain of modules.
    """
    strides = encoder.body.feature_info.reduction()  # type: ignore[union-attr, operator]
    levels: list[nn.Sequential] = []
    pending: list[nn.Module] = []
    ends = 0
    for module, ends_level in _chain(encoder):
        pending.append(module)
        if not ends_level:
            continue
        ends += 1
        if strides[ends - 1] >= 2:
            levels.append(nn.Sequential(*_channels_first(pending, encoder, is_first=not levels)))
            pending = []
    return levels


def _channels_first(
    modules: list[nn.Module], encoder: PyramidEncoder, *, is_first: bool
) -> list[nn.Module]:
    """Wrap modules that compute channels last, so that input and output are channels first."""
    if not encoder.channels_last_output:
        return modules
    before = [] if is_first else [ChannelsLast()]
    return [*before, *modules, ChannelsFirst()]


def _chain(encoder: PyramidEncoder) -> Iterator[tuple[nn.Module, bool]]:
    """Yield the modules of a body in order, each with whether its output is a timm feature."""
    body: Any = encoder.body
    if isinstance(body, FeatureListNet):
        for name, module in body.items():
            yield module, name in body.return_layers
    elif hasattr(body, "conv_stem") and getattr(body, "feature_hooks", True) is None:
        # timm's EfficientNet and MobileNet families, whose features are numbered by block.
        stem = [m for name, m in body.named_children() if name != "blocks"]
        ends = body._stage_out_idx
        yield nn.Sequential(*stem), 0 in ends
        for number, block in enumerate(body.blocks, start=1):
            yield block, number in ends
    else:
        raise UsageError(
            f"model.shared_encoder_levels, model.skips.fuse_in_encoder: timm builds "
            f"{encoder.backbone_name!r} as {type(body).__name__}, not as a chain of levels that "
            "could be split; leave both options out, or choose a backbone such as "
            "tf_efficientnet_lite0, resnet18 or swinv2_tiny_window8_256"
        )

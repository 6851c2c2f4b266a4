"""Backbones of a layer a level, for what takes long per layer; importing registers them."""

from __future__ import annotations

from typing import Any

from timm.models import FeatureListNet, register_model
from timm.models.swin_transformer_v2 import swinv2_tiny_window8_256
from torch import nn

WIDTHS = (8, 12, 16, 24, 32)


class Convolutions(nn.Module):
    """A pyramid of strides 2 to 32."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.feature_info = []
        for level, width in enumerate(WIDTHS):
            convolution = nn.Conv2d(in_channels, width, 3, stride=2, padding=1, bias=False)
            layers = nn.Sequential(convolution, nn.BatchNorm2d(width), nn.ReLU())
            self.add_module(f"level{level}", layers)
            self.feature_info.append(
                {"module": f"level{level}", "num_chs": width, "reduction": 2 << level}
            )
            in_channels = width


@register_model
def plain_convolutions(pretrained: bool = False, in_chans: int = 3, **_: Any) -> nn.Module:
    """What `timm.create_model` calls; there are no weights, and nothing but features."""
    return FeatureListNet(Convolutions(in_chans), out_indices=tuple(range(len(WIDTHS))))


@register_model
def small_swin(pretrained: bool = False, **options: Any) -> nn.Module:
    """Swin-T v2, narrow: nothing at stride 2, channels last, and no weights."""
    small = {"embed_dim": 24, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 4, 8)}
    return swinv2_tiny_window8_256(**(options | small))

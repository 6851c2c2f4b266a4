"""Encoders: any timm backbone, with one layout, one order and named strides."""

from __future__ import annotations

from typing import Any

import timm
import torch
from torch import Tensor, nn

from dxseg.errors import UsageError


class PyramidEncoder(nn.Module):
    """Multi-scale features of a timm `features_only` backbone.

    The paper (Chen et al., arXiv 2406.14958) uses a Swin-T v2 pyramid of four levels; every timm
    backbone that offers `features_only` works. timm's Swin family returns features channels last;
    here every level is (B, C, H, W).

    Attributes:
        backbone_name: Name in timm.
        in_channels: Channels of the images.
        channels: Channels of each level, finest first.
        strides: Input pixels per feature pixel of each level, finest first.
        mean: Per-channel mean of the pretraining images, scaled to [0, 1].
        std: Per-channel standard deviation of the same.
        channels_last_output: Whether the backbone itself computes (B, H, W, C).
    """

    def __init__(self, backbone: str, in_channels: int) -> None:
        """Build the encoder with random weights; see `dxseg.models.weights` for pretrained ones.

        Raises:
            UsageError: timm has no such backbone, or its features do not go down to stride 32.
        """
        super().__init__()
        self.backbone_name = backbone
        self.in_channels = in_channels
        self.body = _create_body(backbone, in_channels)
        info: Any = self.body.feature_info
        keep = [i for i, stride in enumerate(info.reduction()) if stride >= 2]
        self._keep = keep
        self.channels: tuple[int, ...] = tuple(info.channels()[i] for i in keep)
        self.strides: tuple[int, ...] = tuple(info.reduction()[i] for i in keep)
        if not keep or self.strides != tuple(32 >> i for i in reversed(range(len(keep)))):
            raise UsageError(
                f"model.backbone = {backbone!r}: its features have strides {info.reduction()}; "
                "choose a backbone whose strides double up to 32, e.g. resnet18"
            )
        self.channels_last_output = str(getattr(self.body, "output_fmt", "NCHW")).endswith("NHWC")
        cfg = timm.get_pretrained_cfg(backbone)
        self.mean = _match_channels(cfg.mean if cfg else (0.5,) * 3, in_channels)
        self.std = _match_channels(cfg.std if cfg else (0.5,) * 3, in_channels)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Features (B, C_l, H / stride_l, W / stride_l), finest first; H, W multiples of 32."""
        levels = self.body(x)
        features = [levels[i] for i in self._keep]
        if self.channels_last_output:
            features = [feature.permute(0, 3, 1, 2).contiguous() for feature in features]
        return features


def _create_body(backbone: str, in_channels: int) -> nn.Module:
    if ":" in backbone or not timm.is_model(backbone):  # "hf-hub:..." would be downloaded
        raise UsageError(
            f"model.backbone = {backbone!r}: unknown to timm {timm.__version__}; choose one of "
            "timm.list_models() that supports features_only"
        )
    arguments: dict[str, Any] = {
        "pretrained": False,
        "features_only": True,
        "in_chans": in_channels,
    }
    try:
        try:
            body = timm.create_model(backbone, strict_img_size=False, **arguments)
        except TypeError:  # only windowed transformers take strict_img_size
            body = timm.create_model(backbone, **arguments)
    except (RuntimeError, TypeError, ValueError, AttributeError, AssertionError) as error:
        raise UsageError(
            f"model.backbone = {backbone!r}: timm cannot build it with features_only ({error}); "
            "choose one of timm.list_models() that supports features_only"
        ) from error
    return body


def _match_channels(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    """Statistics for RGB pretraining, averaged where the images are not RGB."""
    if len(values) == channels:
        return tuple(values)
    return (sum(values) / len(values),) * channels


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Zero-pad (B, C, H, W) at the bottom and the right to a multiple of `multiple`."""
    height, width = x.shape[-2:]
    bottom, right = -height % multiple, -width % multiple
    if not (bottom or right):
        return x
    return torch.nn.functional.pad(x, (0, right, 0, bottom))

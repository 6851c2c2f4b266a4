"""The decoder of both U-shapes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

DECODER_CHANNELS = (128, 64, 32, 16, 8)
"""Default widths of the decoder blocks at strides 16, 8, 4, 2 and 1."""


def conv_block(in_channels: int, out_channels: int) -> nn.Sequential:
    """3x3 convolution, batch normalization, ReLU."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


class DecoderBlock(nn.Module):
    """Up-sample by two, concatenate the skips of this stride, two convolutions."""

    def __init__(self, in_channels: int, skip_channels: int, out_channels: int) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            conv_block(in_channels + skip_channels, out_channels),
            conv_block(out_channels, out_channels),
        )

    def forward(self, x: Tensor, skips: Sequence[Tensor]) -> Tensor:
        """(B, C, H, W) and tensors at (2H, 2W) to (B, out_channels, 2H, 2W)."""
        x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        return self.convolutions(torch.cat([x, *skips], dim=1))  # type: ignore[no-any-return]


class UnetDecoder(nn.Module):
    """Top-down path of a U-Net (Ronneberger et al. 2015) whose every level can take prompts.

    Blocks go from stride 16 down to stride 1 or, with fewer `decoder_channels`, to the stride
    they reach; where the encoder has no level at a stride, the block only up-samples.

    Attributes:
        channels: Output channels by stride.
    """

    def __init__(
        self,
        encoder_channels: Sequence[int],
        encoder_strides: Sequence[int],
        decoder_channels: Sequence[int],
        prompt_channels: Sequence[Sequence[int]] = (),
    ) -> None:
        """Build the blocks.

        Args:
            encoder_channels: Channels of the encoder's levels, finest first.
            encoder_strides: Their strides, finest first, the last one a power of two.
            decoder_channels: Widths of the blocks, deepest first.
            prompt_channels: For each prompt, the channels that it adds at each encoder level,
                finest first.
        """
        super().__init__()
        levels = zip(encoder_strides, encoder_channels, *prompt_channels, strict=True)
        skip_channels = {stride: sum(channels) for stride, *channels in levels}
        stride = encoder_strides[-1]
        width = skip_channels[stride]
        self.encoder_strides = tuple(encoder_strides)
        self.channels: dict[int, int] = {}
        blocks: dict[str, nn.Module] = {}
        for out_channels in decoder_channels:
            stride //= 2
            blocks[str(stride)] = DecoderBlock(width, skip_channels.get(stride, 0), out_channels)
            self.channels[stride] = width = out_channels
        self.blocks = nn.ModuleDict(blocks)

    def forward(
        self, features: Sequence[Tensor], prompts: Sequence[Sequence[Sequence[Tensor]]] = ()
    ) -> dict[int, Tensor]:
        """Decode.

        Args:
            features: Encoder levels (B, C_l, H/s_l, W/s_l), finest first.
            prompts: For each prompt and encoder level, tensors of the level's size to concatenate.

        Returns:
            The output of every block by stride.
        """
        skips = {
            stride: [feature, *(tensor for level in prompt_levels for tensor in level)]
            for stride, feature, *prompt_levels in zip(
                self.encoder_strides, features, *prompts, strict=True
            )
        }
        x = torch.cat(skips[self.encoder_strides[-1]], dim=1)
        outputs: dict[int, Tensor] = {}
        for name, block in self.blocks.items():
            x = block(x, skips.get(int(name), []))
            outputs[int(name)] = x
        return outputs

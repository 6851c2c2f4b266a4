"""The decoder of both U-shapes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def conv_block(in_channels: int, out_channels: int) -> nn.Sequential:
    """3x3 convolution, batch normalisation, ReLU."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


class DecoderBlock(nn.Module):
    """Up-sample by two, concatenate what enters at this stride, two convolutions."""

    def __init__(self, in_channels: int, skip_channels: int, out_channels: int) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            conv_block(in_channels + skip_channels, out_channels),
            conv_block(out_channels, out_channels),
        )

    def forward(self, x: Tensor, entering: Sequence[Tensor]) -> Tensor:
        """(B, C, H, W) and tensors at (2H, 2W) to (B, out_channels, 2H, 2W)."""
        x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        return self.convolutions(torch.cat([x, *entering], dim=1))  # type: ignore[no-any-return]


class UnetDecoder(nn.Module):
    """Top-down path of a U-Net (Ronneberger et al. 2015) whose every level can take prompts.

    Blocks go from stride 16 down to stride 1 or, with fewer ``decoder_channels``, to the stride
    they reach; where the encoder has no level at a stride, the block only up-samples.

    Attributes:
        channels: output channels by stride.
    """

    def __init__(
        self,
        encoder_channels: Sequence[int],
        encoder_strides: Sequence[int],
        decoder_channels: Sequence[int],
        prompt_channels: Sequence[int],
    ) -> None:
        """Build the blocks.

        Args:
            encoder_channels: channels of the encoder's levels, finest first.
            encoder_strides: their strides, finest first, the last one a power of two.
            decoder_channels: widths of the blocks, deepest first.
            prompt_channels: channels that prompts add at each encoder level, finest first.
        """
        super().__init__()
        entering = {
            stride: channels + prompt
            for stride, channels, prompt in zip(
                encoder_strides, encoder_channels, prompt_channels, strict=True
            )
        }
        stride = encoder_strides[-1]
        width = entering[stride]
        self.encoder_strides = tuple(encoder_strides)
        self.channels: dict[int, int] = {}
        blocks: dict[str, nn.Module] = {}
        for out_channels in decoder_channels:
            stride //= 2
            blocks[str(stride)] = DecoderBlock(width, entering.get(stride, 0), out_channels)
            self.channels[stride] = width = out_channels
        self.blocks = nn.ModuleDict(blocks)

    def forward(
        self, features: Sequence[Tensor], prompts: Sequence[Sequence[Tensor]]
    ) -> dict[int, Tensor]:
        """Decode.

        Args:
            features: encoder levels (B, C_l, H/s_l, W/s_l), finest first.
            prompts: for each level, tensors of the same size to concatenate.

        Returns:
            The output of every block by stride.
        """
        entering = {
            stride: [feature, *extra]
            for stride, feature, extra in zip(self.encoder_strides, features, prompts, strict=True)
        }
        x = torch.cat(entering[self.encoder_strides[-1]], dim=1)
        outputs: dict[int, Tensor] = {}
        for name, block in self.blocks.items():
            x = block(x, entering.get(int(name), []))
            outputs[int(name)] = x
        return outputs


def no_prompts(levels: int) -> list[list[Tensor]]:
    """Nothing entering beside the encoder's own features."""
    return [[] for _ in range(levels)]

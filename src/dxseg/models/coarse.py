"""Stage 1: the coarse branch, a U-shaped classifier that yields pyramids and evidence maps."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dxseg.models.decoder import UDecoder, no_prompts
from dxseg.models.pyramid import PyramidEncoder


@dataclass(frozen=True)
class CoarseOutput:
    """What the coarse branch knows of an image.

    Attributes:
        encoder_features: c_l, (B, C_l, H/s_l, W/s_l), finest first.
        decoder_features: u_l by stride, from the finest encoder stride to 16.
        evidence_logits: A, (B, L, h, w) at the finest encoder stride, one map a label.
        global_logits: (B, L), from global average pooling of the deepest feature.
        pooled_logits: (B, L), the evidence maps pooled by log-mean-exp.
    """

    encoder_features: list[Tensor]
    decoder_features: dict[int, Tensor]
    evidence_logits: Tensor
    global_logits: Tensor
    pooled_logits: Tensor

    @property
    def label_logits(self) -> Tensor:
        """(B, L): the mean of both heads, the branch's answer for the image."""
        return (self.global_logits + self.pooled_logits) / 2


class CoarseBranch(nn.Module):
    """U-shaped classification network of stage 1 (paper: abstract; the heads are ours).

    An encoder, a top-down decoder and two image-level heads. The evidence head is a 1x1
    convolution on the finest decoder feature; pooling its maps by log-sum-exp (Pinheiro and
    Collobert 2015) lets a small lesion decide the label of an image.
    """

    def __init__(
        self,
        encoder: PyramidEncoder,
        decoder_channels: tuple[int, ...],
        labels: int,
        multi_label: bool,
    ) -> None:
        """Wire the branch; ``decoder_channels`` finer than the encoder are not used."""
        super().__init__()
        self.encoder = encoder
        self.multi_label = multi_label
        depth = int(math.log2(encoder.strides[-1] // encoder.strides[0]))
        levels = len(encoder.channels)
        self.decoder = UDecoder(
            encoder.channels, encoder.strides, decoder_channels[:depth], [0] * levels
        )
        self.finest = encoder.strides[0]
        self.global_head = nn.Linear(encoder.channels[-1], labels)
        self.evidence_head = nn.Conv2d(self.decoder.channels[self.finest], labels, 1)

    def forward(self, x: Tensor) -> CoarseOutput:
        """Look at normalised images (B, C, H, W), H and W multiples of 32."""
        features = self.encoder(x)
        decoded = self.decoder(features, no_prompts(len(features)))
        evidence = self.evidence_head(decoded[self.finest])
        return CoarseOutput(
            encoder_features=features,
            decoder_features=decoded,
            evidence_logits=evidence,
            global_logits=self.global_head(features[-1].mean(dim=(2, 3))),
            pooled_logits=log_mean_exp(evidence),
        )

    def evidence(self, output: CoarseOutput) -> Tensor:
        """Evidence maps as probabilities (B, L, h, w): softmax over labels, or one sigmoid each."""
        logits = output.evidence_logits
        return logits.sigmoid() if self.multi_label else logits.softmax(dim=1)


def log_mean_exp(maps: Tensor) -> Tensor:
    """Smooth maximum over space, (B, L, h, w) to (B, L); a constant map pools to its value."""
    area = maps.shape[-2] * maps.shape[-1]
    return torch.logsumexp(maps.flatten(2), dim=2) - math.log(area)

"""Stage 1: the coarse branch, a U-shaped classifier with class activation maps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.export import register_dataclass
from torch.nn import functional as F

from dxseg.models.decoder import DECODER_CHANNELS, UnetDecoder
from dxseg.models.weights import Weights, create_encoder

EVIDENCE_STRIDE = 4
"""Stride of the evidence maps. Maps at stride 2 followed texture rather than lesions: on BUSI's
validation images, pixel AUROC against the masks was 0.78 there and about 0.9 at strides 4 to 16."""


@dataclass(frozen=True)
class CoarseOutput:
    """Output of the coarse branch for a batch.

    Attributes:
        encoder_features: c_l, (B, C_l, H/s_l, W/s_l), finest first.
        decoder_features: u_l by stride, from `EVIDENCE_STRIDE` to 16.
        evidence_logits: A, (B, L, h, w) at `EVIDENCE_STRIDE`, one map per label, relative to the
            lesion-free label where there is one.
        global_logits: (B, L), from global average pooling of the deepest feature.
        pooled_logits: (B, L), the evidence maps pooled over space.
    """

    encoder_features: list[Tensor]
    decoder_features: dict[int, Tensor]
    evidence_logits: Tensor
    global_logits: Tensor
    pooled_logits: Tensor

    @property
    def label_logits(self) -> Tensor:
        """(B, L): the mean of both heads."""
        return (self.global_logits + self.pooled_logits) / 2


# `torch.export` then returns it, too, and can save the program.
register_dataclass(CoarseOutput, serialized_type_name="dxseg.CoarseOutput")


class CoarseBranch(nn.Module):
    """U-shaped classification network of stage 1 (paper: abstract; the heads are ours).

    An encoder, a top-down decoder and two image-level heads: one on the globally averaged deepest
    feature, one on evidence maps, the sum of 1x1 convolutions on the decoder's levels.

    Attributes:
        encoder: The encoder.
        labels: Number of image-level labels.
        decoder_channels: Widths of the decoder blocks, those that are not used included.
        multi_label: Whether an image can have several labels.
        lesion_free: Positions of the labels that mean: no lesion.
    """

    def __init__(
        self,
        backbone: str,
        labels: int,
        *,
        in_channels: int = 3,
        decoder_channels: Sequence[int] = DECODER_CHANNELS,
        multi_label: bool = False,
        lesion_free: Sequence[int] = (),
        encoder_weights: Weights | None = "imagenet",
    ) -> None:
        """Build the branch.

        Args:
            backbone: Name of the encoder in timm; its levels reach stride 4 or finer, and 32.
            labels: Number of image-level labels.
            in_channels: Channels of the images.
            decoder_channels: Widths of the decoder blocks from stride 16 on; those beyond stride 4
                are not used.
            multi_label: Whether an image can have several labels.
            lesion_free: Positions of the labels that mean: no lesion.
            encoder_weights: Initial weights of the encoder; None for random ones.

        Raises:
            UsageError: The backbone does not fit.
        """
        super().__init__()
        self.encoder = create_encoder(backbone, in_channels, encoder_weights)
        self.labels = labels
        self.decoder_channels = tuple(decoder_channels)
        self.multi_label = multi_label
        self.lesion_free = tuple(lesion_free)
        channels, strides = self.encoder.channels, self.encoder.strides
        depth = int(math.log2(strides[-1] // EVIDENCE_STRIDE))
        self.decoder = UnetDecoder(channels, strides, decoder_channels[:depth])
        self.global_head = nn.Linear(channels[-1], labels)
        self.evidence_heads = nn.ModuleDict(
            {str(s): nn.Conv2d(width, labels, 1) for s, width in self.decoder.channels.items()}
        )

    def forward(self, x: Tensor) -> CoarseOutput:
        """Classify normalized images (B, C, H, W), H and W multiples of 32."""
        features = self.encoder(x)
        decoded = self.decoder(features)
        evidence = self._evidence_logits(decoded)
        return CoarseOutput(
            encoder_features=features,
            decoder_features=decoded,
            evidence_logits=evidence,
            global_logits=self.global_head(features[-1].mean(dim=(2, 3))),
            pooled_logits=logmeanexp(evidence),
        )

    def evidence(self, output: CoarseOutput, label_prompt: Tensor | None = None) -> Tensor:
        """Compute evidence maps, a class activation map (CAM) per label: (B, L, h, w) in 0..1.

        A map is the probability of its label for the image, times the sigmoid of how far the
        logit of a place exceeds the pooled logit of its image. A softmax at each place would be
        close to 1 over most of an image that has a lesion; relative to its image, evidence alone
        outlines many lesions.

        Args:
            output: The branch's output for the images.
            label_prompt: Labels as in `dxseg.models.segmentation_model.SegmentationModel`. They
                replace the branch's own probabilities: only evidence of the prompted labels
                remains, at full strength.
        """
        logits = output.label_logits
        present = logits.sigmoid() if self.multi_label else logits.softmax(dim=1)
        if label_prompt is not None:
            present = _apply_prompt(present, label_prompt, self.multi_label)
        excess = output.evidence_logits - output.pooled_logits[:, :, None, None]
        return present[:, :, None, None] * excess.sigmoid()

    def _evidence_logits(self, decoded: dict[int, Tensor]) -> Tensor:
        """Sum the maps of all decoder levels, relative to the lesion-free label.

        Lesion-free is what remains when no place shows a lesion: its own map is the zero of the
        others, pixel by pixel. Pooled by a smooth maximum over space (log-sum-exp, Pinheiro and
        Collobert 2015), one place can then decide that an image has a lesion, as in
        multiple-instance learning.
        """
        finest = decoded[EVIDENCE_STRIDE]
        size = (finest.shape[-2], finest.shape[-1])
        maps = [
            F.interpolate(head(decoded[int(stride)]), size, mode="bilinear", align_corners=False)
            for stride, head in self.evidence_heads.items()
        ]
        # Not stacked: that would leave the channels-last layout, and every concatenation copy.
        evidence = sum(maps[1:], start=maps[0])
        if self.lesion_free and not self.multi_label:
            free = evidence[:, list(self.lesion_free)].logsumexp(dim=1, keepdim=True)
            evidence = evidence - free
        return evidence


def _apply_prompt(present: Tensor, label_prompt: Tensor, multi_label: bool) -> Tensor:
    """Set label probabilities (B, L) to 0 and 1 where the prompt has a label."""
    if multi_label:
        return torch.where(label_prompt.isnan(), present, label_prompt.to(present.dtype))
    certain = F.one_hot(label_prompt.clamp(min=0), present.shape[1]).to(present.dtype)
    return torch.where(label_prompt[:, None] >= 0, certain, present)


def logmeanexp(values: Tensor, dims: tuple[int, ...] = (-2, -1)) -> Tensor:
    """Smooth maximum over dimensions, by default those of space; equal values keep their value."""
    # The logarithm of the count as a tensor: an exported network then takes images of any size.
    return values.logsumexp(dim=dims) - torch.zeros_like(values).logsumexp(dim=dims)

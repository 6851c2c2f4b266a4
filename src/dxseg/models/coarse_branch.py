"""Stage 1: the coarse branch, a U-shaped classifier that yields pyramids and evidence maps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dxseg.models.decoder import UnetDecoder, no_prompts
from dxseg.models.encoder import PyramidEncoder

EVIDENCE_STRIDE = 4
"""Stride of the evidence maps. Maps at stride 2 followed texture rather than lesions: on BUSI's
validation images, pixel AUROC against the masks was 0.78 there and about 0.9 at strides 4 to 16."""


@dataclass(frozen=True)
class CoarseOutput:
    """What the coarse branch knows of an image.

    Attributes:
        encoder_features: c_l, (B, C_l, H/s_l, W/s_l), finest first.
        decoder_features: u_l by stride, from `EVIDENCE_STRIDE` to 16.
        evidence_logits: A, (B, L, h, w) at `EVIDENCE_STRIDE`, one map a label, measured from the
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
        """(B, L): the mean of both heads, the branch's answer for the image."""
        return (self.global_logits + self.pooled_logits) / 2


class CoarseBranch(nn.Module):
    """U-shaped classification network of stage 1 (paper: abstract; the heads are ours).

    An encoder, a top-down decoder and two image-level heads: one on the globally averaged deepest
    feature, one on evidence maps, which 1x1 convolutions on the decoder's levels add up.
    """

    def __init__(
        self,
        encoder: PyramidEncoder,
        decoder_channels: Sequence[int],
        labels: int,
        *,
        multi_label: bool = False,
        lesion_free: Sequence[int] = (),
    ) -> None:
        """Wire the branch.

        Args:
            encoder: its levels reach stride 4 or finer, and 32.
            decoder_channels: widths from stride 16 on; those beyond stride 4 are not used.
            labels: L.
            multi_label: whether an image can have several labels.
            lesion_free: positions of the labels that mean: no lesion.
        """
        super().__init__()
        self.encoder = encoder
        self.multi_label = multi_label
        self.lesion_free = tuple(lesion_free)
        depth = int(math.log2(encoder.strides[-1] // EVIDENCE_STRIDE))
        self.decoder = UnetDecoder(
            encoder.channels, encoder.strides, decoder_channels[:depth], [0] * len(encoder.channels)
        )
        self.global_head = nn.Linear(encoder.channels[-1], labels)
        self.evidence_heads = nn.ModuleDict(
            {str(s): nn.Conv2d(width, labels, 1) for s, width in self.decoder.channels.items()}
        )

    def forward(self, x: Tensor) -> CoarseOutput:
        """Look at normalised images (B, C, H, W), H and W multiples of 32."""
        features = self.encoder(x)
        decoded = self.decoder(features, no_prompts(len(features)))
        evidence = self._evidence_logits(decoded)
        return CoarseOutput(
            encoder_features=features,
            decoder_features=decoded,
            evidence_logits=evidence,
            global_logits=self.global_head(features[-1].mean(dim=(2, 3))),
            pooled_logits=logmeanexp(evidence),
        )

    def evidence(self, output: CoarseOutput, known: Tensor | None = None) -> Tensor:
        """What the image is thought to have, and where: (B, L, h, w) in 0..1.

        The probability of each label for the image, times the sigmoid of how far a place exceeds
        the pooled evidence of its image. A softmax at each place would be close to 1 over most of
        an image that has a lesion; relative to its image, evidence alone outlines many lesions.

        Args:
            output: what the branch sees.
            known: labels as in `dxseg.models.segmentation_model.SegmentationModel`. A known label
                stands in for the branch's own probabilities (label prompt): only evidence of what
                the image is known to have remains, at full strength.
        """
        logits = output.label_logits
        present = logits.sigmoid() if self.multi_label else logits.softmax(dim=1)
        if known is not None:
            present = _replaced(present, known, self.multi_label)
        excess = output.evidence_logits - output.pooled_logits[:, :, None, None]
        return present[:, :, None, None] * excess.sigmoid()

    def _evidence_logits(self, decoded: dict[int, Tensor]) -> Tensor:
        """Maps added up over decoder levels, and measured from the lesion-free label.

        Lesion-free is what is left when no place shows a lesion: its own map is the zero of the
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


def _replaced(present: Tensor, known: Tensor, multi_label: bool) -> Tensor:
    """Label probabilities (B, L), with 0 and 1 where the label is known."""
    if multi_label:
        return torch.where(known.isnan(), present, known.to(present.dtype))
    certain = F.one_hot(known.clamp(min=0), present.shape[1]).to(present.dtype)
    return torch.where(known[:, None] >= 0, certain, present)


def logmeanexp(values: Tensor, dims: tuple[int, ...] = (-2, -1)) -> Tensor:
    """Smooth maximum over dimensions, by default those of space; equal values keep their value."""
    # The logarithm of the count as a tensor: an exported network then takes images of any size.
    return values.logsumexp(dim=dims) - torch.zeros_like(values).logsumexp(dim=dims)

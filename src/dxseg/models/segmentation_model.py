"""The contract of every segmenter."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from dxseg.models.encoder import pad_to_multiple

STRIDE = 32
"""Deepest stride of the encoders in use: inputs are padded to a multiple of it."""


@dataclass(frozen=True)
class SegmenterOutput:
    """What a segmenter says of a batch.

    Attributes:
        mask_logits: (B, K, H, W) at input size, one sigmoid a mask class.
        label_logits: (B, L) image-level logits, or None for a network without a label head; the
            network's own answer, also where the label is known.
        evidence: (B, L, h, w) evidence probabilities, or None.
        features: (B, F, h, w) deepest level of the encoder that masks train, at stride `STRIDE`;
            None from an exported network.
    """

    mask_logits: Tensor
    label_logits: Tensor | None = None
    evidence: Tensor | None = None
    features: Tensor | None = None


class SegmentationModel(nn.Module):
    """Base of all segmenters: any input size in, logits of that size out."""

    @property
    def fine_encoder(self) -> nn.Module:
        """The encoder that stage 2 trains."""
        raise NotImplementedError

    def outputs(self, x: Tensor, known: Tensor | None = None) -> SegmenterOutput:
        """Segment normalised images (B, C, H, W).

        Sizes that are no multiple of 32 are zero-padded at the bottom and right, and cropped back.

        Args:
            x: the images.
            known: label prompt, the diagnoses that are known without looking: (B,) int64 label
                positions, -1 where unknown, or for multi-label (B, L) of 0, 1 and NaN (unknown).
                None: all unknown. Networks without a label branch do not look at it.
        """
        padded = pad_to_multiple(x, STRIDE)
        return crop_output(self._padded_outputs(padded, known), x, padded)

    def forward(self, x: Tensor, known: Tensor | None = None) -> Tensor:
        """Mask logits (B, K, H, W) of normalised images (B, C, H, W); see :meth:`outputs`."""
        return self.outputs(x, known).mask_logits

    def _padded_outputs(self, x: Tensor, known: Tensor | None) -> SegmenterOutput:
        raise NotImplementedError


def crop_output(output: SegmenterOutput, x: Tensor, padded: Tensor) -> SegmenterOutput:
    """The part of what was said of ``padded`` that covers ``x``, the image without its padding."""
    if padded is x:
        return output
    height, width = x.shape[-2:]
    masks = output.mask_logits[..., :height, :width]
    evidence, features = (_crop(maps, x, padded) for maps in (output.evidence, output.features))
    return SegmenterOutput(masks, output.label_logits, evidence, features)


def _crop(maps: Tensor | None, x: Tensor, padded: Tensor) -> Tensor | None:
    """The part of low-resolution maps that covers the un-padded input."""
    if maps is None:
        return None
    height = -(-x.shape[-2] * maps.shape[-2] // padded.shape[-2])
    width = -(-x.shape[-1] * maps.shape[-1] // padded.shape[-1])
    return maps[..., :height, :width]

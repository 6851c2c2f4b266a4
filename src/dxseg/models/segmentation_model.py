"""The contract of every segmentation model: any image size in, a typed output of that size out."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor, nn
from torch.export import register_dataclass

from dxseg.models.coarse_branch import CoarseBranch
from dxseg.models.encoder import pad_to_multiple
from dxseg.models.whole_view import WholeView, reduce_image

STRIDE = 32
"""Deepest stride of the encoders: inputs are padded to a multiple of it."""


@dataclass(frozen=True)
class SegmenterOutput:
    """Output of a segmentation model for a batch.

    Attributes:
        mask_logits: (B, K, H, W) at input size, one sigmoid per mask class.
        label_logits: (B, L) image-level logits, or None for a network without a label head. They
            come from the image alone: a label prompt does not change them.
        evidence: (B, L, h, w) class activation maps at stride 4, in 0..1, or None; see
            `dxseg.models.coarse_branch.CoarseBranch.evidence`.
        features: (B, F, h, w) deepest level of the encoder that masks train, at stride `STRIDE`;
            None from an exported network.
    """

    mask_logits: Tensor
    label_logits: Tensor | None = None
    evidence: Tensor | None = None
    features: Tensor | None = None


# `torch.export` then returns it, too, and can save the program.
register_dataclass(SegmenterOutput, serialized_type_name="dxseg.SegmenterOutput")


class SegmentationModel(nn.Module):
    """Base of all segmentation models.

    Attributes:
        encoder: The encoder that masks train.
        coarse_reduction: How many pixels make one, along each axis, of the whole image that is
            classified; masks are of all pixels.
    """

    encoder: nn.Module
    coarse_reduction: int = 1

    def forward(
        self, x: Tensor, label_prompt: Tensor | None = None, whole: WholeView | None = None
    ) -> SegmenterOutput:
        """Segment normalized images.

        Args:
            x: Images (B, C, H, W). Sizes that are no multiple of 32 are zero-padded at the bottom
                and right, and the output is cropped.
            label_prompt: Image-level labels that are known beforehand: (B,) int64 label
                positions, -1 where unknown, or for multi-label (B, L) of 0, 1 and NaN (unknown).
                None: all unknown. Networks without a label branch ignore it.
            whole: From `reduce`: the whole images, if `x` are patches of them, with sides that
                are multiples of 32. None: `x` are whole images.
        """
        if whole is not None:
            return self._forward_padded(x, label_prompt, whole)
        padded = pad_to_multiple(x, STRIDE * self.coarse_reduction)
        whole = WholeView.of(padded, self.coarse_reduction)
        return crop_output(self._forward_padded(padded, label_prompt, whole), x, padded)

    def reduce(self, whole: WholeView) -> WholeView:
        """Reduce whole images of any size, which are not reduced yet, to what is classified."""
        padded = pad_to_multiple(whole.image, STRIDE * self.coarse_reduction)
        image = reduce_image(padded, self.coarse_reduction)
        return replace(whole, image=image, reduction=self.coarse_reduction)

    def load_encoder(self, classifier: CoarseBranch) -> None:
        """Copy the encoder of a trained stage 1, on the same backbone, into `encoder`."""
        raise NotImplementedError

    def _forward_padded(
        self, x: Tensor, label_prompt: Tensor | None, whole: WholeView
    ) -> SegmenterOutput:
        """Segment images whose sides are multiples of `STRIDE`."""
        raise NotImplementedError


def crop_output(output: SegmenterOutput, x: Tensor, padded: Tensor) -> SegmenterOutput:
    """Crop the output for `padded` to `x`, the image without its padding."""
    if padded is x:
        return output
    height, width = x.shape[-2:]
    masks = output.mask_logits[..., :height, :width]
    evidence, features = (_crop(maps, x, padded) for maps in (output.evidence, output.features))
    return SegmenterOutput(masks, output.label_logits, evidence, features)


def _crop(maps: Tensor | None, x: Tensor, padded: Tensor) -> Tensor | None:
    """Crop low-resolution maps to the part that covers the unpadded input."""
    if maps is None:
        return None
    height = -(-x.shape[-2] * maps.shape[-2] // padded.shape[-2])
    width = -(-x.shape[-1] * maps.shape[-1] // padded.shape[-1])
    return maps[..., :height, :width]

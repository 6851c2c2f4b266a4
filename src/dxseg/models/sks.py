"""Stage 2: the dual U-shaped segmenter, prompted by a coarse branch through skips."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dxseg.models.coarse_branch import CoarseBranch, CoarseOutput
from dxseg.models.decoder import UnetDecoder
from dxseg.models.encoder import PyramidEncoder
from dxseg.models.heads import init_prior_bias
from dxseg.models.segmentation_model import SegmentationModel, SegmenterOutput
from dxseg.models.shared_encoder import EncoderTail, divide
from dxseg.models.skips import EvidencePrompt, LongSkip


class SKS(SegmentationModel):
    """Skip-and-skip segmenter (Chen et al., arXiv 2406.14958; our reading of its abstract).

    The fine branch looks at the image itself; the coarse branch enters by short skips (fusion of
    the two pyramids) and by prompts that the decoder concatenates (long skip, evidence).
    """

    def __init__(
        self,
        coarse: CoarseBranch,
        encoder: PyramidEncoder | EncoderTail,
        share: nn.Module,
        compensation: nn.Module,
        prompts: Sequence[LongSkip | EvidencePrompt],
        decoder_channels: Sequence[int],
        mask_classes: int,
        coarse_frozen: bool,
    ) -> None:
        """Wire branches and skips; what is left out is simply not among the modules."""
        super().__init__()
        self.coarse = coarse
        self.encoder = encoder
        self.share = share
        self.compensation = compensation
        self.prompts = nn.ModuleList(prompts)
        prompt_channels = [
            sum(prompt.channels[level] for prompt in prompts)
            for level in range(len(encoder.channels))
        ]
        self.decoder = UnetDecoder(
            encoder.channels, encoder.strides, decoder_channels, prompt_channels
        )
        self.head = init_prior_bias(nn.Conv2d(decoder_channels[-1], mask_classes, 3, padding=1))
        self.coarse_frozen = coarse_frozen
        self.coarse.requires_grad_(not coarse_frozen)
        # A module is born in training mode, and Lightning leaves modes as they are: without this
        # the normalisation statistics of the frozen branch would drift away from stage 1.
        self.train(self.training)

    def train(self, mode: bool = True) -> SKS:
        """Training mode for the fine branch; a frozen coarse branch keeps its statistics."""
        super().train(mode)
        if self.coarse_frozen:
            self.coarse.eval()
        return self

    def _forward_coarse(self, x: Tensor) -> CoarseOutput:
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.coarse_frozen):
            output: CoarseOutput = self.coarse(x)
        return output

    def _encode_fine(self, x: Tensor, coarse: CoarseOutput) -> list[Tensor]:  # noqa: ARG002
        """The levels s_l of the fine encoder, finest first."""
        features: list[Tensor] = self.encoder(x)
        return features

    def _forward_padded(self, x: Tensor, label_prompt: Tensor | None) -> SegmenterOutput:
        coarse = self._forward_coarse(x)
        evidence = self.coarse.evidence(coarse, label_prompt)
        fine = self._encode_fine(x, coarse)
        fused = self.share(fine, coarse.encoder_features)
        entering = self.compensation(fine, fused)
        prompts = [prompt(coarse, evidence) for prompt in self.prompts]
        by_level = [[t for p in prompts for t in p[level]] for level in range(len(entering))]
        decoded = self.decoder(entering, by_level)
        masks = self.head(decoded[1])
        return SegmenterOutput(masks, coarse.label_logits, evidence, fine[-1])


class SharedSKS(SKS):
    """SKS whose fine encoder goes on where the shared levels of the coarse one end.

    The shared levels are frozen, statistics included, whether or not the rest of the coarse branch
    learns: two branches would pull them in two directions.
    """

    encoder: EncoderTail

    def __init__(self, *parts: Any, **options: Any) -> None:
        """Wire as :class:`SKS` does; its ``encoder`` is an :class:`EncoderTail`."""
        super().__init__(*parts, **options)
        for level in self._shared_levels():
            level.requires_grad_(False)

    def train(self, mode: bool = True) -> SharedSKS:
        """Training mode; the shared levels keep their statistics."""
        super().train(mode)
        for level in self._shared_levels():
            level.eval()
        return self

    def _shared_levels(self) -> list[nn.Sequential]:
        return divide(self.coarse.encoder)[: self.encoder.shared]

    def _encode_fine(self, x: Tensor, coarse: CoarseOutput) -> list[Tensor]:  # noqa: ARG002
        shared = coarse.encoder_features[: self.encoder.shared]
        own: list[Tensor] = self.encoder(shared[-1])
        return [*shared, *own]

"""Stage 2: the dual U-shaped segmentation network, prompted by a coarse branch through skips."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

from torch import Tensor, nn

from dxseg.errors import UsageError
from dxseg.models.coarse_branch import CoarseBranch, CoarseOutput
from dxseg.models.decoder import DECODER_CHANNELS, UnetDecoder
from dxseg.models.heads import init_prior_bias
from dxseg.models.segmentation_model import SegmentationModel, SegmenterOutput
from dxseg.models.shared_encoder import EncoderTail, split_into_stages
from dxseg.models.skips import FeatureFusion, Fusion, LongSkip, Prompt
from dxseg.models.weights import Weights, create_encoder
from dxseg.models.whole_view import WholeView


class SKS(SegmentationModel):
    """Skip-and-skip segmentation network (Chen et al., arXiv 2406.14958).

    The paper's full text was not available to us; this is our reading of its abstract. The fine
    branch segments the image; the coarse branch enters it by short skips (fusion of the two
    encoders' features) and by prompts that the decoder concatenates.

    Attributes:
        coarse: The stage-1 classifier.
        encoder: The encoder of the fine branch, without the levels that it shares.
        coarse_frozen: Whether the coarse branch keeps its weights and normalization statistics.
        shared_encoder_levels: Number of levels that both encoders share, finest first.
        fuse_in_encoder: Whether the fine encoder goes on from the fused features.
    """

    def __init__(
        self,
        backbone: str,
        labels: int,
        classes: int = 1,
        *,
        in_channels: int = 3,
        decoder_channels: Sequence[int] = DECODER_CHANNELS,
        fusion: Callable[[Sequence[int]], Fusion] | None = FeatureFusion,
        resolution_compensation: bool = True,
        fuse_in_encoder: bool = False,
        prompts: Sequence[Callable[[CoarseBranch], Prompt]] = (LongSkip,),
        shared_encoder_levels: int = 0,
        freeze_coarse: bool = True,
        coarse_reduction: int = 1,
        multi_label: bool = False,
        lesion_free: Sequence[int] = (),
        encoder_weights: Weights | None = "imagenet",
        coarse_weights: Weights | None = "imagenet",
    ) -> None:
        """Build both branches and what connects them.

        Args:
            backbone: Name of the encoders in timm.
            labels: Number of image-level labels.
            classes: Number of mask classes, background not counted.
            in_channels: Channels of the images.
            decoder_channels: Widths of the decoder blocks at strides 16, 8, 4, 2 and 1.
            fusion: Builds the short skip from the widths of the levels to fuse; None for none.
            resolution_compensation: Whether fused features enter the decoder at every level, or at
                the deepest one only.
            fuse_in_encoder: Whether the fine encoder goes on from the fused features, so that each
                of its stages gets those of the stage before. Default: the levels are fused when
                the encoder has run to its end.
            prompts: Each builds a prompt from the coarse branch.
            shared_encoder_levels: Number of levels, finest first, that the coarse encoder computes
                for both; these are always frozen. Both encoders should start from the same weights.
            freeze_coarse: Whether the coarse branch keeps its weights and normalization statistics.
            coarse_reduction: How much the whole image is reduced for the coarse branch: the fine
                branch sees that many times its resolution, along each axis.
            multi_label: Whether an image can have several labels.
            lesion_free: Positions of the labels that mean: no lesion.
            encoder_weights: Initial weights of the fine encoder; None for random ones.
            coarse_weights: Initial weights of the coarse encoder; None for random ones.

        Raises:
            UsageError: The backbone does not fit, or cannot be split into levels; there is no
                fusion at every level that could go on through the encoder; levels are shared
                although the branches see different resolutions.
        """
        super().__init__()
        if shared_encoder_levels and coarse_reduction > 1:
            raise UsageError(
                f"shared_encoder_levels = {shared_encoder_levels}: the coarse branch sees the "
                f"image reduced by {coarse_reduction}, so no level is the same in both; set "
                "coarse_reduction or shared_encoder_levels to its default"
            )
        self.coarse_reduction = coarse_reduction
        if fuse_in_encoder and (fusion is None or not resolution_compensation):
            raise UsageError(
                "fuse_in_encoder: there are no fused features at every level to go on from; pass a "
                "fusion and resolution_compensation=True"
            )
        encoder = create_encoder(backbone, in_channels, encoder_weights)
        self.coarse = CoarseBranch(
            backbone,
            labels,
            in_channels=in_channels,
            decoder_channels=decoder_channels,
            multi_label=multi_label,
            lesion_free=lesion_free,
            encoder_weights=coarse_weights,
        )
        shared = self.shared_encoder_levels = shared_encoder_levels
        self.fuse_in_encoder = fuse_in_encoder
        # Fused features can enter between the stages only of an encoder that is divided into them.
        divided = shared > 0 or fuse_in_encoder
        self.encoder = EncoderTail(encoder, shared) if divided else encoder
        # A shared level is the same in both encoders: there is nothing to fuse.
        self._first_fused = shared if resolution_compensation else len(encoder.channels) - 1
        fused_channels = encoder.channels[self._first_fused :]
        # "share" is the paper's word, and part of the names of weights that are stored already.
        self.share = None if fusion is None else cast(nn.Module, fusion(fused_channels))
        built = [build(self.coarse) for build in prompts]
        self.prompts = nn.ModuleList(cast(list[nn.Module], built))
        self.decoder = UnetDecoder(
            encoder.channels, encoder.strides, decoder_channels, [p.channels for p in built]
        )
        self.head = init_prior_bias(nn.Conv2d(decoder_channels[-1], classes, 3, padding=1))
        self.coarse_frozen = freeze_coarse
        for module in self._frozen_modules():
            module.requires_grad_(False)
        # A module starts in training mode, and Lightning leaves modes as they are: without this
        # the normalization statistics of the frozen branch would drift away from stage 1.
        self.train(self.training)

    @classmethod
    def from_classifier(cls, classifier: CoarseBranch, classes: int = 1, **options: Any) -> SKS:
        """Build the network of stage 2 from a trained stage 1.

        Both branches start from copies of the classifier's weights.

        Args:
            classifier: The trained stage 1; its backbone, labels and widths are used.
            classes: Number of mask classes, background not counted.
            options: Further arguments of `SKS`: `fusion`, `resolution_compensation`,
                `fuse_in_encoder`, `prompts`, `shared_encoder_levels`, `freeze_coarse`,
                `coarse_reduction`.
        """
        network = cls(
            classifier.encoder.backbone_name,
            classifier.labels,
            classes,
            in_channels=classifier.encoder.in_channels,
            decoder_channels=classifier.decoder_channels,
            multi_label=classifier.multi_label,
            lesion_free=classifier.lesion_free,
            encoder_weights=None,
            coarse_weights=None,
            **options,
        )
        network.coarse.load_state_dict(classifier.state_dict())
        network.load_encoder(classifier)
        return network

    def load_encoder(self, classifier: CoarseBranch) -> None:
        """Copy the classifier's encoder into the fine encoder."""
        source: nn.Module = classifier.encoder
        if isinstance(self.encoder, EncoderTail):
            source = EncoderTail(classifier.encoder, self.shared_encoder_levels)
        self.encoder.load_state_dict(source.state_dict())

    def train(self, mode: bool = True) -> SKS:
        """Set the training mode; frozen modules stay in evaluation mode."""
        super().train(mode)
        for module in self._frozen_modules():
            module.eval()
        return self

    def _frozen_modules(self) -> list[nn.Module]:
        """Modules that keep weights and statistics: the coarse branch, or at least shared levels.

        Two branches would train shared levels in two directions.
        """
        if self.coarse_frozen:
            return [self.coarse]
        if not self.shared_encoder_levels:
            return []
        return [*split_into_stages(self.coarse.encoder)[: self.shared_encoder_levels]]

    def _forward_padded(
        self, x: Tensor, label_prompt: Tensor | None, whole: WholeView
    ) -> SegmenterOutput:
        coarse, evidence = whole.classify(self.coarse, label_prompt)
        fine, skips = self._encode(x, coarse)
        decoded = self.decoder(skips, [prompt(coarse, evidence) for prompt in self.prompts])
        return SegmenterOutput(self.head(decoded[1]), coarse.label_logits, evidence, fine[-1])

    def _encode(self, x: Tensor, coarse: CoarseOutput) -> tuple[list[Tensor], list[Tensor]]:
        """Levels s_l of the fine encoder and levels g_l that enter the decoder, finest first."""
        shared = coarse.encoder_features[: self.shared_encoder_levels]
        feature = shared[-1] if shared else x
        if not self.fuse_in_encoder:
            fine = [*shared, *self.encoder(feature)]
            return fine, [self._fuse(s, coarse, level) for level, s in enumerate(fine)]
        fine, fused = [*shared], [*shared]
        for level, stage in enumerate(cast(EncoderTail, self.encoder).levels, start=len(shared)):
            fine.append(stage(feature))
            feature = self._fuse(fine[-1], coarse, level)
            fused.append(feature)
        return fine, fused

    def _fuse(self, fine: Tensor, coarse: CoarseOutput, level: int) -> Tensor:
        """Level g_l from s_l."""
        first = self._first_fused
        if self.share is None or level < first:
            return fine
        return cast(Tensor, self.share(fine, coarse.encoder_features[level], level - first))

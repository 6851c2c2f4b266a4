"""Baselines from segmentation-models-pytorch on the same encoders."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import segmentation_models_pytorch as smp
from torch import Tensor, nn

from dxseg.models.coarse_branch import CoarseBranch
from dxseg.models.decoder import DECODER_CHANNELS
from dxseg.models.heads import init_prior_bias
from dxseg.models.segmentation_model import SegmentationModel, SegmenterOutput
from dxseg.models.weights import Weights, create_encoder
from dxseg.models.whole_view import WholeView

ARCHITECTURES = {"unet": smp.Unet, "unetplusplus": smp.UnetPlusPlus, "manet": smp.MAnet}


class BaselineModel(SegmentationModel):
    """A network of segmentation-models-pytorch around a timm encoder, with our interface."""

    def __init__(
        self,
        architecture: str,
        backbone: str,
        labels: int = 0,
        classes: int = 1,
        *,
        in_channels: int = 3,
        decoder_channels: Sequence[int] = DECODER_CHANNELS,
        encoder_weights: Weights | None = "imagenet",
        coarse_reduction: int = 1,
    ) -> None:
        """Build the network.

        Args:
            architecture: A key of `ARCHITECTURES`.
            backbone: Name of the encoder in timm.
            labels: Number of image-level labels, for a linear layer on the averaged deepest
                feature; 0 for a network without a label head.
            classes: Number of mask classes, background not counted.
            in_channels: Channels of the images.
            decoder_channels: Widths of the decoder blocks at strides 16, 8, 4, 2 and 1.
            encoder_weights: Initial weights of the encoder; None for random ones.
            coarse_reduction: How much the whole image is reduced for the label head.
        """
        super().__init__()
        self.coarse_reduction = coarse_reduction
        body = create_encoder(backbone, in_channels, encoder_weights).body
        self.network: Any = ARCHITECTURES[architecture](
            f"tu-{backbone}",
            encoder_weights=None,
            in_channels=in_channels,
            classes=classes,
            decoder_channels=list(decoder_channels),
            aux_params={"classes": labels, "pooling": "avg", "dropout": None} if labels else None,
        )
        self.network.encoder.model = body
        layers = self.network.segmentation_head.children()
        init_prior_bias(next(layer for layer in layers if isinstance(layer, nn.Conv2d)))

    @property
    def encoder(self) -> nn.Module:  # type: ignore[override]
        """The only encoder."""
        return self.network.encoder  # type: ignore[no-any-return]

    @property
    def label_head(self) -> nn.Linear | None:
        """Linear layer from the averaged deepest feature to label logits."""
        layers = (self.network.classification_head or nn.Sequential()).children()
        return next((layer for layer in layers if isinstance(layer, nn.Linear)), None)

    def load_encoder(self, classifier: CoarseBranch) -> None:
        """Copy the classifier's encoder, and its head on the same feature into the label head."""
        self.network.encoder.model.load_state_dict(classifier.encoder.body.state_dict())
        if self.label_head is not None:
            self.label_head.load_state_dict(classifier.global_head.state_dict())

    def _forward_padded(
        self,
        x: Tensor,
        label_prompt: Tensor | None,  # noqa: ARG002
        whole: WholeView,
    ) -> SegmenterOutput:
        features = self.network.encoder(x)
        masks = self.network.segmentation_head(self.network.decoder(features))
        if self.label_head is None:
            return SegmenterOutput(masks, features=features[-1])
        deepest = features[-1] if whole.image is x else self.network.encoder(whole.image)[-1]
        labels = self.network.classification_head(deepest)
        return SegmenterOutput(masks, labels, features=features[-1])

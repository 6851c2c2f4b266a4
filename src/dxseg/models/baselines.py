"""Baselines from segmentation-models-pytorch on the same encoders."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import segmentation_models_pytorch as smp
from torch import Tensor, nn

from dxseg.models.encoder import PyramidEncoder
from dxseg.models.heads import init_prior_bias
from dxseg.models.segmentation_model import SegmentationModel, SegmenterOutput

ARCHITECTURES = {"unet": smp.Unet, "unetplusplus": smp.UnetPlusPlus, "manet": smp.MAnet}


class BaselineModel(SegmentationModel):
    """A segmentation-models-pytorch network around a timm encoder, behind our contract."""

    def __init__(
        self,
        architecture: str,
        encoder: PyramidEncoder,
        in_channels: int,
        decoder_channels: Sequence[int],
        mask_classes: int,
        **heads: Any,
    ) -> None:
        """Build the network around the body of ``encoder``, weights included.

        Args:
            architecture: a key of `ARCHITECTURES`.
            encoder: its body becomes a part of the network.
            in_channels: image channels.
            decoder_channels: widths of the decoder blocks, deepest first.
            mask_classes: classes of the mask.
            heads: what a subclass asks of the library beside the mask.
        """
        super().__init__()
        self.network: nn.Module = ARCHITECTURES[architecture](
            f"tu-{encoder.backbone_name}",
            encoder_weights=None,
            in_channels=in_channels,
            classes=mask_classes,
            decoder_channels=list(decoder_channels),
            **heads,
        )
        self.network.encoder.model = encoder.body
        head = self.network.get_submodule("segmentation_head")
        init_prior_bias(next(part for part in head.children() if isinstance(part, nn.Conv2d)))

    @property
    def encoder(self) -> nn.Module:  # type: ignore[override]
        """The only encoder."""
        return self.network.get_submodule("encoder")

    def _forward_padded(self, x: Tensor, label_prompt: Tensor | None) -> SegmenterOutput:  # noqa: ARG002
        features, masks = self._look(x)
        return SegmenterOutput(masks, features=features)

    def _look(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The deepest feature (B, F, h, w) and the mask logits."""
        features: list[Tensor] = self.encoder(x)
        decoded = self.network.get_submodule("decoder")(features)
        masks: Tensor = self.network.get_submodule("segmentation_head")(decoded)
        return features[-1], masks


class MultitaskModel(BaselineModel):
    """A baseline that also names the label: a linear layer on the averaged deepest feature."""

    def __init__(
        self,
        architecture: str,
        encoder: PyramidEncoder,
        in_channels: int,
        decoder_channels: Sequence[int],
        mask_classes: int,
        labels: int,
    ) -> None:
        """Build the network; ``labels`` is the number of image-level labels."""
        head = {"classes": labels, "pooling": "avg", "dropout": None}
        super().__init__(
            architecture, encoder, in_channels, decoder_channels, mask_classes, aux_params=head
        )

    @property
    def label_head(self) -> nn.Linear:
        """From the averaged deepest feature to label logits."""
        head = self.network.get_submodule("classification_head")
        return next(part for part in head.children() if isinstance(part, nn.Linear))

    def _forward_padded(self, x: Tensor, label_prompt: Tensor | None) -> SegmenterOutput:  # noqa: ARG002
        features, masks = self._look(x)
        labels = self.network.get_submodule("classification_head")(features)
        return SegmenterOutput(masks, labels, features=features)

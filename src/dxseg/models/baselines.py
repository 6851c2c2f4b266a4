"""Baselines from segmentation-models-pytorch on the same encoders."""

from __future__ import annotations

from collections.abc import Sequence

import segmentation_models_pytorch as smp
from torch import Tensor, nn

from dxseg.models.pyramid import PyramidEncoder
from dxseg.models.segmenter import Segmenter, SegmenterOutput

ARCHITECTURES = {"unet": smp.Unet, "unetplusplus": smp.UnetPlusPlus}


class BaselineSegmenter(Segmenter):
    """A segmentation-models-pytorch network around a timm encoder, behind our contract."""

    def __init__(
        self,
        architecture: str,
        encoder: PyramidEncoder,
        in_channels: int,
        decoder_channels: Sequence[int],
        mask_classes: int,
    ) -> None:
        """Build the network around the body of ``encoder``, weights included."""
        super().__init__()
        self.network: nn.Module = ARCHITECTURES[architecture](
            f"tu-{encoder.backbone_name}",
            encoder_weights=None,
            in_channels=in_channels,
            classes=mask_classes,
            decoder_channels=list(decoder_channels),
        )
        self.network.encoder.model = encoder.body

    @property
    def fine_encoder(self) -> nn.Module:
        """The only encoder."""
        return self.network.get_submodule("encoder")

    def _padded_outputs(self, x: Tensor, known: Tensor | None) -> SegmenterOutput:  # noqa: ARG002
        return SegmenterOutput(self.network(x))

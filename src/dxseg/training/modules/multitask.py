"""One branch learns masks and image-level labels together."""

from __future__ import annotations

from typing import TypedDict, cast

import torch
from torch import Tensor

from dxseg.config.network import ModelConfig
from dxseg.config.stages import StageConfig
from dxseg.data.batches.batches import Batch
from dxseg.models.segmentation_model import SegmentationModel
from dxseg.training.losses import LabelLoss
from dxseg.training.modules.segmentation import SegmentationModule


class CombinedBatch(TypedDict):
    """What a step gets: a batch of `masks` for the mask, one of `labels` for the label."""

    masks: Batch
    labels: Batch


class MultitaskModule(SegmentationModule):
    """Lightning module of a network with a label head.

    A step gets one batch of stage 2 and one batch of stage 1, so as many images as both stages
    together; both losses have the same weight.
    """

    def __init__(
        self,
        segmenter: SegmentationModel,
        label_loss: LabelLoss,
        model: ModelConfig,
        config: StageConfig,
    ) -> None:
        # The same value where targets are 0 and 1, and right where they lie between.
        super().__init__(segmenter, model, config, soft_targets=True)
        self.label_loss = label_loss

    def training_step(self, batch: CombinedBatch, batch_idx: int) -> Tensor:  # type: ignore[override]  # noqa: ARG002
        """Mask loss of one batch and label loss of the other, in one forward pass."""
        masked, labelled = batch["masks"], batch["labels"]
        pixels = ("image", "whole", "corner")
        both = cast(
            Batch,
            {
                name: torch.cat([batch["masks"][name], batch["labels"][name]])  # type: ignore[literal-required]
                for name in pixels
                if name in masked
            },
        )
        output = self.segmenter(both["image"], None, self.whole_view(both))
        assert output.label_logits is not None, "a network with a label head"
        count = len(masked["image"])
        mask_loss: Tensor = self.loss(output.mask_logits[:count], masked["mask"])
        label_loss: Tensor = self.label_loss(output.label_logits[count:], labelled["label"])
        losses = {"loss": mask_loss + label_loss, "mask_loss": mask_loss, "label_loss": label_loss}
        figures = {f"train_{name}": value for name, value in losses.items()}
        self.log_dict(figures, on_step=False, on_epoch=True, sync_dist=True, batch_size=count)
        return losses["loss"]

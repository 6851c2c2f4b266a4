"""One branch learns masks and image-level labels together."""

from __future__ import annotations

from typing import TypedDict

import torch
from torch import Tensor

from dxseg.config.schema import ModelConfig, StageConfig
from dxseg.data.batches.loader import Batch
from dxseg.models.segmentation_model import SegmentationModel
from dxseg.training.collectives import draw_apart, whole
from dxseg.training.losses import LabelLoss, MaskLoss
from dxseg.training.segmentation_module import Stage2Module


class CombinedBatch(TypedDict):
    """What a step sees: ``masks`` teaches the mask, ``labels`` the image-level label."""

    masks: Batch
    labels: Batch


class MultitaskModule(Stage2Module):
    """Lightning wrapper of a segmenter with a label head.

    A step sees one batch of stage 2 and one batch of stage 1, so as many images as both stages
    together, and both losses have the same weight.
    """

    def __init__(
        self,
        segmenter: SegmentationModel,
        label_loss: LabelLoss,
        model: ModelConfig,
        config: StageConfig,
        seed: int,
    ) -> None:
        super().__init__(segmenter, model, config, seed)
        # The same figure where targets are 0 and 1, and right where they lie between.
        self.loss = MaskLoss(soft_targets=True)
        self.label_loss = label_loss

    def training_step(self, batch: CombinedBatch, batch_idx: int) -> Tensor:  # type: ignore[override]  # noqa: ARG002
        """Mask loss of the one batch and label loss of the other, in one pass."""
        masked, labelled = batch["masks"], batch["labels"]
        images = torch.cat([masked["image"], labelled["image"]])
        draw_apart()
        outputs = self.segmenter(images)
        assert outputs.label_logits is not None, "a segmenter with a label head"
        count = len(masked["image"])
        mask_logits, target = whole(outputs.mask_logits[:count], masked["mask"])
        mask_loss = self.loss(mask_logits, target)
        label_loss = self.label_loss(*whole(outputs.label_logits[count:], labelled["label"]))
        loss: Tensor = mask_loss + label_loss
        seen = len(mask_logits)
        for name, part in (("loss", loss), ("mask_loss", mask_loss), ("label_loss", label_loss)):
            self.log(f"train_{name}", part, on_step=False, on_epoch=True, batch_size=seen)
        return loss

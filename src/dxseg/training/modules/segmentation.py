"""Stage 2: a segmentation network learns from the few masks."""

from __future__ import annotations

import lightning.pytorch as pl
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torchmetrics import MeanMetric

from dxseg.config.network import ModelConfig
from dxseg.config.stages import StageConfig
from dxseg.data.batches.batches import Batch
from dxseg.models.segmentation_model import SegmentationModel
from dxseg.models.whole_view import WholeView
from dxseg.training.losses import MaskLoss
from dxseg.training.optim import average_weights, build_optimizer


class SegmentationModule(pl.LightningModule):
    """Lightning module of stage 2, for every network."""

    def __init__(
        self,
        segmenter: SegmentationModel,
        model: ModelConfig,
        config: StageConfig,
        *,
        soft_targets: bool = False,
    ) -> None:
        """Wrap a segmentation network.

        Args:
            segmenter: the network.
            model: its configuration, for the learning rates of its parts.
            config: of the stage.
            soft_targets: see `MaskLoss`.
        """
        super().__init__()
        self.segmenter = segmenter
        self.model_config = model
        self.config = config
        self.loss = MaskLoss(soft_targets)
        self.val_loss = MeanMetric(nan_strategy="disable")
        self.val_dice = MeanMetric()
        self.val_false_positives = MeanMetric()

    @property
    def validated(self) -> SegmentationModel:
        """The network that is validated."""
        return self.segmenter

    def whole_view(self, batch: Batch, rows: Tensor | None = None) -> WholeView | None:
        """The whole images of a batch of patches, or of some of its rows; None without patches."""
        if "whole" not in batch:
            return None
        chosen = slice(None) if rows is None else rows
        whole, corners = batch["whole"][chosen], batch["corner"][chosen]
        view = WholeView(whole, corners=corners, patch_size=_sides(batch["image"]))
        return self.segmenter.reduce(view)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:  # noqa: ARG002
        """Dice plus binary cross-entropy; some labels are prompts."""
        output = self.segmenter(batch["image"], batch["label_prompt"], self.whole_view(batch))
        loss: Tensor = self.loss(output.mask_logits, batch["mask"])
        size = len(batch["image"])
        self.log("train_loss", loss, on_step=False, on_epoch=True, sync_dist=True, batch_size=size)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:  # noqa: ARG002
        """Loss; Dice of images with a lesion; how many lesion-free images get a mask.

        Without label prompts, as the network is mostly used.
        """
        if not len(batch["image"]):  # only the other processes have images left
            return
        logits, target = self.validated(batch["image"]).mask_logits, batch["mask"]
        # Once per image: torchmetrics ignores weights where NaN is let through.
        self.val_loss.update(self.loss(logits, target).expand(len(logits)))
        predicted = (logits > 0).float()
        has_lesion = target.flatten(1).any(dim=1)
        overlap = (predicted * target).flatten(1).sum(dim=1)
        areas = (predicted + target).flatten(1).sum(dim=1)
        self.val_dice.update((2 * overlap / areas.clamp(min=1))[has_lesion])
        self.val_false_positives.update(predicted.flatten(1).any(dim=1)[~has_lesion].float())

    def on_validation_epoch_end(self) -> None:
        """Means over the images of all processes; those without images are left out."""
        for name, metric in (
            ("val_loss", self.val_loss),
            ("val_dice", self.val_dice),
            ("val_false_positive_rate", self.val_false_positives),
        ):
            mean = metric.compute()
            if name == "val_loss" or not mean.isnan():
                self.log(name, mean)
            metric.reset()

    def configure_callbacks(self) -> list[pl.Callback]:
        """The moving average of the weights, if any."""
        return average_weights(self.config)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW, warm-up, cosine; the encoder and the coarse branch at their own rates."""
        parts: list[tuple[nn.Module, float]] = []
        coarse = getattr(self.segmenter, "coarse", None)
        if coarse is not None:
            parts.append((coarse, self.model_config.coarse_learning_rate_scale))
        parts.append((self.segmenter.encoder, self.config.encoder_learning_rate_scale))
        parts.append((self.segmenter, 1.0))
        return build_optimizer(parts, self.config)


def _sides(images: Tensor) -> tuple[int, int]:
    height, width = images.shape[-2:]
    return height, width

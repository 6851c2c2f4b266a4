"""Stage 2: a segmenter learns from the few masks."""

from __future__ import annotations

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torchmetrics import MeanMetric

from dxseg.config.schema import ModelConfig, StageConfig
from dxseg.data.batches.loader import Batch
from dxseg.models.segmentation_model import SegmentationModel
from dxseg.training.collectives import draw_apart, own, whole, whole_length
from dxseg.training.losses import MaskLoss
from dxseg.training.optim import average_weights, build_optimiser


class Stage2Module(pl.LightningModule):
    """Lightning wrapper of every segmenter, prompted or not."""

    def __init__(
        self,
        segmenter: SegmentationModel,
        model: ModelConfig,
        config: StageConfig,
        seed: int,
        label_prompt_prob: float = 0.0,
    ) -> None:
        """Wrap a segmenter.

        Args:
            segmenter: the network.
            model: its configuration, for the rates of its parts.
            config: of the stage.
            seed: of the run.
            label_prompt_prob: probability that a training image's label is given to the network.
        """
        super().__init__()
        self.segmenter = segmenter
        self.model_config = model
        self.config = config
        self.seed = seed
        self.label_prompt_prob = label_prompt_prob
        self.loss = MaskLoss()
        self.val_loss = MeanMetric(nan_strategy="disable")
        self.val_dice = MeanMetric()
        self.val_false_positives = MeanMetric()

    @property
    def validated(self) -> SegmentationModel:
        """The network that validation looks at."""
        return self.segmenter

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:  # noqa: ARG002
        """Seed by step, so that a resumed stage draws what an uninterrupted one draws."""
        torch.manual_seed(self.seed * 1_000_003 + self.trainer.fit_loop.total_batch_idx)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:  # noqa: ARG002
        """Dice plus binary cross-entropy; the network is told some labels."""
        known = drop_labels(batch["label"], self.label_prompt_prob)
        draw_apart()
        logits, target = whole(self.segmenter(batch["image"], known).mask_logits, batch["mask"])
        loss: Tensor = self.loss(logits, target)
        self.log("train_loss", loss, on_step=False, on_epoch=True, batch_size=len(logits))
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:  # noqa: ARG002
        """Loss; Dice where there is a lesion; the share of lesion-free images that get a mask.

        No label is known: so the network will mostly be used.
        """
        if not len(batch["image"]):  # the other processes have one batch more
            for metric in self._figures():
                metric.update(batch["image"].new_empty(0))
            return
        logits, target = self.validated(batch["image"]).mask_logits, batch["mask"]
        # Once an image: torchmetrics takes no notice of weights where NaN is to be let through.
        self.val_loss.update(self.loss(logits, target).expand(len(logits)))
        predicted = (logits > 0).float()
        has_lesion = target.flatten(1).any(dim=1)
        overlap = (predicted * target).flatten(1).sum(dim=1)
        areas = (predicted + target).flatten(1).sum(dim=1)
        self.val_dice.update((2 * overlap / areas.clamp(min=1))[has_lesion])
        self.val_false_positives.update(predicted.flatten(1).any(dim=1)[~has_lesion].float())

    def on_validation_epoch_end(self) -> None:
        """Means over the images of all processes, of those figures that there are images for."""
        self.log("val_loss", self.val_loss.compute())
        for name, metric in (
            ("val_dice", self.val_dice),
            ("val_false_positive_rate", self.val_false_positives),
        ):
            mean = metric.compute()
            if not mean.isnan():
                self.log(name, mean)
        for metric in self._figures():
            metric.reset()

    def _figures(self) -> tuple[MeanMetric, ...]:
        return self.val_loss, self.val_dice, self.val_false_positives

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
        return build_optimiser(parts, self.config)


def drop_labels(label: Tensor, share: float) -> Tensor | None:
    """Draw the images whose label the network is told, so that it learns to work with and without.

    Args:
        label: as in :class:`dxseg.data.batches.loader.Batch`, this process's rows.
        share: probability that a label stays.

    Returns:
        The labels with the others unknown, as `SegmentationModel` takes them; None
        for a share of 0, which draws nothing.
    """
    if not share:
        return None
    drawn = own(torch.rand(whole_length(len(label), label.device)))
    hidden = (drawn >= share).to(label.device)
    if label.is_floating_point():
        return label.masked_fill(hidden[:, None], float("nan"))
    return label.masked_fill(hidden, -1)

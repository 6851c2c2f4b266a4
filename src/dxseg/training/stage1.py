"""Stage 1: the coarse branch learns image-level labels."""

from __future__ import annotations

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassAUROC, MultilabelAUROC

from dxseg.config import StageConfig
from dxseg.data.loader import Batch
from dxseg.models.coarse import CoarseBranch
from dxseg.training.losses import LabelLoss
from dxseg.training.optimiser import build_optimiser


class Stage1Module(pl.LightningModule):
    """Lightning wrapper: both image-level heads of the coarse branch share one target."""

    def __init__(
        self, coarse: CoarseBranch, balance: Tensor, labels: int, config: StageConfig, seed: int
    ) -> None:
        super().__init__()
        self.coarse = coarse
        self.config = config
        self.seed = seed
        self.loss = LabelLoss(balance, coarse.multi_label, config.label_smoothing)
        metrics: dict[str, Metric | MetricCollection] = (
            {"auroc": MultilabelAUROC(labels)}
            if coarse.multi_label
            else {"auroc": MulticlassAUROC(labels), "accuracy": MulticlassAccuracy(labels)}
        )
        self.metrics = MetricCollection(metrics, prefix="val_", compute_groups=False)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:  # noqa: ARG002
        """Seed by step, so that a resumed stage draws the same dropout as an uninterrupted one."""
        torch.manual_seed(self.seed * 1_000_003 + self.trainer.fit_loop.total_batch_idx)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:  # noqa: ARG002
        """Loss of both heads."""
        output = self.coarse(batch["image"])
        label = batch["label"]
        loss: Tensor = self.loss(output.global_logits, label) + self.loss(
            output.pooled_logits, label
        )
        self.log("train_loss", loss, on_step=False, on_epoch=True, batch_size=len(batch["image"]))
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:  # noqa: ARG002
        """Loss, AUROC and accuracy of the labelled validation images."""
        label = batch["label"]
        known = ~label.isnan().any(dim=1) if self.coarse.multi_label else label >= 0
        if not known.any():
            return
        logits = self.coarse(batch["image"]).label_logits[known]
        size = len(logits)
        self.log("val_loss", self.loss(logits, label[known]), batch_size=size)
        self.metrics.update(logits, label[known].long())
        self.log_dict(self.metrics, batch_size=size)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW, warm-up, cosine."""
        encoder = (self.coarse.encoder, self.config.encoder_learning_rate_scale)
        return build_optimiser([encoder, (self.coarse, 1.0)], self.config)

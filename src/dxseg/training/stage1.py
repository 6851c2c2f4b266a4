"""Stage 1: the coarse branch learns image-level labels."""

from __future__ import annotations

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy
from torchmetrics.functional.classification import binary_auroc
from torchmetrics.utilities import dim_zero_cat

from dxseg.config import StageConfig
from dxseg.data.loader import Batch
from dxseg.models.coarse import CoarseBranch
from dxseg.training.losses import LabelLoss
from dxseg.training.optimiser import build_optimiser


class MacroAUROC(Metric):
    """Mean one-against-the-rest AUROC of the labels that some images have and some have not.

    torchmetrics' own averages count a label that is absent from validation as 0.
    """

    scores: list[Tensor]
    present: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("scores", [], dist_reduce_fx="cat")
        self.add_state("present", [], dist_reduce_fx="cat")

    def update(self, scores: Tensor, present: Tensor) -> None:
        """Take probabilities (B, L) and which labels the images have, (B, L) of 0 and 1."""
        self.scores.append(scores)
        self.present.append(present)

    def compute(self) -> Tensor:
        """The mean, NaN where no label is both present and absent."""
        scores, present = dim_zero_cat(self.scores), dim_zero_cat(self.present)
        counts = present.sum(dim=0)
        mixed = [i for i, count in enumerate(counts.tolist()) if 0 < count < len(present)]
        if not mixed:
            return scores.new_tensor(float("nan"))
        return torch.stack([binary_auroc(scores[:, i], present[:, i]) for i in mixed]).mean()


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
        self.auroc = MacroAUROC()
        self.accuracy = None if coarse.multi_label else MulticlassAccuracy(labels)

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
        target = label[known].long()
        if self.accuracy is None:
            self.auroc.update(logits.sigmoid(), target)
        else:
            self.auroc.update(logits.softmax(dim=1), F.one_hot(target, logits.shape[1]))
            self.accuracy.update(logits, target)
            self.log("val_accuracy", self.accuracy, batch_size=size)
        self.log("val_auroc", self.auroc, batch_size=size)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW, warm-up, cosine."""
        encoder = (self.coarse.encoder, self.config.encoder_learning_rate_scale)
        return build_optimiser([encoder, (self.coarse, 1.0)], self.config)

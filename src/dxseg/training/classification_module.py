"""Stage 1: the coarse branch learns image-level labels."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy
from torchmetrics.functional.classification import binary_auroc
from torchmetrics.utilities import dim_zero_cat

from dxseg.config.schema import StageConfig
from dxseg.data.batches.loader import Batch
from dxseg.models.coarse_branch import CoarseBranch
from dxseg.models.mil_pooling import pool_images, split_by_study
from dxseg.training.collectives import draw_apart, whole
from dxseg.training.losses import LabelLoss
from dxseg.training.optim import average_weights, build_optimiser


class MacroAUROC(Metric):
    """Mean one-against-the-rest AUROC of the labels that some images have and some have not.

    torchmetrics' own averages count a label that is absent from validation as 0.
    """

    scores: list[Tensor]
    present: list[Tensor]

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
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


class LabelledLogits(Metric):
    """Keeps logits and labels, to pool those of a study that lie in several batches."""

    logits: list[Tensor]
    label: list[Tensor]
    study: list[Tensor]
    study_label: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        for name in ("logits", "label", "study", "study_label"):
            self.add_state(name, [], dist_reduce_fx="cat")

    def update(self, logits: Tensor, batch: Batch) -> None:
        """Take logits (B, L) of a batch and its labels."""
        self.logits.append(logits)
        self.label.append(batch["label"])
        self.study.append(batch["study"])
        self.study_label.append(batch["study_label"])

    def compute(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """All logits, labels, numbers of studies and their labels."""
        return (
            dim_zero_cat(self.logits),
            dim_zero_cat(self.label),
            dim_zero_cat(self.study),
            dim_zero_cat(self.study_label),
        )


class Stage1Module(pl.LightningModule):
    """Lightning wrapper: both image-level heads of the coarse branch share one target.

    Labels of studies are learnt by multiple-instance pooling (`dxseg.models.mil_pooling`): the
    images of a study in a batch count as one, with the study's label.
    """

    def __init__(
        self, coarse: CoarseBranch, balance: Tensor, labels: int, config: StageConfig, seed: int
    ) -> None:
        super().__init__()
        self.coarse = coarse
        self.config = config
        self.seed = seed
        self.labels = labels
        self.loss = LabelLoss(balance, coarse.multi_label, config.label_smoothing)
        self.seen = LabelledLogits()
        # They are given what all processes have seen; gathered again it would count several times.
        self.auroc = MacroAUROC(sync_on_compute=False)
        self.accuracy = (
            None if coarse.multi_label else MulticlassAccuracy(labels, sync_on_compute=False)
        )

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:  # noqa: ARG002
        """Seed by step, so that a resumed stage draws the same dropout as an uninterrupted one."""
        torch.manual_seed(self.seed * 1_000_003 + self.trainer.fit_loop.total_batch_idx)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:  # noqa: ARG002
        """Loss of both heads."""
        draw_apart()
        output = self.coarse(batch["image"])
        global_logits, pooled_logits, *labels = whole(
            output.global_logits,
            output.pooled_logits,
            batch["label"],
            batch["study"],
            batch["study_label"],
        )
        loss: Tensor = self.loss(*self._pooled(global_logits, *labels)) + self.loss(
            *self._pooled(pooled_logits, *labels)
        )
        self.log("train_loss", loss, on_step=False, on_epoch=True, batch_size=len(global_logits))
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:  # noqa: ARG002
        """Keep what the branch says of the validation images; studies go over several batches."""
        if len(batch["image"]):
            logits = self.coarse(batch["image"]).label_logits
        else:  # the other processes have one batch more
            logits = batch["image"].new_zeros(0, self.labels)
        self.seen.update(logits, batch)

    def on_validation_epoch_end(self) -> None:
        """Loss, AUROC and accuracy of the labelled validation images and studies."""
        logits, label = self._pooled(*self.seen.compute())
        self.seen.reset()
        known = ~label.isnan().any(dim=1) if self.coarse.multi_label else label >= 0
        if not known.any():
            return
        logits, label = logits[known], label[known]
        self.log("val_loss", self.loss(logits, label))
        target = label.long()
        if self.accuracy is None:
            self.auroc.update(logits.sigmoid(), target)
        else:
            self.auroc.update(logits.softmax(dim=1), F.one_hot(target, logits.shape[1]))
            self.accuracy.update(logits, target)
            self.log("val_accuracy", self.accuracy)
        self.log("val_auroc", self.auroc)

    def _pooled(
        self, logits: Tensor, label: Tensor, study: Tensor, study_label: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Logits and labels of the images without study, then of each study."""
        alone = study < 0
        if alone.all():
            return logits, label
        multi_label, free = self.coarse.multi_label, self.coarse.lesion_free
        studies = [
            pool_images(rows, multi_label=multi_label, lesion_free=free)
            for rows in split_by_study(logits[~alone], study[~alone])
        ]
        labels = [rows[0] for rows in split_by_study(study_label[~alone], study[~alone])]
        return (
            torch.cat([logits[alone], torch.stack(studies)]),
            torch.cat([label[alone], torch.stack(labels)]),
        )

    def configure_callbacks(self) -> list[pl.Callback]:
        """The moving average of the weights, if any."""
        return average_weights(self.config)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW, warm-up, cosine."""
        encoder = (self.coarse.encoder, self.config.encoder_learning_rate_scale)
        return build_optimiser([encoder, (self.coarse, 1.0)], self.config)

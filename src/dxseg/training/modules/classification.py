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

from dxseg.config.stages import StageConfig
from dxseg.data.batches.batches import Batch
from dxseg.models.coarse_branch import CoarseBranch, CoarseOutput
from dxseg.models.encoder import pad_to_multiple
from dxseg.models.mil_pooling import pool_images, split_by_study
from dxseg.models.segmentation_model import STRIDE
from dxseg.training.losses import LabelLoss
from dxseg.training.optim import average_weights, build_optimizer


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
        """The mean, NaN if no label is both present and absent."""
        scores, present = dim_zero_cat(self.scores), dim_zero_cat(self.present)
        counts = present.sum(dim=0)
        mixed = [i for i, count in enumerate(counts.tolist()) if 0 < count < len(present)]
        if not mixed:
            return scores.new_tensor(float("nan"))
        return torch.stack([binary_auroc(scores[:, i], present[:, i]) for i in mixed]).mean()


class LabelledLogits(Metric):
    """Logits and labels of all validation images, to pool those of a study over batches."""

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


class ClassificationModule(pl.LightningModule):
    """Lightning module of stage 1: both image-level heads of the coarse branch have one target.

    Labels of studies are learned by multiple-instance pooling (`dxseg.models.mil_pooling`): the
    images of a study in a batch count as one, with the study's label.
    """

    def __init__(
        self, coarse: CoarseBranch, balance: Tensor, labels: int, config: StageConfig
    ) -> None:
        """Wrap a coarse branch.

        Args:
            coarse: the network.
            balance: (L,) weights of the labels (`dxseg.training.losses.label_balance`).
            labels: L.
            config: of the stage.
        """
        super().__init__()
        self.coarse = coarse
        self.config = config
        self.labels = labels
        self.loss = LabelLoss(balance, coarse.multi_label, config.label_smoothing)
        self.predictions = LabelledLogits()
        # They get the images of all processes; gathered again these would count several times.
        self.auroc = MacroAUROC(sync_on_compute=False)
        self.accuracy = (
            None if coarse.multi_label else MulticlassAccuracy(labels, sync_on_compute=False)
        )

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:  # noqa: ARG002
        """Loss of both heads."""
        output = self._classify(batch["image"])
        labels = batch["label"], batch["study"], batch["study_label"]
        loss: Tensor = self.loss(*self._pool_studies(output.global_logits, *labels)) + self.loss(
            *self._pool_studies(output.pooled_logits, *labels)
        )
        size = len(batch["image"])
        self.log("train_loss", loss, on_step=False, on_epoch=True, sync_dist=True, batch_size=size)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:  # noqa: ARG002
        """Collect logits: the images of a study may be in several batches."""
        if len(batch["image"]):
            logits = self._classify(batch["image"]).label_logits
        else:  # only the other processes have images left
            logits = batch["image"].new_zeros(0, self.labels)
        self.predictions.update(logits, batch)

    def on_validation_epoch_end(self) -> None:
        """Loss, AUROC and accuracy of the labeled validation images and studies."""
        logits, label = self._pool_studies(*self.predictions.compute())
        self.predictions.reset()
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

    def _classify(self, images: Tensor) -> CoarseOutput:
        """Images of any size, padded as `SegmentationModel` pads them."""
        output: CoarseOutput = self.coarse(pad_to_multiple(images, STRIDE))
        return output

    def _pool_studies(
        self, logits: Tensor, label: Tensor, study: Tensor, study_label: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Logits and labels of the images without study, then of each study."""
        single = study < 0
        if single.all():
            return logits, label
        multi_label, free = self.coarse.multi_label, self.coarse.lesion_free
        studies = [
            pool_images(rows, multi_label=multi_label, lesion_free=free)
            for rows in split_by_study(logits[~single], study[~single])
        ]
        labels = [rows[0] for rows in split_by_study(study_label[~single], study[~single])]
        return (
            torch.cat([logits[single], torch.stack(studies)]),
            torch.cat([label[single], torch.stack(labels)]),
        )

    def configure_callbacks(self) -> list[pl.Callback]:
        """The moving average of the weights, if any."""
        return average_weights(self.config)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW, warm-up, cosine."""
        encoder = (self.coarse.encoder, self.config.encoder_learning_rate_scale)
        return build_optimizer([encoder, (self.coarse, 1.0)], self.config)

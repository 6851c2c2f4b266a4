"""Self-training: pseudo-labels of a mean teacher for images without a mask, filtered by the label.

After mean teacher (Tarvainen and Valpola 2017) and report-guided self-training (Bosma et al. 2023).
It works for every network; evidence is used if the network has it.
"""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torchmetrics import MeanMetric

from dxseg.config.network import ModelConfig
from dxseg.config.schema import SelfTrainingConfig
from dxseg.data.batches.batches import Batch
from dxseg.models.factory import Task
from dxseg.models.segmentation_model import SegmentationModel, SegmenterOutput
from dxseg.models.whole_view import WholeView
from dxseg.training.losses import LabelLoss
from dxseg.training.modules.segmentation import SegmentationModule
from dxseg.training.thresholds import implies_lesion

LOGIT_LIMIT = 3.0
"""Limit of the logits of the network and of the evidence in a joint pseudo-label: neither is
certain enough to overrule the other everywhere."""

EVIDENCE_CUT = 1.0
"""Excess of evidence over its image, as a logit, that speaks neither for nor against a lesion: cut
there, evidence alone outlined the lesions of development images best."""


class SelfTrainingModule(SegmentationModule):
    """Lightning module: the student learns; its moving average is the teacher, and the result."""

    def __init__(
        self,
        segmenter: SegmentationModel,
        model: ModelConfig,
        config: SelfTrainingConfig,
        task: Task,
        *,
        prompt_teacher: bool,
        label_loss: LabelLoss | None = None,
    ) -> None:
        """Start student and teacher from a network that stage 2 has trained.

        Args:
            segmenter: the network.
            model: its configuration.
            config: of the stage.
            task: channels, classes, labels.
            prompt_teacher: whether the teacher gets all labels as prompts, since its images are
                training images; the student gets those of the batch.
            label_loss: of the label head, if the network has one of its own.
        """
        super().__init__(segmenter, model, config)
        self.options = config
        self.task = task
        self.prompt_teacher = prompt_teacher
        self.label_loss = label_loss
        self.kept = MeanMetric()
        average = partial(_average, config.ema_decay)
        self.average = AveragedModel(segmenter, multi_avg_fn=average, use_buffers=True)
        self.average.requires_grad_(False)
        self.train(self.training)

    @property
    def teacher(self) -> SegmentationModel:
        """The moving average of the student."""
        return cast(SegmentationModel, self.average.module)

    @property
    def validated(self) -> SegmentationModel:
        """The teacher: it is the result of the stage."""
        return self.teacher

    def train(self, mode: bool = True) -> SelfTrainingModule:
        """Training mode for the student; the teacher always predicts."""
        super().train(mode)
        self.average.eval()
        return self

    def configure_callbacks(self) -> list[pl.Callback]:
        """None: this module averages the weights itself, to make pseudo-labels with them."""
        return []

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:  # noqa: ARG002
        """Loss on masks, plus the weighted loss on pseudo-labels that agree with the label.

        A label head of the network's own goes on learning the labels of the images.
        """
        masked = batch["masked"]
        pseudo_labels, usable = self.make_pseudo_labels(
            batch["image"][~masked], batch["label"][~masked], self.whole_view(batch, ~masked)
        )
        student = batch["strong_image"].contiguous(memory_format=torch.channels_last)
        output = self.segmenter(student, batch["label_prompt"], self.whole_view(batch))
        logits = output.mask_logits
        losses: list[Tensor] = []
        if masked.any():
            losses.append(self.loss(logits[masked], batch["mask"][masked]))
        if usable.any():
            on_pseudo_labels = self.loss(logits[~masked][usable], pseudo_labels[usable])
            losses.append(self.options.pseudo_label_weight * on_pseudo_labels)
        if self.label_loss is not None:
            losses.append(self.label_loss(output.label_logits, batch["label"]))
        # Of several processes, one may have nothing to learn from in a step.
        loss = torch.stack(losses).sum() if losses else 0.0 * logits.sum()
        size = len(masked)
        self.log("train_loss", loss, on_step=False, on_epoch=True, sync_dist=True, batch_size=size)
        self.kept.update(usable.float())
        self.log("kept_pseudo_labels", self.kept, on_step=False, on_epoch=True)
        return loss

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:  # noqa: ARG002
        """The teacher follows the student."""
        self.average.update_parameters(self.segmenter)

    @torch.no_grad()
    def make_pseudo_labels(
        self, images: Tensor, labels: Tensor, whole: WholeView | None = None
    ) -> tuple[Tensor, Tensor]:
        """Masks for images that have none, and which of them may be used.

        If the label means a lesion, one must be found; without a label, and in a patch, which may
        show another part of the image, a pseudo-label must be certain either way. Lesion-free
        images need none: their mask is known.

        Args:
            images: (B, C, H, W), without strong augmentation.
            labels: as in `dxseg.data.batches.batches.Batch`.
            whole: the whole images, if `images` are patches.

        Returns:
            Probabilities (B, K, H, W), and (B,) whether to use them.
        """
        if not len(images):
            empty = images.new_zeros(0, self.task.mask_classes, *images.shape[2:])
            return empty, labels.new_zeros(0).bool()
        prompt = labels if self.prompt_teacher else None
        weak = images.contiguous(memory_format=torch.channels_last)
        output = self.teacher(weak, prompt, whole)
        probabilities = _product_of_experts(
            output, self.task, self.options.evidence_weight
        ).sigmoid()
        peak = probabilities.flatten(1).amax(dim=1)
        lesion = implies_lesion(labels.cpu().numpy(), self.task.lesion_free)
        shown = torch.from_numpy(lesion).to(peak.device) & (whole is None)
        certain_of_none = (peak < 1 - self.options.confidence) & ~shown
        return probabilities, (peak > self.options.confidence) | certain_of_none


def _average(decay: float, *update: Any) -> None:
    """PyTorch's moving average, as a function that can be pickled."""
    get_ema_multi_avg_fn(decay)(*update)


def _product_of_experts(output: SegmenterOutput, task: Task, weight: float) -> Tensor:
    """The network's mask logits, combined with its evidence if it has any."""
    logits = output.mask_logits
    if output.evidence is None or weight == 0:
        return logits
    lesions = [i for i in range(output.evidence.shape[1]) if i not in task.lesion_free]
    evidence = output.evidence[:, lesions].sum(dim=1, keepdim=True)
    excess = torch.logit(evidence, eps=1e-4) - EVIDENCE_CUT
    excess = F.interpolate(excess, logits.shape[-2:], mode="bilinear", align_corners=False)
    limits = (-LOGIT_LIMIT, LOGIT_LIMIT)
    return logits.clamp(*limits) + weight * excess.clamp(*limits)

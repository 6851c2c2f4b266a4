"""Self-training: pseudo-labels of a mean teacher for images without a mask, filtered by the label.

After mean teacher (Tarvainen and Valpola 2017) and report-guided self-training (Bosma et al. 2023).
It works for every network; evidence is used if the network has it. Options make of it what UniMatch
(Yang et al. 2023) and BCP (Bai et al. 2023) do with images without a mask; docs/method.md lists
where they differ from the papers.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any, cast

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torchmetrics import MeanMetric

from dxseg.config.network import ModelConfig
from dxseg.config.stages import SelfTrainingConfig
from dxseg.data.batches.batches import Batch
from dxseg.models.factory import Task
from dxseg.models.feature_dropout import dropped_features
from dxseg.models.segmentation_model import SegmentationModel, SegmenterOutput
from dxseg.models.whole_view import WholeView
from dxseg.training.losses import LabelLoss
from dxseg.training.modules.segmentation import SegmentationModule
from dxseg.training.modules.views import Views, mix
from dxseg.training.pseudo_labels import keep_largest
from dxseg.training.thresholds import implies_lesion

LOGIT_LIMIT = 3.0
"""Limit of the logits of the network and of the evidence in a joint pseudo-label: neither is
certain enough to overrule the other everywhere."""

EVIDENCE_CUT = 1.0
"""Excess of evidence over its image, as a logit, that speaks neither for nor against a lesion: cut
there, evidence alone outlined the lesions of development images best."""

FEATURE_VIEW = 0.5
"""Weight of the view with dropped features, of that of all views of an image without a mask: in
UniMatch it counts as much as the strong views together."""


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
        soft_targets: bool = False,
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
            soft_targets: whether true masks may lie between 0 and 1, see `MaskLoss`; pseudo-labels
                do, unless they are cut.
        """
        soft = soft_targets or not config.hard_pseudo_labels
        super().__init__(segmenter, model, config, soft_targets=soft)
        self.options = config
        self.task = task
        self.prompt_teacher = prompt_teacher
        self.label_loss = label_loss
        self.kept = MeanMetric()
        self.kept_pixels = MeanMetric()
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
        """Loss on masks, plus the weighted loss on pseudo-labels, of the pixels that may be used.

        A label head of the network's own goes on learning the labels of the images.
        """
        masked, weak = self._views(batch)
        strong = batch["strong_views"][~batch["masked"]].unbind(dim=1)
        boxes = batch["replaced"][~batch["masked"]].unbind(dim=1)
        views = [replace(weak, image=image) for image in strong]
        seen = mix(masked, views, boxes, self.options.mix)
        output = self._predict(batch, seen)
        on_pseudo_labels = self.loss(output.mask_logits, seen.mask, seen.pseudo)
        if self.options.feature_dropout:
            # In every process, as synchronized batch norms wait for all; the loss of images with a
            # mask, which have no pseudo-label, is 0.
            weak = weak if len(weak) else masked
            with dropped_features(self.segmenter.encoder, self.options.feature_dropout):
                logits = self._predict(batch, weak).mask_logits
            with_dropout = self.loss(logits, weak.mask, weak.pseudo)
            on_pseudo_labels = torch.lerp(on_pseudo_labels, with_dropout, FEATURE_VIEW)
        # Of several processes, one may have nothing to learn from in a step: its losses are 0.
        loss: Tensor = self.loss(output.mask_logits, seen.mask, seen.true)
        loss = loss + self.options.pseudo_label_weight * on_pseudo_labels
        if self.label_loss is not None:
            loss = loss + self.label_loss(output.label_logits, seen.label)
        size = len(batch["image"])
        self.log("train_loss", loss, on_step=False, on_epoch=True, sync_dist=True, batch_size=size)
        self.log("kept_pseudo_labels", self.kept, on_step=False, on_epoch=True)
        self.log("kept_pixels", self.kept_pixels, on_step=False, on_epoch=True)
        return loss

    def _views(self, batch: Batch) -> tuple[Views, Views]:
        """The images with a mask, and those without with their pseudo-labels."""
        masked = batch["masked"]

        def views(rows: Tensor, mask: Tensor, true: Tensor, pseudo: Tensor) -> Views:
            labels = batch["label"][rows], batch["label_prompt"][rows]
            return Views(batch["image"][rows], mask, true, pseudo, *labels, rows.nonzero()[:, 0])

        probabilities, usable = self.make_pseudo_labels(
            batch["image"][~masked], batch["label"][~masked], self.whole_view(batch, ~masked)
        )
        pixels = usable[:, None, None, None] & self._certain(probabilities)
        self.kept.update(usable.float())
        self.kept_pixels.update(pixels[usable].float())
        hard = self.options.hard_pseudo_labels
        pseudo_labels = self._cut(probabilities) if hard else probabilities
        mask = batch["mask"][masked]
        everywhere = torch.ones_like(mask, dtype=torch.bool)
        return (
            views(masked, mask, everywhere, ~everywhere),
            views(~masked, pseudo_labels, torch.zeros_like(pixels), pixels),
        )

    def _predict(self, batch: Batch, views: Views) -> SegmenterOutput:
        images = views.image.contiguous(memory_format=torch.channels_last)
        whole = self.whole_view(batch, views.row)
        output: SegmenterOutput = self.segmenter(images, views.label_prompt, whole)
        return output

    def _certain(self, probabilities: Tensor) -> Tensor:
        """The pixels of a pseudo-label that may be learned from."""
        return (probabilities - 0.5).abs() >= self.options.pixel_confidence - 0.5

    def _cut(self, probabilities: Tensor) -> Tensor:
        """Pseudo-labels of 0 and 1."""
        masks = probabilities > 0.5
        return (keep_largest(masks) if self.options.largest_component else masks).float()

    def optimizer_step(self, *arguments: Any, **options: Any) -> None:
        """The teacher follows the student, once per step, of however many batches it is."""
        super().optimizer_step(*arguments, **options)
        self.average.update_parameters(self.segmenter)

    @torch.no_grad()
    def make_pseudo_labels(
        self, images: Tensor, labels: Tensor, whole: WholeView | None = None
    ) -> tuple[Tensor, Tensor]:
        """Masks for images that have none, and which of them may be used.

        If the label means a lesion, one must be found, not an organ alone; without a label, with
        the filter off, and in a patch, which may show another part of the image, a pseudo-label
        must be certain either way. Lesion-free images need none: their mask is known.

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
        peak = probabilities[:, self.task.lesion_channels].flatten(1).amax(dim=1)
        usable = peak > self.options.confidence
        certain_of_none = peak < 1 - self.options.confidence
        if self.options.label_filter and whole is None:
            lesion = implies_lesion(labels.cpu().numpy(), self.task.without_lesion)
            certain_of_none &= ~torch.from_numpy(lesion).to(peak.device)
        return probabilities, usable | certain_of_none


def _average(decay: float, *update: Any) -> None:
    """PyTorch's moving average, as a function that can be pickled."""
    get_ema_multi_avg_fn(decay)(*update)


def _product_of_experts(output: SegmenterOutput, task: Task, weight: float) -> Tensor:
    """The network's mask logits, combined with its evidence if it has any."""
    logits = output.mask_logits
    if output.evidence is None or weight == 0:
        return logits
    lesions = [i for i in range(output.evidence.shape[1]) if i not in task.without_lesion]
    evidence = output.evidence[:, lesions].sum(dim=1, keepdim=True)
    excess = torch.logit(evidence, eps=1e-4) - EVIDENCE_CUT
    excess = F.interpolate(excess, logits.shape[-2:], mode="bilinear", align_corners=False)
    limits = (-LOGIT_LIMIT, LOGIT_LIMIT)
    return logits.clamp(*limits) + weight * excess.clamp(*limits)

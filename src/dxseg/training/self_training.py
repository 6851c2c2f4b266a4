"""Self-training: a mean teacher proposes masks where there is only a label, the label filters them.

After mean teacher (Tarvainen and Valpola 2017) and report-guided self-training (Bosma et al. 2023).
It works for every segmenter; evidence takes part where the network has it.
"""

from __future__ import annotations

from typing import Any, cast

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torchvision.transforms import v2

from dxseg.config.schema import ModelConfig, SelfTrainingConfig
from dxseg.data.batches.loader import Batch
from dxseg.models.factory import Task
from dxseg.models.segmentation_model import SegmentationModel, SegmenterOutput
from dxseg.training.collectives import draw_apart, own, whole
from dxseg.training.segmentation_module import Stage2Module, drop_labels
from dxseg.training.thresholds import label_says_lesion

LOGIT_LIMIT = 3.0
"""The network's logits and the evidence's count in a joint proposal up to this: neither is sure
enough to overrule the other everywhere."""

EVIDENCE_CUT = 1.0
"""Excess of evidence over its image, as a logit, that speaks neither for nor against a lesion: cut
there, evidence alone outlined the lesions of development images best."""


class SelfTrainingModule(Stage2Module):
    """Lightning wrapper: the student learns, its moving average teaches and is what stays."""

    def __init__(
        self,
        segmenter: SegmentationModel,
        model: ModelConfig,
        config: SelfTrainingConfig,
        seed: int,
        task: Task,
        label_prompt_prob: float = 0.0,
    ) -> None:
        """Start student and teacher from a segmenter that stage 2 has trained.

        The student is told labels as in stage 2; the teacher, if the student is told any, all that
        there are: it proposes for training images.
        """
        super().__init__(segmenter, model, config, seed, label_prompt_prob)
        self.options = config
        self.task = task
        follow = get_ema_multi_avg_fn(config.ema_decay)  # type: ignore[no-untyped-call]
        self.average = AveragedModel(segmenter, multi_avg_fn=follow, use_buffers=True)
        self.average.requires_grad_(False)
        self.train(self.training)

    @property
    def teacher(self) -> SegmentationModel:
        """The moving average of the student."""
        return cast(SegmentationModel, self.average.module)

    @property
    def validated(self) -> SegmentationModel:
        """Validation looks at what stays."""
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
        """Loss on masks, plus the weighted loss on the proposals that the labels let through."""
        masked = batch["masked"]
        unmasked = batch["image"][~masked]
        proposals, kept = self.propose(unmasked, batch["label"][~masked])
        labels = torch.cat([batch["label"][masked], batch["label"][~masked]])
        seen = torch.cat([batch["image"][masked], self._strong_augment(unmasked, masked)])
        told = drop_labels(labels, self.label_prompt_prob)
        draw_apart()
        output = self.segmenter(seen.contiguous(memory_format=torch.channels_last), told)
        targets = torch.cat([batch["mask"][masked], proposals])
        logits, targets, masked, usable = whole(
            output.mask_logits, targets, masked, torch.cat([masked[masked], kept])
        )
        known = int(masked.sum())
        kept = usable[known:]
        loss: Tensor = self.loss(logits[:known], targets[:known])
        if kept.any():
            proposed = self.loss(logits[known:][kept], targets[known:][kept])
            loss = loss + self.options.pseudo_label_weight * proposed
        size = len(logits)
        self.log("train_loss", loss, on_step=False, on_epoch=True, batch_size=size)
        if len(kept):
            share = kept.float().mean()
            self.log(
                "kept_pseudo_labels", share, on_step=False, on_epoch=True, batch_size=len(kept)
            )
        return loss

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:  # noqa: ARG002
        """The teacher follows the student."""
        self.average.update_parameters(self.segmenter)

    @torch.no_grad()
    def propose(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Masks for images that have none, and which of them may be learnt from.

        Where the label says that there is a lesion, one must be found; without a label, a
        proposal must be sure either way. Lesion-free images need no proposal: their mask is known.

        Args:
            images: (B, C, H, W), not disturbed.
            labels: as in :class:`dxseg.data.batches.loader.Batch`.

        Returns:
            Probabilities (B, K, H, W), and (B,) whether to use them.
        """
        if not len(images):
            return images.new_zeros(0, self.task.mask_classes, *images.shape[2:]), labels.bool()
        told = labels if self.label_prompt_prob else None
        output = self.teacher(images.contiguous(memory_format=torch.channels_last), told)
        probabilities = _product_of_experts(
            output, self.task, self.options.evidence_weight
        ).sigmoid()
        peak = probabilities.flatten(1).amax(dim=1)
        lesion = label_says_lesion(labels.cpu().numpy(), self.task.lesion_free)
        sure_of_none = (peak < 1 - self.options.confidence) & ~torch.from_numpy(lesion).to(
            peak.device
        )
        return probabilities, (peak > self.options.confidence) | sure_of_none

    def _strong_augment(self, images: Tensor, masked: Tensor) -> Tensor:
        """Other contrast, brightness and noise for each image, and a part of it erased.

        Drawn for the images of all processes, so that it does not depend on their number.

        Args:
            images: without a mask, this process's.
            masked: which images of this process's batch have one.
        """
        o = self.options
        [everywhere] = whole(~masked)
        places = own(everywhere.cumsum(0) - 1)[~masked]
        shape = (int(everywhere.sum()), 1, 1, 1)
        contrast = 1 + o.contrast * _uniform_symmetric(shape, images)[places]
        brightness = o.brightness * _uniform_symmetric(shape, images)[places]
        noise = torch.randn(
            (shape[0], *images.shape[1:]), device=images.device, dtype=images.dtype
        )[places]
        changed = images * contrast + brightness + o.noise * noise
        if not o.erased or not shape[0]:
            return changed
        erase = v2.RandomErasing(p=1.0, scale=(o.erased / 4, o.erased), ratio=(0.5, 2.0), value=0)
        others = [images.new_empty(1, *images.shape[2:])] * shape[0]
        mine = dict(zip(places.tolist(), changed, strict=True))
        erased = [erase(mine.get(place, other)) for place, other in enumerate(others)]
        return torch.stack([erased[place] for place in mine]) if mine else changed


def _uniform_symmetric(shape: tuple[int, ...], like: Tensor) -> Tensor:
    return 2 * torch.rand(shape, device=like.device, dtype=like.dtype) - 1


def _product_of_experts(output: SegmenterOutput, task: Task, weight: float) -> Tensor:
    """The network's mask logits, and where it has evidence, a product of both experts."""
    logits = output.mask_logits
    if output.evidence is None or weight == 0:
        return logits
    lesions = [i for i in range(output.evidence.shape[1]) if i not in task.lesion_free]
    evidence = output.evidence[:, lesions].sum(dim=1, keepdim=True)
    excess = torch.logit(evidence, eps=1e-4) - EVIDENCE_CUT
    excess = F.interpolate(excess, logits.shape[-2:], mode="bilinear", align_corners=False)
    limits = (-LOGIT_LIMIT, LOGIT_LIMIT)
    return logits.clamp(*limits) + weight * excess.clamp(*limits)

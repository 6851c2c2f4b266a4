"""A student learns from masks and pseudo-labels of all labeled images, and from their labels."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from dxseg.config.network import ModelConfig
from dxseg.config.stages import StudentConfig
from dxseg.data.batches.batches import Batch
from dxseg.models.factory import Task
from dxseg.models.segmentation_model import SegmentationModel
from dxseg.training.losses import LabelLoss
from dxseg.training.modules.segmentation import SegmentationModule
from dxseg.training.thresholds import implies_lesion, implies_no_lesion

LESION_AREA = 0.005
"""Fraction of the pixels that decide whether a mask shows a lesion: those of the highest logits."""


class StudentModule(SegmentationModule):
    """Lightning module of a student: three losses on the same images.

    Masks, true ones and pseudo-labels, teach where a lesion is. Labels teach the label head, if
    there is one, and also the mask: an image without a lesion must show none, one with a lesion
    must show some, whatever its pseudo-label shows.
    """

    def __init__(
        self,
        segmenter: SegmentationModel,
        label_loss: LabelLoss,
        task: Task,
        model: ModelConfig,
        config: StudentConfig,
    ) -> None:
        """Wrap a segmentation network.

        Args:
            segmenter: the network.
            label_loss: of the label head.
            task: channels, classes, labels.
            model: its configuration, for the learning rates of its parts.
            config: of the stage.
        """
        super().__init__(segmenter, model, config, soft_targets=True)
        self.label_loss = label_loss
        self.task = task
        self.weights = {"label": config.label_weight, "mask_label": config.mask_label_weight}

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:  # noqa: ARG002
        """The weighted sum of the losses."""
        output = self.segmenter(batch["image"], None, self.whole_view(batch))
        losses = {"mask": self.loss(output.mask_logits, batch["mask"])}
        if output.label_logits is not None:
            losses["label"] = self.label_loss(output.label_logits, batch["label"])
        # A patch need not show the lesion of its image: there the target says whether it does.
        lesions = batch["mask"][:, self.task.lesion_channels]
        shown = (lesions.flatten(1).amax(1) > 0.5) if "whole" in batch else None
        losses["mask_label"] = mask_label_loss(output.mask_logits, batch["label"], self.task, shown)
        total = sum(self.weights.get(name, 1.0) * loss for name, loss in losses.items())
        figures = {f"train_{name}_loss": loss for name, loss in losses.items()}
        self.log_dict(
            figures | {"train_loss": total},
            on_step=False,
            on_epoch=True,
            sync_dist=True,
            batch_size=len(batch["image"]),
        )
        assert isinstance(total, Tensor)
        return total


def mask_label_loss(
    logits: Tensor, label: Tensor, task: Task, shown: Tensor | None = None
) -> Tensor:
    """Binary cross-entropy between what a label says of a lesion and what a mask shows of one.

    The image-level logit of a mask is the mean of its highest logits, over a fraction `LESION_AREA`
    of the pixels (multiple-instance pooling by the top instances).

    Args:
        logits: (B, K, H, W) of the mask.
        label: as in `dxseg.data.batches.batches.Batch`.
        task: which labels mean no lesion, and which classes are lesions.
        shown: (B,) whether each image shows the lesion that its label means, if it has one; those
            that do not are left out. None: all do.

    Returns:
        The mean over the images whose label means a lesion or none; 0 if there is no such image.
    """
    pixels = logits[:, task.lesion_channels].amax(dim=1).flatten(1)
    pooled = pixels.topk(max(1, round(LESION_AREA * pixels.shape[1])), dim=1).values.mean(dim=1)
    labels = label.cpu().numpy()
    lesion = implies_lesion(labels, task.without_lesion)
    none = implies_no_lesion(labels, task.without_lesion)
    with_lesion = torch.from_numpy(lesion).to(pooled.device)
    known = torch.from_numpy(none).to(pooled.device) | (
        with_lesion if shown is None else with_lesion & shown
    )
    if not known.any():
        return logits.sum() * 0.0
    return F.binary_cross_entropy_with_logits(pooled[known], with_lesion[known].to(pooled))

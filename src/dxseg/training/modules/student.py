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
"""Fraction of the pixels that decide whether a mask shows a lesion, those of the highest logits; of
a smaller lesion, as many as it covers."""


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
        losses["mask_label"] = mask_label_loss(
            output.mask_logits, batch["mask"], batch["label"], self.task
        )
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


def mask_label_loss(logits: Tensor, target: Tensor, label: Tensor, task: Task) -> Tensor:
    """Binary cross-entropy between what a label says of a lesion and what a mask shows of one.

    The image-level logit of a mask is the mean of its highest logits (multiple-instance pooling by
    the top instances), over a fraction `LESION_AREA` of the pixels, or over as many as the target
    covers if these are fewer. An image whose target shows no lesion although its label means one is
    left out: it is a patch beside the lesion, or augmentation has moved the lesion out.

    Args:
        logits: (B, K, H, W) of the mask.
        target: (B, K, H, W), the mask or pseudo-label, 0 to 1.
        label: as in `dxseg.data.batches.batches.Batch`.
        task: which labels mean no lesion, and which classes are lesions.

    Returns:
        The mean over the images whose label means a lesion or none, in which both kinds have the
        same weight; 0 if there is no such image.
    """
    pixels = logits[:, task.lesion_channels].amax(dim=1).flatten(1)
    covered = (target[:, task.lesion_channels].amax(dim=1).flatten(1) > 0.5).sum(dim=1)
    labels = label.cpu().numpy()
    lesion = torch.from_numpy(implies_lesion(labels, task.without_lesion)).to(pixels.device)
    lesion = lesion & (covered > 0)
    none = torch.from_numpy(implies_no_lesion(labels, task.without_lesion)).to(pixels.device)
    most = max(1, round(LESION_AREA * pixels.shape[1]))
    count = torch.where(lesion, covered.clamp(1, most), most)
    highest = pixels.topk(most, dim=1).values
    chosen = torch.arange(most, device=pixels.device) < count[:, None]
    pooled = (highest * chosen).sum(dim=1) / count
    loss = F.binary_cross_entropy_with_logits(pooled, lesion.to(pooled), reduction="none")
    kinds = [loss[kind].mean() for kind in (lesion, none) if kind.any()]
    return torch.stack(kinds).mean() if kinds else logits.sum() * 0.0

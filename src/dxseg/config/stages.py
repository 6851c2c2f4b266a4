"""The configuration of the stages of a training: optimization, and what is special to each."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field, PositiveInt, model_validator

from dxseg.config.network import StrictConfig


class StageConfig(StrictConfig):
    """Optimization of one stage: AdamW, linear warm-up, then cosine decay to zero.

    Attributes:
        steps: optimizer steps, rounded up to whole epochs.
        steps_per_epoch: a validation and a checkpoint follow each epoch.
        learning_rate: after warm-up.
        encoder_learning_rate_scale: factor on the learning rate of the encoder.
        weight_decay: of AdamW; biases and norm scales are not decayed.
        warmup_steps: of the learning rate.
        gradient_clip_val: largest norm of the gradient.
        accumulate_grad_batches: batches per optimizer step.
        label_smoothing: fraction of a label's target that is spread over all labels.
        ema_decay: decay of the moving average of the weights, which is validated and kept; 0: off.
        early_stopping_patience: validations without improvement before the stage stops. Default:
            off.
        checkpoint: which weights the stage ends with: of the last epoch or of the best validation.
    """

    steps: PositiveInt = 150
    steps_per_epoch: PositiveInt = 50
    learning_rate: float = Field(default=1e-3, gt=0)
    encoder_learning_rate_scale: float = Field(default=1.0, gt=0, le=1)
    weight_decay: float = Field(default=0.01, ge=0)
    warmup_steps: int = Field(default=30, ge=0)
    gradient_clip_val: float = Field(default=1.0, gt=0)
    accumulate_grad_batches: PositiveInt = 1
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    ema_decay: float = Field(default=0.0, ge=0, lt=1)
    early_stopping_patience: PositiveInt | None = None
    checkpoint: Literal["last", "best"] = "last"

    @property
    def is_selected(self) -> bool:
        """Whether validation decides which weights the stage ends with."""
        return self.checkpoint == "best" or self.early_stopping_patience is not None

    @property
    def max_epochs(self) -> int:
        """Whole epochs."""
        return -(-self.steps // self.steps_per_epoch)

    @property
    def epoch_steps(self) -> int:
        """Optimizer steps per epoch."""
        return min(self.steps, self.steps_per_epoch)

    @property
    def total_steps(self) -> int:
        """`steps` rounded up to whole epochs."""
        return self.max_epochs * self.epoch_steps


MIN_STEPS, MAX_STEPS = 300, 3000


class Stage1Config(StageConfig):
    """Optimization of stage 1; its length follows the number of labeled images.

    Attributes:
        steps: as of any stage. Default: from `epochs`.
        epochs: passes over the labeled images, but at least 300 and at most 3000 steps.
    """

    steps: PositiveInt | None = None  # type: ignore[assignment]  # set by for_images
    epochs: float = Field(default=8.0, gt=0)

    def for_images(self, count: int, batch_size: int) -> StageConfig:
        """The stage for `count` labeled images, with `steps` set."""
        wanted = math.ceil(self.epochs * count / (batch_size * self.accumulate_grad_batches))
        steps = self.steps or min(max(wanted, MIN_STEPS), MAX_STEPS)
        return StageConfig.model_validate(self.model_dump(exclude={"epochs"}) | {"steps": steps})


class SelfTrainingConfig(StageConfig):
    """Label-filtered self-training after stage 2, by a mean teacher.

    Attributes:
        ema_decay: decay of the teacher, the moving average of the student's weights.
        unlabeled_fraction: fraction of a batch that has no mask and gets pseudo-labels.
        confidence: probability that a pseudo-label must reach in at least one pixel.
        pseudo_label_weight: weight of the loss on pseudo-labels.
        label_filter: whether the labels of the images filter their pseudo-labels; if not, no label
            of an image without a mask is read.
        pixel_confidence: probability, of lesion or of none, that a pixel of a pseudo-label must
            reach to be learned from; 0.5: all pixels are.
        hard_pseudo_labels: whether pseudo-labels are cut at one half.
        largest_component: whether only the largest connected component of a hard pseudo-label is
            kept.
        strong_views: strongly augmented views of each image without a mask.
        mix: what a rectangle of these views is replaced by: `cutmix`, the same place of another of
            them, or `copy-paste`, that of an image with a mask, which gets theirs in turn.
        mix_prob: probability that a view is mixed.
        feature_dropout: probability that a channel of the encoder's features is dropped in one more
            view, which is not augmented strongly; 0: no such view.
        evidence_weight: weight of the class activation maps (evidence) in pseudo-labels; 0: off.
        contrast: strong augmentation of images without a mask: largest relative change of contrast.
        brightness: largest shift, in standard deviations of the images.
        noise: standard deviation of the noise, in those of the images.
        erased: largest erased fraction of the area.
    """

    steps: PositiveInt = 300
    learning_rate: float = Field(default=5e-4, gt=0)
    ema_decay: float = Field(default=0.99, gt=0, lt=1)
    unlabeled_fraction: float = Field(default=0.5, gt=0, lt=1)
    confidence: float = Field(default=0.6, ge=0.5, lt=1)
    pseudo_label_weight: float = Field(default=0.7, gt=0)
    label_filter: bool = True
    pixel_confidence: float = Field(default=0.5, ge=0.5, lt=1)
    hard_pseudo_labels: bool = False
    largest_component: bool = False
    strong_views: int = Field(default=1, ge=1, le=8)
    mix: Literal["cutmix", "copy-paste"] | None = None
    mix_prob: float = Field(default=1.0, gt=0, le=1)
    feature_dropout: float = Field(default=0.0, ge=0, lt=1)
    evidence_weight: float = Field(default=0.0, ge=0, le=4)
    contrast: float = Field(default=0.2, ge=0, lt=1)
    brightness: float = Field(default=0.2, ge=0, le=2)
    noise: float = Field(default=0.15, ge=0, le=2)
    erased: float = Field(default=0.09, ge=0, le=0.5)

    @model_validator(mode="after")
    def _components_are_hard(self) -> SelfTrainingConfig:
        if self.largest_component and not self.hard_pseudo_labels:
            raise ValueError(
                "largest_component is of pseudo-labels that are cut: set hard_pseudo_labels to true"
            )
        return self


class StudentConfig(StageConfig):
    """A student after the other stages: it learns from all labeled images, and is deployed.

    Attributes:
        rounds: students in a row; each learns from the one before, the first from the teacher.
        lesion_free_fraction: fraction of lesion-free images in a batch.
        pseudo_label_peak: probability to which the highest one of a pseudo-label is raised if the
            label of its image means a lesion; null: images whose lesion the teacher does not find
            are left out.
        label_weight: weight of the loss of the label head.
        mask_label_weight: weight of the loss that compares the mask with the label: lesion or none.
    """

    steps: PositiveInt = 450
    rounds: int = Field(default=1, ge=1, le=10)
    lesion_free_fraction: float = Field(default=0.3, ge=0.0, lt=1.0)
    pseudo_label_peak: float | None = Field(default=0.8, gt=0.5, lt=1)
    label_weight: float = Field(default=0.5, ge=0)
    mask_label_weight: float = Field(default=0.1, ge=0)

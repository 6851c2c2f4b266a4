"""Every knob of a run, typed and validated; `dxseg.config.presets` gives values of it."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator


class _Strict(BaseModel):
    """Unknown keys are errors: a misspelt knob must not be ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class SkipsConfig(_Strict):
    """Which skip connections of the dual U-shape are built; every piece can be left out.

    Those of the paper are on. ``evidence`` is ours, and was worth nothing beside them.
    """

    feature_share: bool = True
    resolution_compensation: bool = True
    long: bool = True
    evidence: bool = False

    @model_validator(mode="after")
    def _compensation_needs_fusion(self) -> SkipsConfig:
        if self.resolution_compensation and not self.feature_share:
            raise ValueError(
                "resolution_compensation carries the fused features of feature_share: "
                "switch feature_share on, or resolution_compensation off"
            )
        return self


class ModelConfig(_Strict):
    """The network of a method.

    ``decoder_channels`` are the widths of the decoder blocks at strides 16, 8, 4, 2 and 1, the
    order of segmentation-models-pytorch. ``coarse_init`` says where the weights of the coarse
    branch come from: ``stage1`` is the method, ``pretrained`` the capacity control that never saw
    an image-level label. ``coarse_learning_rate_scale`` 0 freezes the coarse branch.
    ``shared_stages`` is how many levels, finest first, both encoders of ``sks`` have in common;
    ``label_head`` gives a single-branch network an image-level head, trained beside its masks.
    """

    architecture: Literal["sks", "unet", "unetplusplus", "manet"] = "sks"
    backbone: str = "tf_efficientnet_lite0"
    decoder_channels: tuple[Annotated[int, Field(gt=0, le=2048)], ...] = Field(
        default=(128, 64, 32, 16, 8), min_length=5, max_length=5
    )
    skips: SkipsConfig = SkipsConfig()
    encoder_init: Literal["random", "pretrained", "stage1"] = "stage1"
    coarse_init: Literal["pretrained", "stage1"] = "stage1"
    coarse_learning_rate_scale: float = Field(default=0.0, ge=0.0, le=1.0)
    shared_stages: int = Field(default=0, ge=0)
    label_head: bool = False

    @model_validator(mode="after")
    def _sharing_fits(self) -> ModelConfig:
        if self.shared_stages and self.architecture != "sks":
            raise ValueError(
                f"shared_stages {self.shared_stages} needs the two encoders of architecture sks; "
                f"{self.architecture} has one: set shared_stages to 0"
            )
        if self.shared_stages and self.encoder_init != self.coarse_init:
            raise ValueError(
                f"with shared_stages {self.shared_stages} the fine encoder goes on where the "
                f"coarse one stops: encoder_init ({self.encoder_init}) and coarse_init "
                f"({self.coarse_init}) must be the same"
            )
        return self

    @model_validator(mode="after")
    def _one_label_head(self) -> ModelConfig:
        if self.label_head and self.architecture == "sks":
            raise ValueError(
                "the coarse branch of sks names the label already: label_head is for "
                "architectures of one branch"
            )
        return self

    @property
    def requires_stage1(self) -> bool:
        """Whether stage 2 of this method starts from a stage-1 classifier."""
        return self.encoder_init == "stage1" or self.prompted

    @property
    def has_label_head(self) -> bool:
        """Whether the network answers with image-level labels that it has learnt."""
        return self.label_head or self.prompted

    @property
    def has_unused_parameters(self) -> bool:
        """Whether stage 2 trains parts that no mask depends on.

        Those are of a coarse branch that learns on: its evidence needs all of it, without evidence
        its heads are of no use.
        """
        learns_on = self.architecture == "sks" and self.coarse_learning_rate_scale > 0
        return learns_on and not self.skips.evidence

    @property
    def prompted(self) -> bool:
        """Whether a branch that learnt image-level labels prompts the segmentation."""
        return self.architecture == "sks" and self.coarse_init == "stage1"


class DataConfig(_Strict):
    """Pixels and batches.

    ``batch_size`` is of a step, however many processes share it out. ``lesion_free_fraction`` is
    the lesion-free part of a stage-2 batch, ``label_prompt_prob`` the part whose label the network
    is told (label prompt), ``bag_size`` the largest number of slices that stand for a study in a
    step of stage 1. ``cache_dir`` is where pixels at training size are kept.
    """

    image_size: int = Field(default=128, ge=32, le=4096)
    batch_size: PositiveInt = 16
    bag_size: PositiveInt = 8
    lesion_free_fraction: float = Field(default=0.125, ge=0.0, lt=1.0)
    label_prompt_prob: float = Field(default=0.5, ge=0.0, le=1.0)
    workers: int = Field(default=0, ge=0, le=64)
    cache_dir: str | None = None


class SplitConfig(_Strict):
    """Who is in which split, and which masks may be used.

    ``masks``: training masks, a count, a fraction in (0, 1), or nothing for all of them.
    ``validation_masks``: the stated budget of masks that validation may look at.
    ``split_seed`` draws the split; the run's ``seed`` draws the masks inside it.
    """

    fractions: tuple[float, float, float] = (0.7, 0.1, 0.2)
    split_seed: int = 0
    masks: int | float | None = Field(default=None, gt=0)
    validation_masks: int | None = Field(default=10, ge=0)


class AugmentConfig(_Strict):
    """Random changes of a training image; geometry moves image and mask together."""

    degrees: float = Field(default=15.0, ge=0, le=180)
    translate: float = Field(default=0.1, ge=0, le=0.5)
    scale: tuple[float, float] = (0.8, 1.25)
    shear: float = Field(default=5.0, ge=0, le=45)
    horizontal_flip: float = Field(default=0.5, ge=0, le=1)
    vertical_flip: float = Field(default=0.0, ge=0, le=1)
    brightness: float = Field(default=0.2, ge=0, le=1)
    contrast: float = Field(default=0.25, ge=0, lt=1)
    gamma: float = Field(default=0.25, ge=0, lt=1)
    noise: float = Field(default=0.03, ge=0, le=1)

    @model_validator(mode="after")
    def _scale_is_a_range(self) -> AugmentConfig:
        if not 0 < self.scale[0] <= self.scale[1] <= 10:
            raise ValueError("scale needs 0 < smallest <= largest <= 10")
        return self


class StageConfig(_Strict):
    """Optimisation of one stage: AdamW, linear warm-up, then cosine to zero.

    ``ema_decay`` 0 keeps the raw weights; ``early_stopping_patience`` counts validations without
    an improvement, nothing switches it off; ``select`` says which weights the stage ends with.
    """

    steps: PositiveInt = 150
    steps_per_epoch: PositiveInt = 50
    learning_rate: float = Field(default=1e-3, gt=0)
    encoder_learning_rate_scale: float = Field(default=1.0, gt=0, le=1)
    weight_decay: float = Field(default=0.01, ge=0)
    warmup_steps: int = Field(default=30, ge=0)
    gradient_clip_val: float = Field(default=1.0, gt=0)
    accumulate: PositiveInt = 1
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    ema_decay: float = Field(default=0.0, ge=0, lt=1)
    early_stopping_patience: PositiveInt | None = None
    select: Literal["last", "best"] = "last"

    @property
    def epochs(self) -> int:
        """Whole epochs; a validation and a checkpoint end each."""
        return -(-self.steps // self.steps_per_epoch)

    @property
    def epoch_steps(self) -> int:
        """Optimiser steps an epoch."""
        return min(self.steps, self.steps_per_epoch)

    @property
    def total_steps(self) -> int:
        """``steps`` rounded up to whole epochs."""
        return self.epochs * self.epoch_steps


LEAST_STEPS, MOST_STEPS = 300, 3000


class Stage1Config(StageConfig):
    """Optimisation of stage 1, whose length follows the number of labelled images.

    Without ``steps`` it makes so many ``passes`` over them, but no fewer than 300 steps and no more
    than 3000.
    """

    steps: PositiveInt | None = None  # type: ignore[assignment]  # settled by for_images
    passes: float = Field(default=8.0, gt=0)

    def for_images(self, count: int, batch_size: int) -> StageConfig:
        """The stage for so many labelled images, with ``steps`` settled."""
        wanted = math.ceil(self.passes * count / (batch_size * self.accumulate))
        steps = self.steps or min(max(wanted, LEAST_STEPS), MOST_STEPS)
        return StageConfig.model_validate(self.model_dump(exclude={"passes"}) | {"steps": steps})


class SelfTrainingConfig(StageConfig):
    """Label-filtered self-training after stage 2, by a mean teacher.

    ``unlabeled_fraction`` is the part of a batch whose mask is not known; ``teacher_decay`` the
    moving average of the student that proposes their masks; ``confidence`` the probability that a
    proposal has to reach somewhere; ``pseudo_label_weight`` that of their loss. ``evidence_weight``
    is what evidence maps have to say in them. ``contrast``, ``brightness`` and ``noise`` (in
    standard deviations of the images) and ``erased`` (largest part of the area) disturb what the
    student sees of them.
    """

    steps: PositiveInt = 300
    learning_rate: float = Field(default=5e-4, gt=0)
    unlabeled_fraction: float = Field(default=0.5, gt=0, lt=1)
    teacher_decay: float = Field(default=0.99, gt=0, lt=1)
    confidence: float = Field(default=0.6, ge=0.5, lt=1)
    pseudo_label_weight: float = Field(default=0.7, gt=0)
    evidence_weight: float = Field(default=0.0, ge=0, le=4)
    contrast: float = Field(default=0.2, ge=0, lt=1)
    brightness: float = Field(default=0.2, ge=0, le=2)
    noise: float = Field(default=0.15, ge=0, le=2)
    erased: float = Field(default=0.09, ge=0, le=0.5)

    @model_validator(mode="after")
    def _one_average(self) -> SelfTrainingConfig:
        if self.ema_decay:
            raise ValueError("the teacher is an average already: set teacher_decay, not ema_decay")
        return self


class DeviceConfig(_Strict):
    """Where and how to compute, handed to Lightning's Trainer.

    Where a launcher such as torchrun has started several processes, it decides on their number, not
    ``devices`` and ``nodes``. ``deterministic`` refuses operations that give other bits from call
    to call, not only warns.
    """

    accelerator: str = "auto"
    devices: int | Literal["auto"] = "auto"
    nodes: PositiveInt = 1
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    deterministic: bool = False


class RunConfig(_Strict):
    """A whole run, as written to ``config.yaml``.

    ``self_training`` follows stage 2 where it is given. ``gate_sensitivity`` is the share of
    validation images with a lesion that the image-level gate must let through,
    ``rule_in_specificity`` that of the lesion-free ones that must not be taken for known lesions;
    nothing switches either off.
    """

    method: str = "sks"
    seed: int = Field(default=0, ge=0, lt=2**31)
    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    split: SplitConfig = SplitConfig()
    augment: AugmentConfig = AugmentConfig()
    stage1: Stage1Config = Stage1Config()
    stage2: StageConfig = StageConfig()
    self_training: SelfTrainingConfig | None = None
    gate_sensitivity: float | None = Field(default=0.98, gt=0, le=1)
    rule_in_specificity: float | None = Field(default=0.95, gt=0, le=1)
    device: DeviceConfig = DeviceConfig()

    def to_yaml(self) -> str:
        """The configuration as YAML, every default written out."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)

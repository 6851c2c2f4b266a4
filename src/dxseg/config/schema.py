"""The configuration of a run, typed and validated; `dxseg.config.presets` holds named values."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BeforeValidator,
    Field,
    PositiveInt,
    field_validator,
    model_validator,
)

from dxseg.config.mask_budget import parse_mask_budget
from dxseg.config.network import ModelConfig, StrictConfig
from dxseg.config.stages import SelfTrainingConfig, Stage1Config, StageConfig, StudentConfig

Millimeters = Annotated[float, Field(gt=0, lt=1e6)]


class DataConfig(StrictConfig):
    """Pixels and batches.

    Attributes:
        image_size: side of the square that images are fitted into, pixels.
        patch_size: side of the patches of it that masks are learned from, pixels, a multiple of 32;
            labels are of whole images. Default: whole images.
        spacing: height and width of a pixel at which images are seen, mm; `auto`: the median of
            all cases of the dataset. Default: as image_size makes it.
        sliding_window: whether images that are larger than image_size at the spacing are predicted
            in overlapping windows instead of being reduced; training and validation have none.
        soft_masks: whether targets are how much of a pixel a lesion covers, from 0 to 1, where
            masks are resized; else they are cut at one half.
        batch_size: images per optimizer step, over all processes.
        bag_size: largest number of images that represent a study in a step of stage 1.
        lesion_free_fraction: fraction of lesion-free images in a stage-2 batch.
        label_prompt_prob: probability that a training image's label is given to the network (label
            prompt).
        workers: processes that load batches; 0 loads them in the training process.
        cache_dir: folder of decoded images. Default: `.cache` in the dataset.
    """

    image_size: int = Field(default=128, ge=32, le=4096)
    patch_size: int | None = Field(default=None, ge=32, le=4096, multiple_of=32)
    batch_size: PositiveInt = 16
    bag_size: PositiveInt = 8
    spacing: Literal["auto"] | tuple[Millimeters, Millimeters] | None = None
    sliding_window: bool = False
    soft_masks: bool = False
    lesion_free_fraction: float = Field(default=0.125, ge=0.0, lt=1.0)
    label_prompt_prob: float = Field(default=0.5, ge=0.0, le=1.0)
    workers: int = Field(default=0, ge=0, le=64)
    cache_dir: str | None = None

    @model_validator(mode="after")
    def _patches_fit(self) -> DataConfig:
        if self.patch_size is not None and self.patch_size > self.image_size:
            raise ValueError(
                f"patch_size {self.patch_size} is larger than the images it is cut from: choose at "
                f"most {self.image_size} (image_size), or a larger image_size"
            )
        return self

    @model_validator(mode="after")
    def _windows_have_a_scale(self) -> DataConfig:
        if self.sliding_window and self.spacing is None:
            raise ValueError(
                "sliding_window true: without a spacing, windows would show images at another "
                "scale than training does: set spacing, such as auto, or sliding_window to false"
            )
        return self


class SplitConfig(StrictConfig):
    """How cases are split, and which masks may be used.

    Attributes:
        fractions: of training, validation and test.
        split_seed: random seed of the split; the run's `seed` selects the masks within it.
        masks: training masks to use, a count or a fraction in (0, 1). Default: all.
        validation_masks: number of masks that validation may use.
        budget_unit: what both count: masks of slices, or volumes, with the masks of all their
            slices. Default: volumes where the dataset has some, else images.
        label_unit: what a label is known of where the mask is hidden: each slice, each of three
            slabs of a volume, or the volume. Default: as `label_level` in `cases.csv`; a label that
            follows from a label map is known of the volume only.
    """

    fractions: tuple[float, float, float] = (0.7, 0.1, 0.2)
    split_seed: int = 0
    masks: Annotated[int | float, BeforeValidator(parse_mask_budget)] | None = None
    validation_masks: int | None = Field(default=10, ge=0)
    budget_unit: Literal["volume", "slice"] | None = None
    label_unit: Literal["slice", "slab", "volume"] | None = None


class AugmentConfig(StrictConfig):
    """Random augmentation of training images; geometry changes image and mask alike."""

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


class DeviceConfig(StrictConfig):
    """Where and how to compute; passed to Lightning's Trainer.

    Attributes:
        accelerator: as Lightning names it.
        devices: per machine. A launcher such as torchrun overrides it.
        num_nodes: machines; more than one needs a launcher.
        precision: of the forward pass.
        deterministic: raises an error for operations that are not deterministic, instead of a
            warning.
    """

    accelerator: str = "auto"
    devices: PositiveInt | Literal["auto"] = "auto"
    num_nodes: PositiveInt = 1
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    deterministic: bool = False

    @field_validator("devices", mode="before")
    @classmethod
    def _all_of_them(cls, value: Any) -> Any:
        """Lightning's -1, as earlier versions recorded it."""
        return "auto" if value == -1 else value


class RunConfig(StrictConfig):
    """A whole run, as written to `config.yaml`.

    Attributes:
        method: its name.
        seed: random seed of mask selection, initialization and batches.
        self_training: follows stage 2. Default: none.
        student: follows stage 2 or self-training, learns from their network, and is what the run
            ends with. Default: none.
        rule_out_sensitivity: fraction of the validation images with a lesion that must stay above
            the rule-out threshold; null: no such threshold.
        rule_in_specificity: fraction of the lesion-free validation images that must stay below the
            rule-in threshold; null: no such threshold.
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
    student: StudentConfig | None = None
    rule_out_sensitivity: float | None = Field(default=0.98, gt=0, le=1)
    rule_in_specificity: float | None = Field(default=0.95, gt=0, le=1)
    device: DeviceConfig = DeviceConfig()

    @model_validator(mode="after")
    def _reduction_fits(self) -> RunConfig:
        size, reduction = self.data.image_size, self.model.coarse_reduction
        if reduction > 1 and (size % reduction or size < 32 * reduction):
            raise ValueError(
                f"model.coarse_reduction {reduction} does not divide data.image_size {size} into "
                "images of 32 px or more: choose a divisor"
            )
        return self

    @model_validator(mode="after")
    def _self_training_fits(self) -> RunConfig:
        options, model = self.self_training, self.model
        if options is None:
            return self
        if not options.label_filter and model.has_label_head:
            raise ValueError(
                "self_training.label_filter false reads no labels, and this network has a part "
                "that learns them: choose a network of one branch without label_head, or true"
            )
        if options.feature_dropout and model.architecture == "sks" and model.skips.fuse_in_encoder:
            raise ValueError(
                "self_training.feature_dropout acts on an encoder that runs to its end: set it to "
                "0, or model.skips.fuse_in_encoder to false"
            )
        if options.mix and model.architecture == "sks" and self.data.patch_size is not None:
            raise ValueError(
                "self_training.mix changes patches, and the coarse branch sees the whole image, "
                "which is not mixed: set mix to null, or data.patch_size"
            )
        return self

    @property
    def coarse_size(self) -> int:
        """Side of the images that stage 1 learns from, pixels."""
        return self.data.image_size // self.model.coarse_reduction

    @property
    def stages(self) -> list[str]:
        """The stages after stage 1 in their order, named as their folders and records."""
        rounds = 0 if self.student is None else self.student.rounds
        students = [f"student{n}" if n > 1 else "student" for n in range(1, rounds + 1)]
        return ["stage2", *(["self_training"] if self.self_training else []), *students]

    def to_yaml(self) -> str:
        """The configuration as YAML, every default written out."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)

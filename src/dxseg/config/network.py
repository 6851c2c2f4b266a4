"""The configuration of a network: its architecture, its skips, and where its weights start from."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class StrictConfig(BaseModel):
    """Unknown keys are errors: a misspelt option must not be ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class SkipsConfig(StrictConfig):
    """Which skip connections of the dual U-shape are built.

    Those of the paper are on by default. `evidence` is ours; it added nothing to them in our
    experiments.
    """

    feature_share: bool = True
    resolution_compensation: bool = True
    fuse_in_encoder: bool = False
    long: bool = True
    evidence: bool = False

    @model_validator(mode="after")
    def _compensation_needs_fusion(self) -> SkipsConfig:
        if self.resolution_compensation and not self.feature_share:
            raise ValueError(
                "resolution_compensation carries the fused features of feature_share: "
                "switch feature_share on, or resolution_compensation off"
            )
        if self.fuse_in_encoder and not self.resolution_compensation:
            raise ValueError(
                "fuse_in_encoder goes on from the fused features of every level: "
                "switch resolution_compensation on, or fuse_in_encoder off"
            )
        return self


class ModelConfig(StrictConfig):
    """The network of a method.

    Attributes:
        architecture: `sks` has two branches; the others are baselines of
            segmentation-models-pytorch.
        backbone: name of the encoder in timm.
        decoder_channels: widths of the decoder blocks at strides 16, 8, 4, 2 and 1, in the order of
            segmentation-models-pytorch.
        skips: of `sks`.
        encoder_weights: file of the weights that `pretrained` encoders and stage 1 start from.
            Default: ImageNet, from a Python package or from timm's hub.
        encoder_init: initial weights of the encoder that masks train.
        coarse_init: initial weights of the coarse branch: `stage1` is the method, `pretrained` the
            capacity control that never saw an image-level label.
        coarse_learning_rate_scale: factor on the learning rate of the coarse branch; 0 freezes it.
        shared_encoder_levels: number of levels, finest first, that both encoders of `sks` share.
        coarse_reduction: how many pixels of an image make one, along each axis, of the image that
            is classified; masks have all pixels. Stage 1 learns from images of that size.
        label_head: gives a single-branch network an image-level head, trained together with masks.
        classifier: keeps the stage-1 classifier beside the network, for image-level decisions. One
            with two branches contains it already.
    """

    architecture: Literal["sks", "unet", "unetplusplus", "manet"] = "sks"
    backbone: str = "tf_efficientnet_lite0"
    decoder_channels: tuple[Annotated[int, Field(gt=0, le=2048)], ...] = Field(
        default=(128, 64, 32, 16, 8), min_length=5, max_length=5
    )
    skips: SkipsConfig = SkipsConfig()
    encoder_weights: str | None = None
    encoder_init: Literal["random", "pretrained", "stage1"] = "stage1"
    coarse_init: Literal["pretrained", "stage1"] = "stage1"
    coarse_learning_rate_scale: float = Field(default=0.0, ge=0.0, le=1.0)
    shared_encoder_levels: int = Field(default=0, ge=0)
    coarse_reduction: int = Field(default=1, ge=1, le=16)
    label_head: bool = False
    classifier: bool = False

    @model_validator(mode="after")
    def _weights_are_used(self) -> ModelConfig:
        if self.encoder_weights is not None and not self.starts_from_weights:
            raise ValueError(
                f"nothing starts from encoder_weights {self.encoder_weights!r} with encoder_init "
                "random: set encoder_init to pretrained, or leave the file out"
            )
        return self

    @model_validator(mode="after")
    def _sharing_fits(self) -> ModelConfig:
        if self.shared_encoder_levels and self.architecture != "sks":
            raise ValueError(
                f"shared_encoder_levels {self.shared_encoder_levels} needs the two encoders of "
                f"architecture sks; {self.architecture} has one: set shared_encoder_levels to 0"
            )
        if self.shared_encoder_levels and self.coarse_reduction > 1:
            raise ValueError(
                f"shared_encoder_levels {self.shared_encoder_levels}: with coarse_reduction "
                f"{self.coarse_reduction} the two branches see different resolutions and share "
                "no level; set one of the two to its default"
            )
        if self.shared_encoder_levels and self.encoder_init != self.coarse_init:
            raise ValueError(
                f"with shared_encoder_levels {self.shared_encoder_levels} the fine encoder "
                f"continues the coarse one: encoder_init ({self.encoder_init}) and coarse_init "
                f"({self.coarse_init}) must be the same"
            )
        return self

    @model_validator(mode="after")
    def _one_label_head(self) -> ModelConfig:
        if self.label_head and self.architecture == "sks":
            raise ValueError(
                "the coarse branch of sks predicts the label already: label_head is for "
                "architectures of one branch"
            )
        return self

    @model_validator(mode="after")
    def _one_classifier(self) -> ModelConfig:
        if self.classifier and self.prompted:
            raise ValueError(
                "the coarse branch of sks is the stage-1 classifier already: set classifier to "
                "false"
            )
        return self

    @property
    def starts_from_weights(self) -> bool:
        """Whether an encoder, perhaps that of stage 1, starts from pretrained weights."""
        coarse = self.architecture == "sks" and self.coarse_init == "pretrained"
        return self.encoder_init == "pretrained" or coarse or self.requires_stage1

    @property
    def requires_stage1(self) -> bool:
        """Whether this method needs a stage-1 classifier, to start from or for its decisions."""
        return self.encoder_init == "stage1" or self.prompted or self.classifier

    @property
    def learns_labels(self) -> bool:
        """Whether this method learns from image-level labels: by a stage 1, or a label head."""
        return self.requires_stage1 or self.label_head

    @property
    def has_label_head(self) -> bool:
        """Whether the network that masks train predicts labels that it was trained on."""
        return self.label_head or self.prompted

    @property
    def predicts_labels(self) -> bool:
        """Whether the trained model has image-level labels, its own or those of its classifier."""
        return self.has_label_head or self.classifier

    @property
    def contains_stage1(self) -> bool:
        """Whether the trained model contains the stage-1 classifier, in it or beside it."""
        return self.prompted or self.classifier

    @property
    def keeps_stage1(self) -> bool:
        """Whether the trained model contains the stage-1 classifier as stage 1 left it."""
        return self.classifier or (self.prompted and self.coarse_learning_rate_scale == 0)

    @property
    def has_coarse_branch(self) -> bool:
        """Whether the trained model has a coarse branch, as its second one or beside it."""
        return self.architecture == "sks" or self.classifier

    @property
    def has_unused_parameters(self) -> bool:
        """Whether stage 2 trains parameters that no mask depends on.

        These are the heads of a coarse branch that is not frozen, unless its evidence is a prompt.
        """
        trained = self.architecture == "sks" and self.coarse_learning_rate_scale > 0
        return trained and not self.skips.evidence

    @property
    def student(self) -> ModelConfig:
        """The network of a student: one branch on the same backbone, with a label head.

        It has none, and starts from other weights, where this network does not start from stage 1;
        then it keeps the classifier that this network has beside it, if any.
        """
        starts_there = self.encoder_init == "stage1" or self.prompted
        return ModelConfig(
            architecture="unet",
            backbone=self.backbone,
            decoder_channels=self.decoder_channels,
            encoder_weights=self.encoder_weights,
            encoder_init="stage1" if starts_there else self.encoder_init,
            coarse_reduction=self.coarse_reduction,
            label_head=starts_there,
            classifier=self.classifier and not starts_there,
        )

    @property
    def prompted(self) -> bool:
        """Whether a branch trained on image-level labels prompts the segmentation."""
        return self.architecture == "sks" and self.coarse_init == "stage1"

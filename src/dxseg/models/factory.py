"""Networks by name, and from a configuration."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dxseg.errors import UsageError
from dxseg.models.coarse_branch import CoarseBranch
from dxseg.models.decoder import DECODER_CHANNELS
from dxseg.models.segmentation_model import SegmentationModel
from dxseg.models.segmenter_with_classifier import SegmenterWithClassifier
from dxseg.models.skips import (
    EvidencePrompt,
    FeatureFusion,
    Fusion,
    LongSkip,
)
from dxseg.models.sks import SKS
from dxseg.models.weights import Weights

if TYPE_CHECKING:
    from dxseg.config.network import ModelConfig


def create_model(
    architecture: str,
    backbone: str,
    labels: int = 0,
    classes: int = 1,
    *,
    in_channels: int = 3,
    decoder_channels: Sequence[int] = DECODER_CHANNELS,
    encoder_weights: Weights | None = "imagenet",
    coarse_reduction: int = 1,
    **options: Any,
) -> SegmentationModel:
    """Build a segmentation model by name.

    Args:
        architecture: `sks`, or a baseline of segmentation-models-pytorch: `unet`, `unetplusplus`,
            `manet`.
        backbone: Name of the encoder in timm.
        labels: Number of image-level labels. A baseline has a label head if it is not 0.
        classes: Number of mask classes, background not counted.
        in_channels: Channels of the images.
        decoder_channels: Widths of the decoder blocks at strides 16, 8, 4, 2 and 1.
        encoder_weights: Initial weights of the encoder that masks train; None for random ones.
        coarse_reduction: How much the whole image is reduced to be classified.
        options: Further arguments of `SKS`.

    Raises:
        UsageError: There is no such architecture or backbone.
    """
    options |= {
        "in_channels": in_channels,
        "decoder_channels": decoder_channels,
        "encoder_weights": encoder_weights,
        "coarse_reduction": coarse_reduction,
    }
    if architecture == "sks":
        return SKS(backbone, labels, classes, **options)
    from dxseg.models.baselines import ARCHITECTURES, BaselineModel  # smp is slow to import

    if architecture not in ARCHITECTURES:
        names = ", ".join(["sks", *ARCHITECTURES])
        raise UsageError(f"architecture {architecture!r}: expected one of {names}")
    return BaselineModel(architecture, backbone, labels, classes, **options)


@dataclass(frozen=True)
class Task:
    """Input and output sizes of a network.

    Attributes:
        channels: Channels of the images.
        mask_classes: Number of mask classes, background not counted.
        labels: Number of image-level labels.
        multi_label: Whether an image can have several labels at once.
        lesion_free: Positions of the labels that mean: no lesion.
        organs_only: Positions of those that mean: no lesion, but organs may be outlined.
        organs: Channels of the mask that are organs and not lesions.
    """

    channels: int
    mask_classes: int
    labels: int
    multi_label: bool = False
    lesion_free: tuple[int, ...] = ()
    organs_only: tuple[int, ...] = ()
    organs: tuple[int, ...] = ()

    @property
    def lesion_channels(self) -> list[int]:
        """Channels of the mask that are lesions."""
        return [channel for channel in range(self.mask_classes) if channel not in self.organs]

    @property
    def without_lesion(self) -> tuple[int, ...]:
        """Positions of all labels that mean no lesion, whether or not the mask is empty."""
        return (*self.lesion_free, *self.organs_only)


def build_coarse_branch(config: ModelConfig, task: Task, *, pretrained: bool) -> CoarseBranch:
    """Build the network of stage 1."""
    return CoarseBranch(
        config.backbone,
        task.labels,
        in_channels=task.channels,
        decoder_channels=config.decoder_channels,
        multi_label=task.multi_label,
        lesion_free=task.lesion_free,
        encoder_weights=_weights(config) if pretrained else None,
    )


def build_model(
    config: ModelConfig, task: Task, *, stage1: CoarseBranch | None = None, pretrained: bool = True
) -> SegmentationModel:
    """Build the whole network of a model folder: that of stage 2, and the classifier beside it.

    Args:
        config: Architecture, skips, initial weights, and whether there is a classifier.
        task: Channels, classes and labels.
        stage1: See `build_segmenter`; the classifier gets its weights too.
        pretrained: See `build_segmenter`.
    """
    segmenter = build_segmenter(config, task, stage1=stage1, pretrained=pretrained)
    if not config.classifier:
        return segmenter
    classifier = build_coarse_branch(config, task, pretrained=False)
    if stage1 is not None:
        classifier.load_state_dict(stage1.state_dict())
    return SegmenterWithClassifier(segmenter, classifier)


def build_segmenter(
    config: ModelConfig, task: Task, *, stage1: CoarseBranch | None = None, pretrained: bool = True
) -> SegmentationModel:
    """Build the network of stage 2, which masks train.

    Args:
        config: Architecture, skips and initial weights.
        task: Channels, classes and labels.
        stage1: The trained classifier; what the configuration takes from it is copied.
        pretrained: Whether to load pretrained weights where the configuration asks for them. Off
            when weights are about to be loaded anyway.
    """
    is_sks = config.architecture == "sks"
    network = create_model(
        config.architecture,
        config.backbone,
        task.labels if is_sks or config.label_head else 0,
        task.mask_classes,
        in_channels=task.channels,
        decoder_channels=config.decoder_channels,
        encoder_weights=(
            _weights(config) if pretrained and config.encoder_init == "pretrained" else None
        ),
        coarse_reduction=config.coarse_reduction,
        **(_sks_options(config, task, pretrained) if is_sks else {}),
    )
    if stage1 is not None and config.encoder_init == "stage1":
        network.load_encoder(stage1)
    if stage1 is not None and config.coarse_init == "stage1" and isinstance(network, SKS):
        network.coarse.load_state_dict(stage1.state_dict())
    return network


def _sks_options(config: ModelConfig, task: Task, pretrained: bool) -> dict[str, Any]:
    skips = config.skips
    fusion: Callable[[Sequence[int]], Fusion] | None = None
    if skips.feature_share:
        fusion = FeatureFusion
    prompts = {
        LongSkip: skips.long,
        EvidencePrompt: skips.evidence,
    }
    return {
        "fusion": fusion,
        "resolution_compensation": skips.resolution_compensation,
        "fuse_in_encoder": skips.fuse_in_encoder,
        "prompts": [prompt for prompt, is_on in prompts.items() if is_on],
        "shared_encoder_levels": config.shared_encoder_levels,
        "freeze_coarse": config.coarse_learning_rate_scale == 0.0,
        "multi_label": task.multi_label,
        "lesion_free": task.lesion_free,
        "coarse_weights": (
            _weights(config) if pretrained and config.coarse_init == "pretrained" else None
        ),
    }


def _weights(config: ModelConfig) -> Weights:
    """What a pretrained encoder starts from."""
    return "imagenet" if config.encoder_weights is None else Path(config.encoder_weights)

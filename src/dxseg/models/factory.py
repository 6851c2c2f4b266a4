"""From a configuration to a network."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from dxseg.config.schema import ModelConfig
from dxseg.models.coarse_branch import CoarseBranch
from dxseg.models.encoder import PyramidEncoder
from dxseg.models.segmentation_model import SegmentationModel
from dxseg.models.skips import (
    EvidencePrompt,
    FeatureFusion,
    LongSkip,
    NoFeatureShare,
    NoResolutionCompensation,
    ResolutionCompensationSkip,
)
from dxseg.models.weights import load_pretrained


@dataclass(frozen=True)
class Task:
    """What goes in and what comes out.

    Attributes:
        channels: image channels.
        mask_classes: classes of the mask, background not counted.
        labels: image-level labels.
        multi_label: whether an image can have several labels at once.
        lesion_free: positions of the labels that mean: no lesion.
    """

    channels: int
    mask_classes: int
    labels: int
    multi_label: bool = False
    lesion_free: tuple[int, ...] = ()


def build_coarse_branch(config: ModelConfig, task: Task, *, pretrained: bool) -> CoarseBranch:
    """The network of stage 1."""
    encoder = _encoder(config, task, pretrained)
    return CoarseBranch(
        encoder,
        config.decoder_channels,
        task.labels,
        multi_label=task.multi_label,
        lesion_free=task.lesion_free,
    )


def build_model(
    config: ModelConfig,
    task: Task,
    *,
    stage1: CoarseBranch | None = None,
    pretrained: bool = True,
) -> SegmentationModel:
    """The network of stage 2.

    Args:
        config: which architecture and skips, and where weights start from.
        task: channels, classes and labels.
        stage1: the trained classifier; what the configuration takes from it is copied.
        pretrained: fetch ImageNet weights where the configuration asks for them. Off when weights
            are about to be loaded anyway.
    """
    encoder = _encoder(config, task, pretrained and config.encoder_init == "pretrained")
    if stage1 is not None and config.encoder_init == "stage1":
        encoder.load_state_dict(stage1.encoder.state_dict())
    if config.architecture == "sks":
        return _build_sks(config, task, encoder, stage1, pretrained)
    return _build_baseline(config, task, encoder, stage1)


def _encoder(config: ModelConfig, task: Task, pretrained: bool) -> PyramidEncoder:
    encoder = PyramidEncoder(config.backbone, task.channels)
    if pretrained:
        load_pretrained(encoder)
    return encoder


def _build_baseline(
    config: ModelConfig, task: Task, encoder: PyramidEncoder, stage1: CoarseBranch | None
) -> SegmentationModel:
    from dxseg.models.baselines import BaselineModel, MultitaskModel  # smp imports slowly

    shape = (encoder, task.channels, config.decoder_channels, task.mask_classes)
    if not config.label_head:
        return BaselineModel(config.architecture, *shape)
    segmenter = MultitaskModel(config.architecture, *shape, task.labels)
    if stage1 is not None and config.encoder_init == "stage1":
        # The head that stage 1 trained on the same feature of the same encoder.
        segmenter.label_head.load_state_dict(stage1.global_head.state_dict())
    return segmenter


def _build_sks(
    config: ModelConfig,
    task: Task,
    encoder: PyramidEncoder,
    stage1: CoarseBranch | None,
    pretrained: bool,
) -> SegmentationModel:
    from dxseg.models.shared_encoder import EncoderTail
    from dxseg.models.sks import SKS, SharedSKS

    coarse = build_coarse_branch(
        config, task, pretrained=pretrained and config.coarse_init == "pretrained"
    )
    if stage1 is not None and config.coarse_init == "stage1":
        coarse.load_state_dict(stage1.state_dict())
    skips, strides = config.skips, encoder.strides
    # Without compensation only the deepest level is read: fusions elsewhere would never learn.
    # A shared level is the same in both pyramids: there is nothing to fuse.
    first = config.shared_encoder_levels if skips.resolution_compensation else -1
    fused = encoder.channels[first:]
    share: nn.Module = FeatureFusion(fused) if skips.feature_share else NoFeatureShare()
    compensation: nn.Module = (
        ResolutionCompensationSkip()
        if skips.resolution_compensation
        else NoResolutionCompensation()
    )
    prompts: list[LongSkip | EvidencePrompt] = []
    if skips.long:
        prompts.append(LongSkip(strides, coarse.decoder.channels))
    if skips.evidence:
        prompts.append(EvidencePrompt(strides, task.labels))
    shared = config.shared_encoder_levels
    network = SharedSKS if shared else SKS
    return network(
        coarse,
        EncoderTail(encoder, shared) if shared else encoder,
        share,
        compensation,
        prompts,
        config.decoder_channels,
        task.mask_classes,
        coarse_frozen=config.coarse_learning_rate_scale == 0.0,
    )

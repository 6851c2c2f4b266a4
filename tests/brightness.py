"""A network that finds bright pixels, so that every prediction has a closed form."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from dxseg.config.network import ModelConfig
from dxseg.data.preprocessing import Preprocessing
from dxseg.data.readers.slicing import Slicing
from dxseg.inference.components import ComponentFilter
from dxseg.inference.model_info import ModelInfo
from dxseg.inference.predictor import Predictor
from dxseg.models.segmentation_model import STRIDE, SegmentationModel, SegmenterOutput


class BrightnessSegmenter(SegmentationModel):
    """Class k is where channel k is brighter than half; label 1 is "something is bright"."""

    def __init__(self, mask_classes: int = 1, labels: int = 2, gain: float = 20.0) -> None:
        super().__init__()
        self.mask_classes, self.labels, self.gain = mask_classes, labels, gain
        self.batches: list[tuple[int, ...]] = []
        self.prompts: list[torch.Tensor | None] = []

    def _forward_padded(self, x: torch.Tensor, known: Any, _whole: Any) -> SegmenterOutput:
        self.batches.append(tuple(x.shape))
        self.prompts.append(known)
        logits = self.gain * x[:, : self.mask_classes]
        features = torch.nn.functional.avg_pool2d(x, STRIDE)
        if not self.labels:
            return SegmenterOutput(logits, features=features)
        peak = logits.amax(dim=(1, 2, 3))
        labels = torch.stack([torch.zeros_like(peak)] * (self.labels - 1) + [peak], dim=1)
        evidence = torch.nn.functional.avg_pool2d(logits[:, :1], 4).sigmoid()
        return SegmenterOutput(logits, labels, evidence.repeat(1, self.labels, 1, 1), features)


@dataclass
class Maker:
    """Builds predictors of `BrightnessSegmenter`; remembers the last network."""

    networks: list[BrightnessSegmenter] = field(default_factory=list)

    def __call__(
        self,
        *,
        channels: int = 1,
        classes: int = 1,
        labels: tuple[str, ...] = ("normal", "bright"),
        batch_size: int = 4,
        size: int = 32,
        spacing: tuple[float, float] | None = None,
        high: float = 255.0,
        threshold: float = 0.5,
        multi_label: bool = False,
        lesion_free: tuple[str, ...] = (),
        rule_out_threshold: float | None = None,
        rule_in_threshold: float | None = None,
        model: ModelConfig | None = None,
        slicing: Slicing | None = None,
        smoothing_mm: float = 0.0,
        components: ComponentFilter | None = None,
        sliding_window: bool = False,
        digest: str = "ab" * 32,
        **options: Any,
    ) -> Predictor:
        info = ModelInfo(
            model=model or ModelConfig(),
            preprocessing=Preprocessing(
                image_size=size,
                spacing=spacing,
                channels=channels,
                dtype="uint8" if high == 255 else "uint16",
                high=high,
                mean=(0.5,) * channels,
                std=(1.0,) * channels,
            ),
            labels=list(labels),
            lesion_free=list(lesion_free),
            multi_label=multi_label,
            rule_out_threshold=rule_out_threshold,
            rule_in_threshold=rule_in_threshold,
            slicing=slicing,
            smoothing_mm=smoothing_mm,
            components=components,
            sliding_window=sliding_window,
            mask_classes=[f"class{index}" for index in range(classes)],
            threshold=threshold,
            weights_sha256=digest,
        )
        network = BrightnessSegmenter(classes, len(labels))
        self.networks.append(network)
        return Predictor(network, info, batch_size=batch_size, **options)


def bright_square(height: int, width: int, side: int = 8, dtype: type = np.uint8) -> np.ndarray:
    """Dark (H, W, 1) image with a bright square at (4, 4)."""
    image = np.full((height, width, 1), 10, dtype)
    image[4 : 4 + side, 4 : 4 + side] = 250
    return image

"""The one forward path: decoded pixels to the network's input, through it, and back to a mask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from dxseg.data.preprocessing import Geometry
from dxseg.data.readers.images import to_channels
from dxseg.errors import DxsegError
from dxseg.inference.backends import Backend
from dxseg.inference.label_prompt import Names, has_lesion, label_prompt, label_text
from dxseg.inference.model_folder import ModelInfo
from dxseg.inference.postprocess import decide
from dxseg.inference.prediction import Pixels, Prediction
from dxseg.inference.sliding_window import logits_by_windows, pad_to_window
from dxseg.metrics.calibration import temper_sigmoid
from dxseg.metrics.image_level import lesion_probability


@dataclass(frozen=True)
class Prepared:
    """An image as the network will see it.

    Attributes:
        square: (S, S, C), fitted to the network's input.
        geometry: How it was fitted.
        known: Names of its labels that are known without looking.
        image: The image itself (H, W, C), where it is to be kept.
        large: The image itself, where it is to be cut into windows.
    """

    square: Pixels
    geometry: Geometry
    known: Names
    image: Pixels | None
    large: Pixels | None = None


@dataclass(frozen=True)
class BatchOutput:
    """What the network says of B prepared images.

    Attributes:
        masks: Probabilities (B, K, S, S).
        labels: Probabilities (B, L), tempered; None for a network without labels.
        evidence: (B, L, h, w), or None.
        features: (B, F, h, w), or None.
        windowed: Of each image that is cut into windows, probabilities (K, H, W); None of others.
    """

    masks: torch.Tensor
    labels: torch.Tensor | None
    evidence: torch.Tensor | None
    features: torch.Tensor | None
    windowed: list[torch.Tensor | None]


class Forward:
    """A network with its preprocessing in front and its decisions behind."""

    def __init__(
        self, backend: Backend, info: ModelInfo, batch_size: int, *, windows: bool
    ) -> None:
        """Put the three together.

        Args:
            backend: The network.
            info: Preprocessing, labels and thresholds.
            batch_size: Windows through the network at once.
            windows: Whether an image larger than the network's input is cut into windows.
        """
        self.backend = backend
        self.info = info
        self.batch_size = batch_size
        self.windows = windows

    def prepare(self, image: Pixels, known: Names = (), *, keep_image: bool = False) -> Prepared:
        """Fit an image (H, W, C) to the network's input.

        Raises:
            DxsegError: It has channels or a bit depth that the network was not trained on.
        """
        preprocessing = self.info.preprocessing
        pixels = to_channels(image, preprocessing.channels)
        square, geometry = preprocessing.fit(pixels)
        large = self.windows and max(pixels.shape[:2]) > preprocessing.image_size
        kept = image if keep_image else None
        return Prepared(square, geometry, known, kept, pixels if large else None)

    @torch.inference_mode()
    def run(self, prepared: Sequence[Prepared]) -> BatchOutput:
        """Send images through the network."""
        images = self.normalised([item.square for item in prepared])
        outputs = self.backend.outputs(
            images, label_prompt([item.known for item in prepared], self.info)
        )
        labels = outputs.label_logits if self.info.model.has_label_head else None
        if labels is not None:
            labels = labels.float() / self.info.label_temperature
            labels = (labels.sigmoid() if self.info.multi_label else labels.softmax(1)).cpu()
        evidence, features = (
            None if maps is None else maps.float().cpu()
            for maps in (outputs.evidence, outputs.features)
        )
        masks = outputs.mask_logits.float().sigmoid().cpu()
        windowed = [self._windowed(item) for item in prepared]
        return BatchOutput(masks, labels, evidence, features, windowed)

    @torch.inference_mode()
    def restore(self, output: BatchOutput, index: int, item: Prepared) -> Prediction | DxsegError:
        """The prediction for one image of a batch at its own size, or why there is none."""
        windowed = output.windowed[index]
        masks = output.masks[index] if windowed is None else windowed
        if not bool(torch.isfinite(masks).all()):
            # Compared with the threshold, NaN would pass for an image without lesion.
            return DxsegError("the network's output is not finite; the model or the image is bad")
        if windowed is None:
            masks = self.info.preprocessing.restore(masks, item.geometry)
        labels = None
        if output.labels is not None and self.info.labels:
            values = output.labels[index].tolist()
            labels = dict(zip(self.info.labels, values, strict=True))
        side, evidence, features = self.info.preprocessing.image_size, None, None
        if output.evidence is not None:
            evidence = _inside(output.evidence[index], item, side)
        if output.features is not None:
            features = _inside(output.features[index], item, side).mean(axis=(1, 2))
        probabilities, mask = decide(
            # After resizing, so that no mask at a threshold of 0.5 depends on the temperature.
            temper_sigmoid(masks.numpy(), self.info.mask_temperature),
            threshold=self.info.threshold,
            gate=self.info.gate,
            rule_in=self.info.rule_in,
            lesion_probability=lesion_probability(
                labels, self.info.lesion_free, self.info.multi_label
            ),
            known_lesion=has_lesion(item.known, self.info),
        )
        known = label_text(item.known)
        return Prediction(probabilities, mask, labels, evidence, item.image, known, features)

    def normalised(self, images: Sequence[Pixels]) -> torch.Tensor:
        """The network's input (B, C, H, W), float32, of images (H, W, C) of one size."""
        pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).to(self.backend.device)
        return self.info.preprocessing.normalise(pixels)

    def _windowed(self, item: Prepared) -> torch.Tensor | None:
        """Probabilities (K, H, W) of an image that is cut into windows."""
        if item.large is None:
            return None
        height, width, _ = item.large.shape
        side = self.info.preprocessing.image_size
        known = label_prompt([item.known], self.info)

        def network(windows: torch.Tensor) -> torch.Tensor:
            told = None if known is None else known.repeat_interleave(len(windows), 0)
            return self.backend.outputs(windows, told).mask_logits.float()

        whole = self.normalised([pad_to_window(item.large, side)])
        logits = logits_by_windows(whole, side, network, self.batch_size)
        return logits[0, :, :height, :width].sigmoid().cpu()


def _inside(maps: torch.Tensor, item: Prepared, image_size: int) -> NDArray[np.float32]:
    """Cut the padding off low-resolution maps (L, h, w)."""
    height = -(-item.geometry.fitted_height * maps.shape[1] // image_size)
    width = -(-item.geometry.fitted_width * maps.shape[2] // image_size)
    cut: NDArray[np.float32] = maps[:, :height, :width].numpy()
    return cut

"""The one path from decoded pixels to a prediction: preprocess, forward, postprocess."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dxseg.data.geometry import Geometry, Spacing
from dxseg.data.readers.images import to_channels
from dxseg.errors import DxsegError
from dxseg.inference.backends import Backend
from dxseg.inference.label_prompt import (
    LabelNames,
    encode_label_prompts,
    format_label_prompt,
    labels_imply_lesion,
)
from dxseg.inference.model_info import ModelInfo
from dxseg.inference.postprocess import apply_thresholds
from dxseg.inference.sliding_window import pad_to_window, predict_windows
from dxseg.metrics.calibration import temper_sigmoid
from dxseg.metrics.image_level import lesion_probability
from dxseg.models.segmentation_model import STRIDE
from dxseg.models.whole_view import WholeView

Pixels = NDArray[np.uint8] | NDArray[np.uint16]
"""A decoded image, (H, W, C)."""


@dataclass(frozen=True)
class Prediction:
    """The prediction for one image.

    Attributes:
        probabilities: (K, H, W) in 0..1 at the image's own size, one sigmoid per mask class.
        mask: (H, W) label map: 0 where no class reaches the threshold, else 1 + the likeliest
            class; image-level thresholds and the label prompt are applied
            (`dxseg.inference.postprocess`).
        network_probabilities: `probabilities` before those of a ruled-out image were limited; else
            the same array.
        label_probabilities: By label name; softmax, or one sigmoid each where an image may have
            several labels. The network's own output, also with a label prompt. None for a network
            without image-level labels.
        evidence: Class activation maps of stage 1, (L, h, w) in 0..1 at the network's resolution, h
            and w in proportion to the image. None for a network without them.
        image: The decoded pixels (H, W, C), with `Predictor.stream(keep_images=True)`.
        label_prompt: The label prompt that was used, in the notation of `cases.csv`; "" for none.
        features: (F,) the encoder's deepest level, averaged over the image. None from an exported
            network.
        reduced: Whether the image was reduced further than to the network's spacing, at which it
            is larger than the network's input.
    """

    probabilities: NDArray[np.float32]
    mask: NDArray[np.uint8]
    network_probabilities: NDArray[np.float32]
    label_probabilities: dict[str, float] | None = None
    evidence: NDArray[np.float32] | None = None
    image: Pixels | None = None
    label_prompt: str = ""
    features: NDArray[np.float32] | None = None
    reduced: bool = False

    @property
    def confidence(self) -> float:
        """Confidence of the mask, in 0..1; higher is surer.

        With a lesion: the mean of max(p, 1 - p) over its pixels, p being the probability of the
        predicted class. Without: 1 - the highest probability anywhere.
        """
        peaks = self.probabilities.max(axis=0)
        lesion = peaks[self.mask > 0]
        if lesion.size == 0:
            return float(1 - peaks.max())
        return float(np.maximum(lesion, 1 - lesion).mean(dtype=np.float64))


@dataclass(frozen=True)
class PreprocessedImage:
    """An image, ready for the network.

    Attributes:
        square: (S, S, C), resized and padded to the network's input.
        geometry: How it was resized and padded.
        label_prompt: The label prompt; empty for none.
        image: The decoded image (H, W, C), where it is kept.
        large: The image (H, W, C), where it is cut into windows, at the spacing of the network.
        reduced: See `Prediction.reduced`.
    """

    square: Pixels
    geometry: Geometry
    label_prompt: LabelNames
    image: Pixels | None = None
    large: Pixels | None = None
    reduced: bool = False

    @property
    def mask_geometry(self) -> Geometry:
        """How the pixels were resized that the mask probabilities are of."""
        if self.large is None:
            return self.geometry
        return Geometry(self.geometry.height, self.geometry.width, *self.large.shape[:2])


@dataclass(frozen=True)
class NetworkOutput:
    """The network's output for one image, as probabilities on the CPU.

    Attributes:
        masks: (K, S, S), or (K, H, W) of an image that was cut into windows, as it was cut.
        labels: (L,), tempered; None for a network without labels.
        evidence: (L, h, w), or None.
        features: (F, h, w), or None.
    """

    masks: Tensor
    labels: Tensor | None
    evidence: Tensor | None
    features: Tensor | None


class InferencePipeline:
    """A network with its preprocessing and postprocessing."""

    def __init__(
        self, backend: Backend, info: ModelInfo, batch_size: int = 8, *, flip: bool = False
    ) -> None:
        """Combine a network with the rest of its model.

        Args:
            backend: The network.
            info: Preprocessing, labels, thresholds, and whether large images are cut into windows.
            batch_size: Windows per forward pass.
            flip: Whether to average with the prediction for the mirrored image.
        """
        self.backend = backend
        self.info = info
        self.batch_size = batch_size
        self.flip = flip

    def preprocess(
        self,
        image: Pixels,
        label_prompt: LabelNames = (),
        spacing: Spacing | None = None,
        *,
        keep_image: bool = False,
    ) -> PreprocessedImage:
        """Resize and pad an image (H, W, C) to the network's input.

        Args:
            image: The decoded image.
            label_prompt: Empty for none.
            spacing: Height and width of a pixel, mm, where they are known.
            keep_image: Whether the result has the decoded image.

        Raises:
            DxsegError: The network was trained on other channels or another bit depth.
        """
        preprocessing, slicing = self.info.preprocessing, self.info.slicing
        if slicing and slicing.sequences and image.shape[2] != preprocessing.channels:
            names = ", ".join(one.name for one in slicing.sequences)
            raise DxsegError(
                f"an image of {image.shape[2]} channel(s), but the model was trained on "
                f"{preprocessing.channels}: the sequences {names}; predict volumes of all of them"
            )
        pixels = to_channels(image, preprocessing.channels)
        square, geometry = preprocessing.fit(pixels, spacing)
        kept, large = image if keep_image else None, None
        exceeds = max(preprocessing.size_at_spacing(pixels, spacing)) > preprocessing.image_size
        if exceeds and self.info.sliding_window:
            large = preprocessing.resample(pixels, spacing)
        reduced = exceeds and large is None and preprocessing.spacing is not None
        return PreprocessedImage(square, geometry, label_prompt, kept, large, reduced)

    @torch.inference_mode()
    def forward(self, batch: Sequence[PreprocessedImage]) -> list[NetworkOutput]:
        """Run the network on a batch of images."""
        prompts = encode_label_prompts([item.label_prompt for item in batch], self.info)

        def predict(images: Tensor) -> list[Tensor | None]:
            output = self.backend.forward(images, prompts)
            labels = output.label_logits if self.info.model.predicts_labels else None
            if labels is not None:
                labels = labels.float() / self.info.label_temperature
                labels = labels.sigmoid() if self.info.multi_label else labels.softmax(1)
            return [output.mask_logits.float().sigmoid(), labels, output.evidence, output.features]

        images = self.normalize([item.square for item in batch])
        found = flip_average(predict, images) if self.flip else predict(images)
        # One row per image; a network without an output has None in each.
        columns = [[None] * len(batch) if one is None else list(one.float().cpu()) for one in found]
        outputs = []
        for item, masks, *rest in zip(batch, *columns, strict=True):
            assert masks is not None, "every network has masks"
            outputs.append(NetworkOutput(masks if item.large is None else self._slide(item), *rest))
        return outputs

    @torch.inference_mode()
    def postprocess(self, item: PreprocessedImage, output: NetworkOutput) -> Prediction:
        """Resize the output to the image's own size, apply thresholds and remove components.

        Components of volumes are removed by `dxseg.inference.along_axis`.

        Raises:
            DxsegError: The output is not finite.
        """
        if not bool(torch.isfinite(output.masks).all()):
            # Compared with the threshold, NaN would pass for an image without lesion.
            raise DxsegError("the network's output is not finite; the model or the image is bad")
        preprocessing, masks, labels = self.info.preprocessing, output.masks, None
        masks = preprocessing.postprocess(masks, item.mask_geometry)
        if output.labels is not None and self.info.labels:
            labels = dict(zip(self.info.labels, output.labels.tolist(), strict=True))
        evidence, features = (
            None if maps is None else _crop_padding(maps, item.geometry, preprocessing.image_size)
            for maps in (output.evidence, output.features)
        )
        # After resizing, so that no mask at a threshold of 0.5 depends on the temperature.
        network_probabilities = temper_sigmoid(masks.numpy(), self.info.mask_temperature)
        known_lesion = labels_imply_lesion(item.label_prompt, self.info)
        probabilities, mask = apply_thresholds(
            network_probabilities,
            threshold=self.info.threshold,
            lesion_values=self.info.lesion_values,
            rule_out_threshold=self.info.rule_out_threshold,
            rule_in_threshold=self.info.rule_in_threshold,
            lesion_probability=lesion_probability(
                labels, self.info.lesion_free, self.info.multi_label
            ),
            known_lesion=known_lesion,
        )
        if self.info.components is not None and not self.info.components.by_volume:
            scale = item.mask_geometry.area_scale
            known = self.info.lesion_values if known_lesion else ()
            mask = self.info.components.apply(mask, scale=scale, keep_one_of=known)
        return Prediction(
            probabilities,
            mask,
            network_probabilities,
            labels,
            evidence,
            item.image,
            format_label_prompt(item.label_prompt),
            None if features is None else features.mean(axis=(1, 2)),
            item.reduced,
        )

    def normalize(self, images: Sequence[Pixels]) -> Tensor:
        """Make the network's input (B, C, H, W), float32, of images (H, W, C) of one size."""
        pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).to(self.backend.device)
        return self.info.preprocessing.normalize(pixels)

    def _slide(self, item: PreprocessedImage) -> Tensor:
        """Mask probabilities (K, H, W) of an image that is cut into windows."""
        assert item.large is not None, "the caller has checked"
        height, width, _ = item.large.shape
        side = -(-self.info.preprocessing.image_size // STRIDE) * STRIDE
        prompt = encode_label_prompts([item.label_prompt], self.info)

        def predict(images: Tensor) -> list[Tensor | None]:
            def network(windows: Tensor, corners: Tensor) -> Tensor:
                prompts = None if prompt is None else prompt.repeat_interleave(len(windows), 0)
                whole = WholeView(images, corners=corners, patch_size=(side, side))
                return self.backend.forward(windows, prompts, whole).mask_logits.float()

            return [predict_windows(images, side, network, self.batch_size).sigmoid()]

        padded = self.normalize([pad_to_window(item.large, side)])
        [masks] = flip_average(predict, padded) if self.flip else predict(padded)
        assert masks is not None, "every network has masks"
        return masks[0, :, :height, :width].cpu()


def flip_average(
    predict: Callable[[Tensor], Sequence[Tensor | None]], images: Tensor
) -> list[Tensor | None]:
    """Average what a network predicts for images and for their mirror images.

    The mean is of probabilities: where the two disagree, a logit far from 0 does not outvote.

    Args:
        predict: Maps (B, C, H, W) to probabilities, maps (B, K, H, W) or vectors (B, L); None for
            an output that the network does not have.
        images: (B, C, H, W).

    Returns:
        The means, maps in the orientation of the images.
    """
    mirrored = predict(images.flip(-1))
    means: list[Tensor | None] = []
    for plain, flipped in zip(predict(images), mirrored, strict=True):
        if plain is None or flipped is None:
            means.append(None)
        else:
            means.append((plain + (flipped.flip(-1) if flipped.ndim == 4 else flipped)) / 2)
    return means


def _crop_padding(maps: Tensor, geometry: Geometry, image_size: int) -> NDArray[np.float32]:
    """Crop the padding off low-resolution maps (L, h, w)."""
    height = -(-geometry.fitted_height * maps.shape[1] // image_size)
    width = -(-geometry.fitted_width * maps.shape[2] // image_size)
    cropped: NDArray[np.float32] = maps[:, :height, :width].numpy()
    return cropped

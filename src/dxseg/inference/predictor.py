"""The one forward path: decoded pixels in, masks at native resolution out."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from dxseg.data.preprocess import Geometry
from dxseg.data.readers import read_image, to_channels
from dxseg.errors import DxsegError, UsageError
from dxseg.inference.backends import Backend, FlipAveraged, TorchBackend
from dxseg.inference.bundle import BundleInfo
from dxseg.inference.decision import decide
from dxseg.inference.known import Names, has_lesion, label_names, label_prompt, label_text
from dxseg.inference.loading import load_backend
from dxseg.inference.windows import logits_by_windows, pad_to_window
from dxseg.metrics.calibration import temper_sigmoid
from dxseg.metrics.image_level import lesion_probability
from dxseg.models.segmenter import Segmenter

Pixels = NDArray[np.uint8] | NDArray[np.uint16]
Source = Path | Callable[[], Pixels]
"""An image file, or what gives the pixels (H, W, C) of an image that is none."""

_DECODERS = 2
_BATCHES_AHEAD = 2


@dataclass(frozen=True)
class Prediction:
    """What the network says of one image.

    Attributes:
        probabilities: (K, H, W) in 0..1 at the image's own size, one sigmoid a mask class.
        mask: (H, W) label map: 0 where no class reaches the threshold, else 1 + the likeliest;
            the image-level gate and a known label have their say (`dxseg.inference.decision`).
        label_probabilities: By label name; softmax, or a sigmoid each where an image may have
            several labels. The network's own opinion, also where the label is known. None for a
            network without image-level labels.
        evidence: (L, h, w) in 0..1 at the network's resolution, h and w in proportion to the
            image. None for a network without evidence.
        image: The decoded pixels (H, W, C), where `Predictor.stream` was asked to keep them.
        known: The known label that was used, as `cases.csv` writes it; "" for none.
        features: (F,) the encoder's deepest level, averaged over the image: what the image looks
            like to the network. None from an exported network.
    """

    probabilities: NDArray[np.float32]
    mask: NDArray[np.uint8]
    label_probabilities: dict[str, float] | None = None
    evidence: NDArray[np.float32] | None = None
    image: Pixels | None = None
    known: str = ""
    features: NDArray[np.float32] | None = None

    @property
    def confidence(self) -> float:
        """How sure the mask is, in 0..1; higher is surer.

        With a lesion: the mean of max(p, 1 - p) over its pixels, p being the probability of the
        class shown. Without: 1 - the highest probability anywhere.
        """
        peaks = self.probabilities.max(axis=0)
        lesion = peaks[self.mask > 0]
        if lesion.size == 0:
            return float(1 - peaks.max())
        return float(np.maximum(lesion, 1 - lesion).mean(dtype=np.float64))


@dataclass(frozen=True)
class _Prepared:
    square: Pixels
    geometry: Geometry
    known: Names
    image: Pixels | None
    large: Pixels | None = None
    """The image itself, where it is to be cut into windows."""


@dataclass(frozen=True)
class _BatchOutput:
    masks: torch.Tensor
    labels: torch.Tensor | None
    evidence: torch.Tensor | None
    features: torch.Tensor | None
    windowed: list[torch.Tensor | None]


@dataclass(frozen=True)
class _Batch:
    read: list[tuple[str, _Prepared | DxsegError]]
    output: _BatchOutput | None


class Predictor:
    """Holds a network in memory and runs it; `predict`, `stream`, CLI and server all end here."""

    def __init__(
        self,
        network: Segmenter | Backend,
        info: BundleInfo,
        device: str = "cpu",
        batch_size: int = 8,
        *,
        windows: bool = False,
    ) -> None:
        """Make a network ready.

        Args:
            network: Matches `info`; one in PyTorch is put into evaluation mode and moved to the
                device.
            info: Preprocessing, labels and threshold.
            device: As torch names it, such as "cpu" or "cuda:0"; a backend has its own.
            batch_size: Images through the network at once; the results do not depend on it beyond
                rounding.
            windows: Whether an image larger than the network's input is cut into overlapping
                windows rather than made smaller; see `dxseg.inference.windows`.

        Raises:
            UsageError: The device does not exist, or the batch size is below one.
        """
        if batch_size < 1:
            raise UsageError(f"batch_size {batch_size}: expected at least 1")
        self.info = info
        self.batch_size = batch_size
        self.windows = windows
        backend = TorchBackend(network, device) if isinstance(network, Segmenter) else network
        self.backend: Backend = backend

    @classmethod
    def from_bundle(
        cls,
        folder: str | Path,
        device: str = "cpu",
        batch_size: int = 8,
        *,
        backend: str | None = None,
        precision: str = "float32",
        flip: bool = False,
        windows: bool = False,
    ) -> Predictor:
        """Load a model folder, such as a run's `model/`, or an exported .onnx file.

        Args:
            folder: See `dxseg.inference.loading.load_backend`.
            device: As torch names it.
            batch_size: Images through the network at once.
            backend: torch, onnxruntime or openvino; what suits the model if absent.
            precision: float32, or bfloat16 for torch and openvino.
            flip: Whether each image is also predicted mirrored, and the mean taken.
            windows: Whether larger images are cut into windows.

        Raises:
            UsageError: A setting is unknown or cannot be had for this model.
            DxsegError: The model is absent, damaged or of another version.
        """
        loaded, info = load_backend(folder, backend, device, precision)
        running = FlipAveraged(loaded) if flip else loaded
        return cls(running, info, batch_size=batch_size, windows=windows)

    def predict(
        self, images: Sequence[Pixels], known: Sequence[str | None] | None = None
    ) -> list[Prediction]:
        """Segment images that are in memory.

        Args:
            images: (H, W, C) each, 8 or 16 bit, of any sizes.
            known: The label of each image where it is known without looking, as `cases.csv` writes
                it; None or "" where it is not.

        Raises:
            UsageError: `known` is not one an image, or names a label that the model does not have.
            DxsegError: An image has channels or a bit depth that the network was not trained on.
        """
        if known is not None and len(known) != len(images):
            raise UsageError(
                f"known has {len(known)} labels for {len(images)} images; give one each"
            )
        names = [label_names(text, self.info) for text in known or [None] * len(images)]
        predictions = []
        for start in range(0, len(images), self.batch_size):
            batch = slice(start, start + self.batch_size)
            prepared = [
                self._prepare(*pair) for pair in zip(images[batch], names[batch], strict=True)
            ]
            output = self._network(prepared)
            for index, item in enumerate(prepared):
                prediction = self._restore(output, index, item)
                if isinstance(prediction, DxsegError):
                    raise prediction
                predictions.append(prediction)
        return predictions

    def network_input(self, image: Pixels) -> torch.Tensor:
        """What the network is given of an image (H, W, C): (1, C, S, S) float32, normalised.

        Raises:
            DxsegError: As `predict`.
        """
        return self._normalised([self._prepare(image, ()).square])

    def stream(
        self,
        items: Iterable[tuple[str, Source]],
        *,
        keep_images: bool = False,
        known: Mapping[str, str] | None = None,
    ) -> Generator[tuple[str, Prediction | DxsegError]]:
        """Segment files or slices, in their order and in constant memory.

        While what the network has said of one batch is taken, it works on the next, and threads
        decode the one after; no more than these three batches are taken from `items` ahead of what
        has been given out.

        Args:
            items: Name and source of each image; consumed as needed, so it may be endless.
            keep_images: Whether predictions carry the decoded pixels, for overlays.
            known: By name, labels that are known without looking, as `cases.csv` writes them.

        Yields:
            The name, and the prediction or why there is none; a bad file does not stop the others.

        Raises:
            UsageError: The model does not have a known label.
        """
        labels = {name: label_names(text, self.info) for name, text in (known or {}).items()}
        source = iter(items)
        ahead: deque[Future[_Batch]] = deque()
        with (
            ThreadPoolExecutor(_DECODERS, thread_name_prefix="dxseg-decode") as decoders,
            ThreadPoolExecutor(1, thread_name_prefix="dxseg-network") as network,
        ):

            def look_ahead() -> None:
                while len(ahead) < _BATCHES_AHEAD:
                    some = list(itertools.islice(source, self.batch_size))
                    if not some:
                        return
                    read = []
                    for name, image in some:
                        told = labels.get(name, ())
                        reading = decoders.submit(self._read, name, image, told, keep_images)
                        read.append((name, reading))
                    ahead.append(network.submit(self._compute, read))

            try:
                look_ahead()
                while ahead:
                    batch = ahead.popleft().result()
                    look_ahead()
                    yield from self._results(batch)
            finally:
                network.shutdown(wait=False, cancel_futures=True)
                decoders.shutdown(cancel_futures=True)

    def _compute(self, reading: list[tuple[str, Future[_Prepared | DxsegError]]]) -> _Batch:
        read = [(name, future.result()) for name, future in reading]
        prepared = [item for _, item in read if isinstance(item, _Prepared)]
        return _Batch(read, self._network(prepared) if prepared else None)

    def _results(self, batch: _Batch) -> Iterator[tuple[str, Prediction | DxsegError]]:
        index = 0
        for name, item in batch.read:
            if isinstance(item, DxsegError):
                yield name, item
                continue
            assert batch.output is not None, "there is an image, so the network has run"
            yield name, self._restore(batch.output, index, item)
            index += 1

    def _read(
        self, name: str, source: Source, known: Names, keep_image: bool
    ) -> _Prepared | DxsegError:
        where = str(source) if isinstance(source, Path) else name
        try:
            pixels = read_image(source) if isinstance(source, Path) else source()
            return self._prepare(pixels, known, keep_image)
        except DxsegError as error:
            text = str(error)
            return error if where in text else DxsegError(f"{where}: {text}")
        except (OSError, ValueError, MemoryError) as error:
            return DxsegError(f"{where}: cannot be read ({error or type(error).__name__})")

    def _prepare(self, image: Pixels, known: Names, keep_image: bool = False) -> _Prepared:
        preprocessing = self.info.preprocessing
        pixels = to_channels(image, preprocessing.channels)
        square, geometry = preprocessing.fit(pixels)
        large = self.windows and max(pixels.shape[:2]) > preprocessing.image_size
        kept = image if keep_image else None
        return _Prepared(square, geometry, known, kept, pixels if large else None)

    @torch.inference_mode()
    def _network(self, prepared: list[_Prepared]) -> _BatchOutput:
        images = self._normalised([item.square for item in prepared])
        outputs = self.backend.outputs(
            images, label_prompt([item.known for item in prepared], self.info)
        )
        labels = outputs.label_logits if self.info.model.knows_labels else None
        if labels is not None:
            labels = labels.float() / self.info.label_temperature
            labels = (labels.sigmoid() if self.info.multi_label else labels.softmax(1)).cpu()
        evidence, features = (
            None if maps is None else maps.float().cpu()
            for maps in (outputs.evidence, outputs.features)
        )
        masks = outputs.mask_logits.float().sigmoid().cpu()
        windowed = [self._windowed(item) for item in prepared]
        return _BatchOutput(masks, labels, evidence, features, windowed)

    def _normalised(self, images: list[Pixels]) -> torch.Tensor:
        pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).to(self.backend.device)
        return self.info.preprocessing.normalise(pixels)

    def _windowed(self, item: _Prepared) -> torch.Tensor | None:
        """Probabilities (K, H, W) of an image that is cut into windows."""
        if item.large is None:
            return None
        height, width, _ = item.large.shape
        side = self.info.preprocessing.image_size
        known = label_prompt([item.known], self.info)

        def network(windows: torch.Tensor) -> torch.Tensor:
            told = None if known is None else known.repeat_interleave(len(windows), 0)
            return self.backend.outputs(windows, told).mask_logits.float()

        whole = self._normalised([pad_to_window(item.large, side)])
        logits = logits_by_windows(whole, side, network, self.batch_size)
        return logits[0, :, :height, :width].sigmoid().cpu()

    @torch.inference_mode()
    def _restore(
        self, output: _BatchOutput, index: int, item: _Prepared
    ) -> Prediction | DxsegError:
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


def _inside(maps: torch.Tensor, item: _Prepared, image_size: int) -> NDArray[np.float32]:
    """Cut the padding off low-resolution maps (L, h, w)."""
    height = -(-item.geometry.fitted_height * maps.shape[1] // image_size)
    width = -(-item.geometry.fitted_width * maps.shape[2] // image_size)
    cut: NDArray[np.float32] = maps[:, :height, :width].numpy()
    return cut

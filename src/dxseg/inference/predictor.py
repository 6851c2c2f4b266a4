"""The one forward path: decoded pixels in, masks at native resolution out."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from dxseg.data.preprocess import Geometry
from dxseg.data.readers import read_image, to_channels
from dxseg.errors import DxsegError, UsageError
from dxseg.inference.bundle import BundleInfo, load_bundle
from dxseg.inference.decision import decide
from dxseg.inference.known import Names, has_lesion, label_names, label_prompt, label_text
from dxseg.metrics.calibration import temper_sigmoid
from dxseg.metrics.image_level import lesion_probability
from dxseg.models.segmenter import Segmenter

Pixels = NDArray[np.uint8] | NDArray[np.uint16]
Source = Path | Callable[[], Pixels]
"""An image file, or what gives the pixels (H, W, C) of an image that is none."""

_DECODERS = 2


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
    """

    probabilities: NDArray[np.float32]
    mask: NDArray[np.uint8]
    label_probabilities: dict[str, float] | None = None
    evidence: NDArray[np.float32] | None = None
    image: Pixels | None = None
    known: str = ""

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


@dataclass(frozen=True)
class _BatchOutput:
    masks: torch.Tensor
    labels: torch.Tensor | None
    evidence: torch.Tensor | None


class Predictor:
    """Holds a network in memory and runs it; `predict`, `stream`, CLI and server all end here."""

    def __init__(
        self, segmenter: Segmenter, info: BundleInfo, device: str = "cpu", batch_size: int = 8
    ) -> None:
        """Move the network to the device.

        Args:
            segmenter: Matches `info`; put into evaluation mode.
            info: Preprocessing, labels and threshold.
            device: As torch names it, such as "cpu" or "cuda:0".
            batch_size: Images through the network at once; the results do not depend on it beyond
                rounding.

        Raises:
            UsageError: The device does not exist, or the batch size is below one.
        """
        if batch_size < 1:
            raise UsageError(f"batch_size {batch_size}: expected at least 1")
        self.info = info
        self.batch_size = batch_size
        try:
            self.device = torch.device(device)
            segmenter = segmenter.to(self.device)
        except (RuntimeError, AssertionError) as error:
            raise UsageError(f"device {device!r} cannot be used ({error}); try cpu") from error
        # Convolutions are faster in this layout, on the CPU too.
        self.segmenter = segmenter.eval().to(memory_format=torch.channels_last)

    @classmethod
    def from_bundle(cls, folder: str | Path, device: str = "cpu", batch_size: int = 8) -> Predictor:
        """Load a model folder, such as a run's `model/`.

        Args:
            folder: See `dxseg.inference.bundle.load_bundle`.
            device: As torch names it.
            batch_size: Images through the network at once.

        Raises:
            DxsegError: The bundle is absent, damaged or of another version.
        """
        segmenter, info = load_bundle(folder)
        return cls(segmenter, info, device, batch_size)

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
            for prediction in self._run(prepared):
                if isinstance(prediction, DxsegError):
                    raise prediction
                predictions.append(prediction)
        return predictions

    def stream(
        self,
        items: Iterable[tuple[str, Source]],
        *,
        keep_images: bool = False,
        known: Mapping[str, str] | None = None,
    ) -> Iterator[tuple[str, Prediction | DxsegError]]:
        """Segment files or slices, in their order and in constant memory.

        While the network works on one batch, threads decode the next; no more than these two
        batches are taken from `items` ahead of what has been given out.

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
        pending: deque[tuple[str, Future[_Prepared | DxsegError]]] = deque()
        with ThreadPoolExecutor(_DECODERS, thread_name_prefix="dxseg-decode") as pool:

            def top_up() -> None:
                for name, image in itertools.islice(source, self.batch_size - len(pending)):
                    told = labels.get(name, ())
                    read = pool.submit(self._read, name, image, told, keep_images)
                    pending.append((name, read))

            try:
                top_up()
                while pending:
                    batch = list(pending)
                    pending.clear()
                    top_up()
                    yield from self._results(batch)
            finally:
                pool.shutdown(cancel_futures=True)

    def _results(
        self, batch: list[tuple[str, Future[_Prepared | DxsegError]]]
    ) -> Iterator[tuple[str, Prediction | DxsegError]]:
        read = [(name, future.result()) for name, future in batch]
        predictions = self._run([item for _, item in read if isinstance(item, _Prepared)])
        for name, item in read:
            yield name, next(predictions) if isinstance(item, _Prepared) else item

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
        square, geometry = preprocessing.fit(to_channels(image, preprocessing.channels))
        return _Prepared(square, geometry, known, image if keep_image else None)

    def _run(self, prepared: list[_Prepared]) -> Iterator[Prediction | DxsegError]:
        """Give the predictions of one batch, each restored only when it is asked for."""
        if not prepared:
            return
        output = self._network(prepared)
        for index, item in enumerate(prepared):
            yield self._restore(output, index, item)

    @torch.inference_mode()
    def _network(self, prepared: list[_Prepared]) -> _BatchOutput:
        squares = np.stack([item.square for item in prepared])
        pixels = torch.from_numpy(squares).permute(0, 3, 1, 2).to(self.device)
        normalised = self.info.preprocessing.normalise(pixels)
        known = label_prompt([item.known for item in prepared], self.info)
        outputs = self.segmenter.outputs(
            normalised.contiguous(memory_format=torch.channels_last),
            None if known is None else known.to(self.device),
        )
        labels = outputs.label_logits if self.info.model.knows_labels else None
        if labels is not None:
            labels = labels.float() / self.info.label_temperature
            labels = (labels.sigmoid() if self.info.multi_label else labels.softmax(1)).cpu()
        evidence = None if outputs.evidence is None else outputs.evidence.float().cpu()
        return _BatchOutput(outputs.mask_logits.float().sigmoid().cpu(), labels, evidence)

    @torch.inference_mode()
    def _restore(
        self, output: _BatchOutput, index: int, item: _Prepared
    ) -> Prediction | DxsegError:
        masks = output.masks[index]
        if not bool(torch.isfinite(masks).all()):
            # Compared with the threshold, NaN would pass for an image without lesion.
            return DxsegError("the network's output is not finite; the model or the image is bad")
        restored = self.info.preprocessing.restore(masks, item.geometry)
        labels = None
        if output.labels is not None and self.info.labels:
            values = output.labels[index].tolist()
            labels = dict(zip(self.info.labels, values, strict=True))
        evidence = None
        if output.evidence is not None:
            evidence = _inside(output.evidence[index], item, self.info.preprocessing.image_size)
        probabilities, mask = decide(
            # After resizing, so that no mask at a threshold of 0.5 depends on the temperature.
            temper_sigmoid(restored.numpy(), self.info.mask_temperature),
            threshold=self.info.threshold,
            gate=self.info.gate,
            lesion_probability=lesion_probability(
                labels, self.info.lesion_free, self.info.multi_label
            ),
            known_lesion=has_lesion(item.known, self.info),
        )
        return Prediction(probabilities, mask, labels, evidence, item.image, label_text(item.known))


def _inside(maps: torch.Tensor, item: _Prepared, image_size: int) -> NDArray[np.float32]:
    """Cut the padding off low-resolution maps (L, h, w)."""
    height = -(-item.geometry.fitted_height * maps.shape[1] // image_size)
    width = -(-item.geometry.fitted_width * maps.shape[2] // image_size)
    cut: NDArray[np.float32] = maps[:, :height, :width].numpy()
    return cut

"""A model in memory: images or files in, masks at native resolution out."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch

from dxseg.data.readers.images import read_image
from dxseg.errors import DxsegError, UsageError
from dxseg.inference.backends import Backend, FlipTTA, TorchBackend
from dxseg.inference.label_prompt import Names, label_names
from dxseg.inference.load import load_backend
from dxseg.inference.model_folder import ModelInfo
from dxseg.inference.pipeline import BatchOutput, Forward, Prepared
from dxseg.inference.prediction import Pixels, Prediction
from dxseg.models.segmentation_model import SegmentationModel

Source = Path | Callable[[], Pixels]
"""An image file, or what gives the pixels (H, W, C) of an image that is none."""

_DECODERS = 2
_BATCHES_AHEAD = 2


@dataclass(frozen=True)
class _Batch:
    read: list[tuple[str, Prepared | DxsegError]]
    output: BatchOutput | None


class Predictor:
    """Holds a network in memory and runs it; `predict`, `stream`, CLI and server all end here."""

    def __init__(
        self,
        network: SegmentationModel | Backend,
        info: ModelInfo,
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
                windows rather than made smaller; see `dxseg.inference.sliding_window`.

        Raises:
            UsageError: The device does not exist, or the batch size is below one.
        """
        if batch_size < 1:
            raise UsageError(f"batch_size {batch_size}: expected at least 1")
        self.info = info
        self.batch_size = batch_size
        backend = (
            TorchBackend(network, device) if isinstance(network, SegmentationModel) else network
        )
        self.backend: Backend = backend
        self._forward = Forward(backend, info, batch_size, windows=windows)

    @classmethod
    def from_folder(
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
            folder: See `dxseg.inference.load.load_backend`.
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
        running = FlipTTA(loaded) if flip else loaded
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
                self._forward.prepare(image, told)
                for image, told in zip(images[batch], names[batch], strict=True)
            ]
            output = self._forward.run(prepared)
            for index, item in enumerate(prepared):
                prediction = self._forward.restore(output, index, item)
                if isinstance(prediction, DxsegError):
                    raise prediction
                predictions.append(prediction)
        return predictions

    def network_input(self, image: Pixels) -> torch.Tensor:
        """What the network is given of an image (H, W, C): (1, C, S, S) float32, normalised.

        Raises:
            DxsegError: As `predict`.
        """
        return self._forward.normalised([self._forward.prepare(image).square])

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

    def _compute(self, reading: list[tuple[str, Future[Prepared | DxsegError]]]) -> _Batch:
        read = [(name, future.result()) for name, future in reading]
        prepared = [item for _, item in read if isinstance(item, Prepared)]
        return _Batch(read, self._forward.run(prepared) if prepared else None)

    def _results(self, batch: _Batch) -> Iterator[tuple[str, Prediction | DxsegError]]:
        index = 0
        for name, item in batch.read:
            if isinstance(item, DxsegError):
                yield name, item
                continue
            assert batch.output is not None, "there is an image, so the network has run"
            yield name, self._forward.restore(batch.output, index, item)
            index += 1

    def _read(
        self, name: str, source: Source, known: Names, keep_image: bool
    ) -> Prepared | DxsegError:
        where = str(source) if isinstance(source, Path) else name
        try:
            pixels = read_image(source) if isinstance(source, Path) else source()
            return self._forward.prepare(pixels, known, keep_image=keep_image)
        except DxsegError as error:
            text = str(error)
            return error if where in text else DxsegError(f"{where}: {text}")
        except (OSError, ValueError, MemoryError) as error:
            return DxsegError(f"{where}: cannot be read ({error or type(error).__name__})")

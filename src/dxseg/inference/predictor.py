"""A model in memory: images or files in, predictions at native resolution out."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Generator, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from pathlib import Path

import torch

from dxseg.data.geometry import Spacing
from dxseg.errors import DxsegError, UsageError, unexpected_error
from dxseg.inference.along_axis import Output, Positions, filter_volumes, smooth_along_axis
from dxseg.inference.backends import Backend, TorchBackend
from dxseg.inference.ensemble import load_ensemble
from dxseg.inference.label_prompt import LabelNames, parse_label_prompt
from dxseg.inference.load import load_backend
from dxseg.inference.model_info import ModelInfo
from dxseg.inference.pipeline import (
    InferencePipeline,
    NetworkOutput,
    Pixels,
    Prediction,
    PreprocessedImage,
)
from dxseg.inference.sources import Source, file_of, read_source
from dxseg.models.segmentation_model import SegmentationModel

_DECODERS = 2
_BATCHES_AHEAD = 2

_Read = tuple[str, Future[PreprocessedImage | DxsegError]]


class Predictor:
    """Holds a network in memory; `dxseg predict`, the server and evaluation all predict with it."""

    def __init__(
        self,
        network: SegmentationModel | Backend,
        info: ModelInfo,
        device: str = "cpu",
        batch_size: int = 8,
        *,
        flip: bool = False,
    ) -> None:
        """Prepare a network.

        Args:
            network: Matches `info`; one in PyTorch is put into evaluation mode and moved to the
                device.
            info: Preprocessing, labels, thresholds, and whether large images are cut into windows.
            device: Torch device string, such as "cpu" or "cuda:0"; a backend has its own.
            batch_size: Images per forward pass; it changes results by rounding only.
            flip: Test-time augmentation: average with the horizontal flip.

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
        self.flip = flip
        self._pipeline = InferencePipeline(backend, info, batch_size, flip=flip)

    @classmethod
    def from_folder(
        cls,
        folder: str | Path | Sequence[str | Path],
        device: str = "cpu",
        batch_size: int = 8,
        *,
        backend: str | None = None,
        precision: str = "float32",
        flip: bool = False,
        sliding_window: bool | None = None,
    ) -> Predictor:
        """Load a model folder, such as a run's `model/`, or an exported .onnx file.

        Args:
            folder: See `dxseg.inference.load.load_backend`; several are an ensemble.
            device: Torch device string.
            batch_size: Images per forward pass.
            backend: torch, onnxruntime or openvino; default: torch for a folder, onnxruntime for an
                .onnx file.
            precision: float32, or bfloat16 for torch and openvino.
            flip: Test-time augmentation: average with the horizontal flip.
            sliding_window: Whether images larger than the network's input are cut into overlapping
                windows instead of being resized; default: as the model records. See
                `dxseg.inference.sliding_window`.

        Raises:
            UsageError: A setting is unknown or not supported for this model.
            DxsegError: The model is absent, damaged or of another version.
        """
        paths = [folder] if isinstance(folder, str | Path) else list(folder)
        if len(paths) == 1:
            loaded, info = load_backend(paths[0], backend, device, precision)
        else:
            loaded, info = load_ensemble(paths, backend, device, precision)
        if sliding_window is not None:
            info = info.model_copy(update={"sliding_window": sliding_window})
        return cls(loaded, info, batch_size=batch_size, flip=flip)

    def predict(
        self,
        images: Sequence[Pixels],
        labels: Sequence[str | None] | None = None,
        spacings: Sequence[Spacing | None] | None = None,
    ) -> list[Prediction]:
        """Segment images that are in memory.

        Args:
            images: (H, W, C) each, 8 or 16 bit, of any sizes.
            labels: Label prompts: the image-level label of each image in the notation of
                `cases.csv`; None or "" where it is not known.
            spacings: Height and width of a pixel of each image, mm, for a network that was trained
                at a spacing; None where they are not known.

        Raises:
            UsageError: An image is not (H, W, C), `labels` or `spacings` has not one entry per
                image, or the model does not have a label.
            DxsegError: The network was trained on other channels or another bit depth.
        """
        for number, image in enumerate(images):
            if image.ndim != 3:
                raise UsageError(
                    f"image {number}: its shape is {image.shape}; expected (height, width, "
                    "channels): give image[:, :, None] for a single channel"
                )
        nothing = [None] * len(images)
        for name, given in (("labels", labels), ("spacings", spacings)):
            if given is not None and len(given) != len(images):
                raise UsageError(
                    f"{name} has {len(given)} entries for {len(images)} images; give one each"
                )
        prompts = [parse_label_prompt(text, self.info) for text in labels or nothing]
        items = list(zip(images, prompts, spacings or nothing, strict=True))
        predictions = []
        for start in range(0, len(images), self.batch_size):
            rows = items[start : start + self.batch_size]
            batch = [self._pipeline.preprocess(*row) for row in rows]
            for item, output in zip(batch, self._pipeline.forward(batch), strict=True):
                predictions.append(self._pipeline.postprocess(item, output))
        return predictions

    def network_input(self, source: Source) -> torch.Tensor:
        """Read and preprocess an image to the network's input (1, C, S, S), float32, normalized.

        Raises:
            DxsegError: As `predict`.
        """
        return self._pipeline.normalize([self._preprocess(source).square])

    def stream(
        self,
        items: Iterable[tuple[str, Source]],
        *,
        keep_images: bool = False,
        labels: Mapping[str, str] | None = None,
        positions: Positions | None = None,
        whole_volumes: bool = True,
    ) -> Generator[tuple[str, Prediction | DxsegError]]:
        """Segment files or slices, in their order and in constant memory.

        While the caller uses the predictions of one batch, the network runs on the next one, and
        threads decode the one after; no more than these three batches are taken from `items` ahead
        of what has been yielded. Slices of a volume wait for their neighbors, or for all of it,
        where the model needs these (`dxseg.inference.along_axis`).

        Args:
            items: Name and source of each image; consumed as needed, so it may be endless.
            keep_images: Whether predictions carry the decoded pixels, for overlays.
            labels: Label prompts by name, in the notation of `cases.csv`.
            positions: Where in their volumes slices are, by name; those of a volume follow each
                other, in their order. Other images stand alone.
            whole_volumes: Whether these are all slices of their volumes; else components of volumes
                are not removed.

        Yields:
            The name, and the prediction or the error; a bad file does not stop the others.

        Raises:
            UsageError: The model does not have a label.
        """
        outputs = self.outputs(items, keep_images=keep_images, labels=labels)
        places, components = positions or {}, self.info.components
        smoothed = smooth_along_axis(outputs, places, self.info.smoothing_mm)
        try:
            if places and whole_volumes and components is not None and components.by_volume:
                yield from filter_volumes(smoothed, places, self.info, self.finish)
            else:
                yield from ((one[0], self.finish(one)) for one in smoothed)
        finally:
            outputs.close()

    def outputs(
        self,
        items: Iterable[tuple[str, Source]],
        *,
        keep_images: bool = False,
        labels: Mapping[str, str] | None = None,
    ) -> Generator[Output]:
        """Run the network on images as `stream` does, without what follows it."""
        prompts = {
            name: parse_label_prompt(text, self.info) for name, text in (labels or {}).items()
        }
        source = iter(items)
        ahead: deque[Future[list[Output]]] = deque()
        with (
            ThreadPoolExecutor(_DECODERS, thread_name_prefix="dxseg-decode") as decoders,
            ThreadPoolExecutor(1, thread_name_prefix="dxseg-network") as network,
        ):

            def fill() -> None:
                while len(ahead) < _BATCHES_AHEAD:
                    reading: list[_Read] = []
                    for name, image in itertools.islice(source, self.batch_size):
                        prompt = prompts.get(name, ())
                        # Threads do not have the caller's budget of decoded bytes by themselves.
                        read = partial(self._read, name, image, prompt, keep_images)
                        future = decoders.submit(copy_context().run, read)
                        reading.append((name, future))
                    if not reading:
                        return
                    ahead.append(network.submit(self._run, reading))

            try:
                fill()
                while ahead:
                    batch = ahead.popleft().result()
                    fill()
                    yield from batch
            finally:
                network.shutdown(wait=False, cancel_futures=True)
                decoders.shutdown(cancel_futures=True)

    def finish(self, one: Output) -> Prediction | DxsegError:
        """Make the prediction of what `outputs` yields."""
        name, item, output = one
        if isinstance(item, DxsegError):
            return item
        try:
            assert output is not None, "an image has an output"
            return self._pipeline.postprocess(item, output)
        except DxsegError as error:
            return error
        except Exception as error:  # noqa: BLE001 - the others go on
            return unexpected_error(name, error)

    def _read(
        self, name: str, source: Source, label_prompt: LabelNames, keep_image: bool
    ) -> PreprocessedImage | DxsegError:
        where = str(file_of(source) or name)
        try:
            return self._preprocess(source, label_prompt, keep_image)
        except DxsegError as error:
            text = str(error)
            return error if where in text else DxsegError(f"{where}: {text}")
        except (OSError, ValueError, MemoryError) as error:
            return DxsegError(f"{where}: cannot be read ({error or type(error).__name__})")
        except Exception as error:  # noqa: BLE001 - one image does not stop the others
            return unexpected_error(where, error)

    def _preprocess(
        self, source: Source, label_prompt: LabelNames = (), keep_image: bool = False
    ) -> PreprocessedImage:
        wanted = self.info.preprocessing.spacing is not None
        pixels, spacing = read_source(source, with_spacing=wanted)
        return self._pipeline.preprocess(pixels, label_prompt, spacing, keep_image=keep_image)

    def _run(self, reading: list[_Read]) -> list[Output]:
        """Run the network on the images of a batch that could be read."""
        items = [(name, future.result()) for name, future in reading]
        batch = [item for _, item in items if isinstance(item, PreprocessedImage)]
        outputs = iter(self._forward(batch))
        ready: list[Output] = []
        for name, item in items:
            output = item if isinstance(item, DxsegError) else next(outputs)
            if isinstance(output, NetworkOutput):
                ready.append((name, item, output))
            else:
                ready.append((name, output, None))
        return ready

    def _forward(self, batch: list[PreprocessedImage]) -> list[NetworkOutput | DxsegError]:
        """Run the network; where a batch fails, on each of its images alone."""
        if not batch:
            return []
        try:
            return [*self._pipeline.forward(batch)]
        except Exception as error:  # noqa: BLE001 - such as too large for the memory
            if len(batch) == 1 and isinstance(error, DxsegError):
                return [error]
            if len(batch) == 1:
                return [unexpected_error("the network failed on this image", error)]
        return [output for item in batch for output in self._forward([item])]

"""What computes the network: PyTorch, ONNX Runtime or OpenVINO, behind one protocol.

Everything before and after the network is the predictor's, so a backend cannot differ in it.
"""

from __future__ import annotations

import io
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dxseg.errors import DxsegError, UsageError
from dxseg.inference.model_folder import ModelInfo
from dxseg.inference.onnx_file import OnnxModel, input_names, output_names
from dxseg.models.coarse_branch import EVIDENCE_STRIDE
from dxseg.models.encoder import pad_to_multiple
from dxseg.models.onnx_export import INPUT, KNOWN
from dxseg.models.segmentation_model import STRIDE, SegmentationModel, SegmenterOutput, crop_output

BACKENDS = ("torch", "onnxruntime", "openvino")
Inputs = dict[str, NDArray[Any]]
PRECISIONS = ("float32", "bfloat16")


class Backend(Protocol):
    """Runs a network.

    Attributes:
        device: Where the network wants its input.
    """

    device: torch.device

    def outputs(self, images: Tensor, known: Tensor | None = None) -> SegmenterOutput:
        """What `SegmentationModel` says.

        Args:
            images: (B, C, H, W) float32, normalised, on `device`.
            known: The label prompt, on any device; None where nothing is known.

        Raises:
            DxsegError: The network cannot be run on them, or answers with other shapes than the
                model promises.
        """


class TorchBackend:
    """A network in PyTorch."""

    def __init__(
        self, segmenter: SegmentationModel, device: str = "cpu", precision: str = "float32"
    ) -> None:
        """Move the network to the device.

        Args:
            segmenter: Put into evaluation mode.
            device: As torch names it, such as "cpu" or "cuda:0".
            precision: Of convolutions and matrix products; weights stay as they are.

        Raises:
            UsageError: The device does not exist, or the precision has another name.
        """
        _check_precision(precision)
        try:
            self.device = torch.device(device)
            segmenter = segmenter.to(self.device)
        except (RuntimeError, AssertionError) as error:
            raise UsageError(f"device {device!r} cannot be used ({error}); try cpu") from error
        # Convolutions are faster in this layout, on the CPU too.
        self.segmenter = segmenter.eval().to(memory_format=torch.channels_last)
        self._reduced = precision == "bfloat16"

    @torch.inference_mode()
    def outputs(self, images: Tensor, known: Tensor | None = None) -> SegmenterOutput:
        """See `Backend.outputs`."""
        laid_out = images.contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._reduced):
            output: SegmenterOutput = self.segmenter(
                laid_out, None if known is None else known.to(self.device)
            )
        return output


class OnnxBackend:
    """An exported network on the CPU; subclasses say what runs it."""

    def __init__(self, model: OnnxModel, device: str) -> None:
        if device != "cpu":
            raise UsageError(
                f"device {device!r}: expected cpu, the only one of exported models; or use torch"
            )
        self.device = torch.device("cpu")
        self._info = model.info
        self._names = output_names(model.info)
        self._path = model.path
        self._classes, self._labels = len(model.info.mask_classes), len(model.info.labels)

    def outputs(self, images: Tensor, known: Tensor | None = None) -> SegmenterOutput:
        """See `Backend.outputs`."""
        padded = pad_to_multiple(images, STRIDE)
        given = graph_inputs(self._info, padded, known)
        found = dict(zip(self._names, self._guarded(given), strict=True))
        batch, _, height, width = padded.shape
        expected: dict[str, tuple[int, ...]] = {
            "mask_logits": (batch, self._classes, height, width),
            "label_logits": (batch, self._labels),
            "evidence": (batch, self._labels, height // EVIDENCE_STRIDE, width // EVIDENCE_STRIDE),
        }
        for name, value in found.items():
            if value.dtype != np.float32 or value.shape != expected[name]:
                raise DxsegError(
                    f"{self._path}: answers with {name} {value.dtype} {value.shape}, expected "
                    f"float32 {expected[name]}; export the model again"
                )
        tensors = {name: torch.from_numpy(value) for name, value in found.items()}
        return crop_output(SegmenterOutput(**tensors), images, padded)

    def _guarded(self, given: Inputs) -> list[NDArray[np.float32]]:
        try:
            return self._compute(given)
        except Exception as error:
            raise DxsegError(
                f"{self._path}: the network cannot be run on {given[INPUT].shape} ({_line(error)})"
            ) from error

    def _compute(self, given: Inputs) -> list[NDArray[np.float32]]:
        """Outputs for inputs by name, sides being multiples of 32."""
        raise NotImplementedError


class OnnxRuntimeBackend(OnnxBackend):
    """ONNX Runtime."""

    def __init__(self, model: OnnxModel, device: str = "cpu", precision: str = "float32") -> None:
        """Load the network.

        Raises:
            UsageError: The package is absent, or the device or precision is none of its own.
            DxsegError: ONNX Runtime refuses the file.
        """
        super().__init__(model, device)
        if precision != "float32":
            raise UsageError(
                f"precision {precision!r}: backend onnxruntime computes in the number format of "
                "the file; use backend torch or openvino"
            )
        try:
            import onnxruntime
        except ImportError as error:
            raise UsageError(
                "backend onnxruntime is not installed: pip install 'dxseg[onnx]'"
            ) from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 4
        try:
            self._session = onnxruntime.InferenceSession(
                model.content, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise DxsegError(f"{model.path}: ONNX Runtime refuses it ({_line(error)})") from error

    def _compute(self, given: Inputs) -> list[NDArray[np.float32]]:
        found: list[NDArray[np.float32]] = self._session.run(self._names, given)
        return found


class OpenVinoBackend(OnnxBackend):
    """OpenVINO."""

    def __init__(self, model: OnnxModel, device: str = "cpu", precision: str = "float32") -> None:
        """Compile the network.

        Raises:
            UsageError: The package is absent, or the device or precision is none of its own.
            DxsegError: OpenVINO refuses the file.
        """
        super().__init__(model, device)
        _check_precision(precision)
        try:
            import openvino
        except ImportError as error:
            raise UsageError(
                "backend openvino is not installed: pip install 'dxseg[openvino]'"
            ) from error
        settings = {
            # Left to itself, OpenVINO computes in bfloat16 where the processor can.
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bfloat16" else "f32",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "PERFORMANCE_HINT": "LATENCY",
        }
        core = openvino.Core()
        try:
            read = core.read_model(io.BytesIO(model.content))
            self._compiled = core.compile_model(read, "CPU", settings)
        except Exception as error:
            raise DxsegError(f"{model.path}: OpenVINO refuses it ({_line(error)})") from error

    def _compute(self, given: Inputs) -> list[NDArray[np.float32]]:
        found = self._compiled(given, share_inputs=True)
        return [np.array(found[name]) for name in self._names]


ONNX_BACKENDS: dict[str, type[OnnxRuntimeBackend | OpenVinoBackend]] = {
    "onnxruntime": OnnxRuntimeBackend,
    "openvino": OpenVinoBackend,
}


def graph_inputs(info: ModelInfo, images: Tensor, known: Tensor | None) -> Inputs:
    """What an exported network is given.

    Args:
        info: Of the model.
        images: (B, C, H, W) float32, normalised, H and W multiples of 32.
        known: The label prompt of `SegmentationModel`; None where nothing is known.

    Returns:
        Arrays by the name of the input.
    """
    given = {INPUT: np.ascontiguousarray(images.numpy())}
    if KNOWN in input_names(info):
        batch, labels = len(images), len(info.labels)
        if known is None and info.multi_label:
            known = torch.full((batch, labels), float("nan"))
        elif known is None:
            known = torch.full((batch,), -1)
        given[KNOWN] = known.numpy()
    return given


class FlipTTA:
    """Test-time augmentation: the mean of a backend's answers for an image and its mirror image."""

    def __init__(self, backend: Backend) -> None:
        self.device = backend.device
        self._backend = backend

    def outputs(self, images: Tensor, known: Tensor | None = None) -> SegmenterOutput:
        """See `Backend.outputs`; logits, evidence and features are averaged."""
        plain, mirrored = (self._backend.outputs(x, known) for x in (images, images.flip(-1)))
        labels = plain.label_logits
        if labels is not None and mirrored.label_logits is not None:
            labels = (labels + mirrored.label_logits) / 2
        return SegmenterOutput(
            (plain.mask_logits + mirrored.mask_logits.flip(-1)) / 2,
            labels,
            _mean_of_maps(plain.evidence, mirrored.evidence),
            _mean_of_maps(plain.features, mirrored.features),
        )


def _mean_of_maps(plain: Tensor | None, mirrored: Tensor | None) -> Tensor | None:
    if plain is None or mirrored is None:
        return None
    return (plain + mirrored.flip(-1)) / 2


def _check_precision(precision: str) -> None:
    if precision not in PRECISIONS:
        raise UsageError(f"precision {precision!r}: expected one of {', '.join(PRECISIONS)}")


def _line(error: Exception) -> str:
    """The last line of a message: runtimes begin with where in their sources it happened."""
    return str(error).strip().split("\n")[-1][:300]

"""Backends that run the network: PyTorch, ONNX Runtime or OpenVINO, behind one protocol.

Preprocessing and postprocessing are in `dxseg.inference.pipeline`, the same for all backends.
"""

from __future__ import annotations

import io
from functools import cache
from types import ModuleType
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dxseg.errors import DxsegError, UsageError
from dxseg.inference.model_info import ModelInfo
from dxseg.inference.onnx_file import OnnxModel, input_names, output_names
from dxseg.models.coarse_branch import EVIDENCE_STRIDE
from dxseg.models.encoder import pad_to_multiple
from dxseg.models.onnx_export import INPUT, KNOWN
from dxseg.models.segmentation_model import STRIDE, SegmentationModel, SegmenterOutput, crop_output
from dxseg.models.segmenter_with_classifier import without_classifier
from dxseg.models.sks import SKS
from dxseg.models.whole_view import WholeView

BACKENDS = ("torch", "onnxruntime", "openvino")
Inputs = dict[str, NDArray[Any]]
PRECISIONS = ("float32", "bfloat16")


class Backend(Protocol):
    """Runs a network.

    Attributes:
        device: Of the network's input.
    """

    device: torch.device

    def forward(
        self, images: Tensor, label_prompt: Tensor | None = None, whole: WholeView | None = None
    ) -> SegmenterOutput:
        """Run the network; see `SegmentationModel.forward`.

        Args:
            images: (B, C, H, W) float32, normalized, on `device`.
            label_prompt: Of the batch, on any device; None without label prompts.
            whole: The whole image, not reduced, if `images` are windows of it, whose masks alone
                are wanted.

        Raises:
            DxsegError: The network cannot be run on them, or its outputs have other shapes than the
                model should have.
        """


class TorchBackend:
    """A network in PyTorch."""

    def __init__(
        self, network: SegmentationModel, device: str = "cpu", precision: str = "float32"
    ) -> None:
        """Move the network to the device.

        Args:
            network: Put into evaluation mode.
            device: Torch device string, such as "cpu" or "cuda:0".
            precision: Of convolutions and matrix products; weights keep theirs.

        Raises:
            UsageError: The device does not exist, or the precision is unknown.
        """
        _check_precision(precision)
        try:
            self.device = torch.device(device)
            network = network.to(self.device)
        except (RuntimeError, AssertionError) as error:
            raise UsageError(f"device {device!r} cannot be used ({error}); try cpu") from error
        # Convolutions are faster in this layout, on the CPU too.
        module: Any = network.eval()  # not every version of torch declares this form of `to`
        self.network: SegmentationModel = module.to(memory_format=torch.channels_last)
        self._reduced = precision == "bfloat16"

    @torch.inference_mode()
    def forward(
        self, images: Tensor, label_prompt: Tensor | None = None, whole: WholeView | None = None
    ) -> SegmenterOutput:
        """See `Backend.forward`."""
        images = images.contiguous(memory_format=torch.channels_last)
        if label_prompt is not None:
            label_prompt = label_prompt.to(self.device)
        if whole is not None:
            # In other networks, nothing of the whole image enters the masks.
            prompted = isinstance(without_classifier(self.network), SKS)
            whole = self.network.reduce(whole) if prompted else None
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._reduced):
            output: SegmenterOutput = self.network(images, label_prompt, whole)
        return output


class OnnxBackend:
    """An exported network on the CPU; a subclass runs it."""

    def __init__(self, model: OnnxModel, device: str) -> None:
        if device != "cpu":
            raise UsageError(
                f"device {device!r}: expected cpu for exported models; or use backend torch"
            )
        self.device = torch.device("cpu")
        self._info = model.info
        self._names = output_names(model.info)
        self._path = model.path
        self._classes, self._labels = len(model.info.mask_classes), len(model.info.labels)

    def forward(
        self, images: Tensor, label_prompt: Tensor | None = None, whole: WholeView | None = None
    ) -> SegmenterOutput:
        """See `Backend.forward`."""
        if whole is not None and self._info.model.architecture == "sks":
            raise DxsegError(
                f"{self._path}: the image is larger than the input and is cut into windows, but "
                "the coarse branch of an exported network sees no more than its window; use the "
                "model folder (backend torch), or no sliding window, which reduces the image"
            )
        padded = pad_to_multiple(images, STRIDE)
        inputs = graph_inputs(self._info, padded, label_prompt)
        try:
            arrays = self._run(inputs)
        except Exception as error:
            shape = inputs[INPUT].shape
            raise DxsegError(
                f"{self._path}: the network cannot be run on {shape} ({_last_line(error)})"
            ) from error
        found = dict(zip(self._names, arrays, strict=True))
        batch, _, height, width = padded.shape
        expected: dict[str, tuple[int, ...]] = {
            "mask_logits": (batch, self._classes, height, width),
            "label_logits": (batch, self._labels),
            "evidence": (batch, self._labels, height // EVIDENCE_STRIDE, width // EVIDENCE_STRIDE),
        }
        for name, value in found.items():
            if value.dtype != np.float32 or value.shape != expected[name]:
                raise DxsegError(
                    f"{self._path}: its output {name} is {value.dtype} {value.shape}, expected "
                    f"float32 {expected[name]}; export the model again"
                )
        tensors = {name: torch.from_numpy(value) for name, value in found.items()}
        return crop_output(SegmenterOutput(**tensors), images, padded)

    def _run(self, inputs: Inputs) -> list[NDArray[np.float32]]:
        """Outputs in the order of their names; sides of the inputs are multiples of 32."""
        raise NotImplementedError


class OnnxRuntimeBackend(OnnxBackend):
    """ONNX Runtime."""

    def __init__(self, model: OnnxModel, device: str = "cpu", precision: str = "float32") -> None:
        """Load the network.

        Raises:
            UsageError: The package is not installed, or the device or precision is not supported.
            DxsegError: ONNX Runtime refuses the file.
        """
        super().__init__(model, device)
        if precision != "float32":
            raise UsageError(
                f"precision {precision!r}: backend onnxruntime uses the number format of the "
                "file; use backend torch or openvino"
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
            raise DxsegError(
                f"{model.path}: ONNX Runtime refuses it ({_last_line(error)})"
            ) from error

    def _run(self, inputs: Inputs) -> list[NDArray[np.float32]]:
        found: list[NDArray[np.float32]] = self._session.run(self._names, inputs)
        return found


class OpenVinoBackend(OnnxBackend):
    """OpenVINO."""

    def __init__(self, model: OnnxModel, device: str = "cpu", precision: str = "float32") -> None:
        """Compile the network.

        Raises:
            UsageError: The package is not installed, or the device or precision is not supported.
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
            # By default, OpenVINO uses bfloat16 where the processor supports it.
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bfloat16" else "f32",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "PERFORMANCE_HINT": "LATENCY",
        }
        core = _process_core(openvino)
        try:
            read = core.read_model(io.BytesIO(model.content))
            self._compiled = core.compile_model(read, "CPU", settings)
        except Exception as error:
            raise DxsegError(f"{model.path}: OpenVINO refuses it ({_last_line(error)})") from error

    def _run(self, inputs: Inputs) -> list[NDArray[np.float32]]:
        found = self._compiled(inputs, share_inputs=True)
        return [np.array(found[name]) for name in self._names]


@cache
def _process_core(openvino: ModuleType) -> Any:
    """OpenVINO's core, one until the process ends.

    A core gives the process a stack for signal handlers, and frees it together with its last model.
    Of two cores the second restores the stack of the first, which may be freed by then: the next
    signal (Ctrl-C, the end of a data worker) would be a segmentation fault.
    """
    return openvino.Core()


ONNX_BACKENDS: dict[str, type[OnnxRuntimeBackend | OpenVinoBackend]] = {
    "onnxruntime": OnnxRuntimeBackend,
    "openvino": OpenVinoBackend,
}


def graph_inputs(info: ModelInfo, images: Tensor, label_prompt: Tensor | None) -> Inputs:
    """Make the inputs of an exported network.

    Args:
        info: Of the model.
        images: (B, C, H, W) float32, normalized, H and W multiples of 32.
        label_prompt: As in `SegmentationModel.forward`; None without label prompts.

    Returns:
        Arrays by the name of the input.
    """
    inputs = {INPUT: np.ascontiguousarray(images.numpy())}
    if KNOWN in input_names(info):
        batch, labels = len(images), len(info.labels)
        if label_prompt is None and info.multi_label:
            label_prompt = torch.full((batch, labels), float("nan"))
        elif label_prompt is None:
            label_prompt = torch.full((batch,), -1)
        inputs[KNOWN] = label_prompt.numpy()
    return inputs


def _check_precision(precision: str) -> None:
    if precision not in PRECISIONS:
        raise UsageError(f"precision {precision!r}: expected one of {', '.join(PRECISIONS)}")


def _last_line(error: Exception) -> str:
    """The last line of a message: runtimes put the place in their sources before it."""
    return str(error).strip().split("\n")[-1][:300]

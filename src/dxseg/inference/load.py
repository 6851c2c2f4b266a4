"""Load a model from disk into a backend."""

from __future__ import annotations

from pathlib import Path

import torch

from dxseg.errors import DxsegError, UsageError
from dxseg.inference.backends import (
    BACKENDS,
    ONNX_BACKENDS,
    Backend,
    OnnxBackend,
    TorchBackend,
)
from dxseg.inference.label_prompt import encode_label_prompts
from dxseg.inference.model_folder import find_model_folder, load_model_folder
from dxseg.inference.model_info import ModelInfo
from dxseg.inference.onnx_file import OnnxModel, pack, parse_onnx, read_onnx
from dxseg.inference.onnx_suffix import is_onnx
from dxseg.models.onnx_export import onnx_graph
from dxseg.models.segmentation_model import STRIDE, SegmentationModel, SegmenterOutput

PARITY = 1e-3
"""Largest allowed difference of a probability between an exported network and PyTorch."""


def load_backend(
    path: str | Path,
    backend: str | None = None,
    device: str = "cpu",
    precision: str = "float32",
) -> tuple[Backend, ModelInfo]:
    """Load a model folder or an exported file.

    Args:
        path: A run or model folder, `hf-hub:OWNER/NAME`, or an .onnx file of `dxseg export onnx`.
        backend: One of `BACKENDS`; default: torch for a folder, onnxruntime for a file. For a
            backend other than torch, a folder is exported in memory.
        device: Torch device string.
        precision: See the backends.

    Raises:
        UsageError: The backend is unknown, not installed, or does not support such a model.
        DxsegError: The model is absent, damaged or refused.
    """
    if backend is not None and backend not in BACKENDS:
        raise UsageError(f"backend {backend!r}: expected one of {', '.join(BACKENDS)}")
    path = find_model_folder(path)
    if is_onnx(path):
        if backend == "torch":
            raise UsageError(
                f"{path}: backend torch needs the model folder; leave --backend out, or use "
                "onnxruntime or openvino"
            )
        model = read_onnx(path)
        return ONNX_BACKENDS[backend or "onnxruntime"](model, device, precision), model.info
    network, info = load_model_folder(path)
    if backend in (None, "torch"):
        return TorchBackend(network, device, precision), info
    model = export_network(network, info, path, backend)
    return ONNX_BACKENDS[backend](model, device, precision), info


def export_network(
    network: SegmentationModel, info: ModelInfo, path: Path, backend: str = "onnxruntime"
) -> OnnxModel:
    """Export a network for images of any size, or of one size where it supports no others.

    Args:
        network: Matches `info`.
        info: Of its model folder.
        path: Of the model folder, for errors.
        backend: Runs the export to compare it with PyTorch.

    Returns:
        An export whose probabilities are within `PARITY` of those of PyTorch.

    Raises:
        DxsegError: The network cannot be exported, or the export computes something else.
    """
    problems = []
    for any_size in (True, False):
        try:
            channels, side = info.preprocessing.channels, info.preprocessing.image_size
            graph = onnx_graph(network, channels, side, any_size=any_size)
            model = parse_onnx(pack(graph, info, "float32"), path)
            exported = ONNX_BACKENDS[backend](model)
            difference = largest_difference(network, exported, info, any_size=any_size)
        except UsageError:
            raise
        except Exception as error:  # noqa: BLE001 - the tracer raises many kinds
            problems.append(str(error).strip().split("\n")[0][:300])
            continue
        if difference <= PARITY:
            return model
        problems.append(f"its probabilities differ from PyTorch's by up to {difference:.2g}")
    raise DxsegError(f"{path}: the network cannot be exported ({problems[-1]})")


def largest_difference(
    network: SegmentationModel, exported: OnnxBackend, info: ModelInfo, *, any_size: bool
) -> float:
    """Compare an export with its network on noise.

    Args:
        network: The network.
        exported: Its export.
        info: Of both.
        any_size: Whether sizes other than that of training are compared too.

    Returns:
        The largest difference of two probabilities or evidence values; NaN counts as infinite.
    """
    side = -(-info.preprocessing.image_size // STRIDE) * STRIDE
    sizes = [(side, side), *([(side + STRIDE, STRIDE)] if any_size else [])]
    reference = TorchBackend(network)
    generator = torch.Generator().manual_seed(1)
    largest = 0.0
    for count, size in enumerate(sizes, start=1):
        images = torch.randn(count, info.preprocessing.channels, *size, generator=generator)
        for prompt in (None, encode_label_prompts([tuple(info.labels[:1])] * count, info)):
            outputs = (_probabilities(one.forward(images, prompt)) for one in (reference, exported))
            for expected, found in zip(*outputs, strict=True):
                difference = (expected - found).abs().nan_to_num(float("inf")).max()
                largest = max(largest, float(difference))
    return largest


def _probabilities(output: SegmenterOutput) -> list[torch.Tensor]:
    """All outputs, in 0..1."""
    found = [output.mask_logits.sigmoid()]
    if output.label_logits is not None:
        found.append(output.label_logits.softmax(1))
    return found if output.evidence is None else [*found, output.evidence]

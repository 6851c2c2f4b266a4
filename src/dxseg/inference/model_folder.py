"""The model folder: `model.safetensors` and `model.json`; neither file can hold code."""

from __future__ import annotations

import hashlib
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError

from dxseg.errors import DxsegError
from dxseg.inference.hub import FILES, local_copy
from dxseg.inference.model_info import DXSEG_VERSION, FORMAT_VERSION, ModelInfo, parse_info
from dxseg.io.atomic import write_bytes_atomic, write_text_atomic
from dxseg.models.factory import Task, build_model
from dxseg.models.segmentation_model import SegmentationModel

INFO_FILE, WEIGHTS_FILE = FILES
INFO_LIMIT = 1 << 20
"""Largest size of `model.json`, bytes."""

_HEADER_ALLOWANCE = 4 << 20


def save_model_folder(folder: str | Path, network: SegmentationModel, info: ModelInfo) -> ModelInfo:
    """Write a model folder.

    The weights go first: after a kill in between they do not match the old `model.json`.

    Args:
        folder: Created if needed; a model in it is replaced.
        network: Matches `info.model`.
        info: Its version and digest fields are filled in.

    Returns:
        The content of `model.json`.

    Raises:
        DxsegError: A weight is not finite (a training that diverged), or `training` is too large.
    """
    folder = Path(folder)
    tensors = {}
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise DxsegError(f"{folder}: weight {name} is not finite; lower the learning rate")
        # A copy in plain layout: safetensors refuses channels_last and shared storage.
        tensors[name] = tensor.detach().to("cpu", copy=True).contiguous()
    weights = safetensors.torch.save(tensors)
    update = {
        "format_version": FORMAT_VERSION,
        "dxseg_version": DXSEG_VERSION,
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
    }
    written = info.model_copy(update=update)
    text = written.model_dump_json(indent=2) + "\n"
    if len(text.encode()) > INFO_LIMIT:
        raise DxsegError(f"{folder}: model.json would exceed {INFO_LIMIT} bytes; shorten training")
    write_bytes_atomic(folder / WEIGHTS_FILE, weights)
    write_text_atomic(folder / INFO_FILE, text)
    return written


def find_model_folder(path: str | Path) -> Path:
    """Find a model folder: that of a run, one from the hub, or the path itself."""
    folder = local_copy(path)
    return folder / "model" if (folder / "model").is_dir() else folder


def read_info(folder: str | Path) -> ModelInfo:
    """Read and validate `model.json` alone.

    Args:
        folder: The model folder.

    Raises:
        DxsegError: It is absent, too large, no JSON, of another version, or a field is wrong.
    """
    path = Path(folder) / INFO_FILE
    return parse_info(read_limited(path, INFO_LIMIT), path)


def load_model_folder(folder: str | Path) -> tuple[SegmentationModel, ModelInfo]:
    """Read a model folder, checking every byte of the weights against the digest in `model.json`.

    Nothing is downloaded: the network is built without pretrained weights.

    Args:
        folder: The model folder.

    Returns:
        The network in evaluation mode on the CPU, and its `model.json`.

    Raises:
        DxsegError: A file is absent, cut, changed, too large, or fits another network.
    """
    info, path = read_info(folder), Path(folder) / WEIGHTS_FILE
    network = _build(info, Path(folder) / INFO_FILE)
    expected = network.state_dict()
    size = sum(tensor.numel() * tensor.element_size() for tensor in expected.values())
    data = read_limited(path, size + _HEADER_ALLOWANCE)
    if hashlib.sha256(data).hexdigest() != info.weights_sha256:
        raise DxsegError(
            f"{path}: its SHA-256 differs from the one in {INFO_FILE}: the file is damaged, cut or "
            "belongs to another model; copy the whole model folder again"
        )
    try:
        tensors = safetensors.torch.load(data)
    except SafetensorError as error:
        raise DxsegError(f"{path}: not a safetensors file ({error})") from error
    _check_fit(path, tensors, expected)
    network.load_state_dict(tensors, strict=True)
    return network.eval(), info


def _build(info: ModelInfo, path: Path) -> SegmentationModel:
    import timm

    backbone = info.model.backbone
    # timm would download "hf-hub:..." and read "local-dir:...", pretrained or not.
    if ":" in backbone or not timm.is_model(backbone):
        raise DxsegError(
            f"{path}: model.backbone {backbone[:80]!r} is not a model of timm; refused"
        )
    task = Task(
        info.preprocessing.channels,
        len(info.mask_classes),
        len(info.labels),
        info.multi_label,
        tuple(info.labels.index(label) for label in info.lesion_free),
        tuple(info.labels.index(label) for label in info.organs_only or ()),
    )
    try:
        return build_model(info.model, task, pretrained=False)
    except (ValueError, RuntimeError, TypeError, KeyError, AssertionError) as error:
        raise DxsegError(f"{path}: the network cannot be built ({error})") from error


def read_limited(path: Path, limit: int) -> bytes:
    """Read a file of a model.

    Args:
        path: The file.
        limit: Largest size, bytes.

    Raises:
        DxsegError: It cannot be read, or is larger.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(limit + 1)
    except OSError as error:
        raise DxsegError(
            f"{path}: cannot be read ({error.strerror}); expected a model folder, such as a run's "
            "model/, or an exported .onnx file"
        ) from error
    if len(data) > limit:
        raise DxsegError(f"{path}: larger than the {limit} bytes expected at most; refused")
    return data


def _check_fit(
    path: Path, tensors: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]
) -> None:
    problems = [f"{name} is missing" for name in sorted(expected.keys() - tensors.keys())]
    problems += [f"{name} is unexpected" for name in sorted(tensors.keys() - expected.keys())]
    for name in sorted(expected.keys() & tensors.keys()):
        found, right = tensors[name], expected[name]
        if found.shape != right.shape or found.dtype != right.dtype:
            problems.append(
                f"{name} is {found.dtype} {tuple(found.shape)}, "
                f"expected {right.dtype} {tuple(right.shape)}"
            )
    if problems:
        shown = "; ".join(problems[:5])
        more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise DxsegError(f"{path}: weights do not fit the network in {INFO_FILE}: {shown}{more}")

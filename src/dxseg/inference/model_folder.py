"""The model bundle: `model.safetensors` and `model.json`, all that inference needs.

Neither file can hold code, so a bundle from a stranger is data to check, never a program to run.
"""

from __future__ import annotations

import hashlib
import json
import re
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import safetensors.torch
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from safetensors import SafetensorError

from dxseg.config.schema import ModelConfig
from dxseg.data.preprocessing import Preprocessing
from dxseg.data.readers.slicing import Slicing
from dxseg.errors import DxsegError
from dxseg.inference.hub import FILES, local_copy
from dxseg.io.atomic import write_bytes_atomic, write_text_atomic
from dxseg.io.csv_io import is_formula
from dxseg.metrics.calibration import TEMPERATURES
from dxseg.models.factory import Task, build_model
from dxseg.models.segmentation_model import SegmentationModel

FORMAT_VERSION = 1
NOTICE = "Research software, not a medical device: not for diagnosis or treatment."
DXSEG_VERSION = version("dxseg")
INFO_FILE, WEIGHTS_FILE = FILES
INFO_LIMIT = 1 << 20
"""Bytes that `model.json` may have."""

_HEADER_ALLOWANCE = 4 << 20
_SHA256 = re.compile(r"[0-9a-f]{64}")
_Name = Annotated[str, Field(min_length=1, max_length=200)]


class ModelInfo(BaseModel):
    """What `model.json` says of the weights beside it.

    Attributes:
        format_version: Of the bundle; another than `FORMAT_VERSION` is refused.
        dxseg_version: The version that wrote it.
        model: The network.
        preprocessing: From decoded pixels to the network's input, and back.
        labels: Names of the image-level labels, in the order of the network's outputs. A network
            that learnt none of them can carry them too: rules about known labels use them.
        lesion_free: Those of them that mean an empty mask.
        multi_label: Whether an image may have several labels.
        mask_classes: Names of mask values 1, 2, ...
        threshold: Probability from which a pixel is lesion, in (0, 1).
        gate: Probability of a lesion, by the label head, below which an image gets no mask; None
            shows every mask.
        rule_in: Probability of a lesion above which an image counts as one with a lesion, see
            `dxseg.inference.postprocess`; None for no such rule.
        mask_temperature: Divides the logits of the pixels.
        label_temperature: Divides the logits of the labels; gate and rule_in are chosen after it.
        slicing: How the volumes that it was trained on became images; None for a network of
            images, which knows no volumes.
        training: Whatever the training wants remembered; inference does not read it.
        weights_sha256: Of `model.safetensors`; filled in by `save_model_folder`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format_version: int = FORMAT_VERSION
    dxseg_version: str = DXSEG_VERSION
    model: ModelConfig
    preprocessing: Preprocessing
    labels: list[_Name] = Field(max_length=10_000)
    lesion_free: list[_Name] = []
    multi_label: bool = False
    mask_classes: list[_Name] = Field(default=["lesion"], min_length=1, max_length=255)
    threshold: float = Field(default=0.5, gt=0, lt=1)
    gate: float | None = Field(default=None, ge=0, le=1)
    rule_in: float | None = Field(default=None, ge=0, le=1)
    mask_temperature: float = Field(default=1.0, ge=TEMPERATURES[0], le=TEMPERATURES[1])
    label_temperature: float = Field(default=1.0, ge=TEMPERATURES[0], le=TEMPERATURES[1])
    slicing: Slicing | None = None
    training: dict[str, Any] = {}
    weights_sha256: str = ""

    @field_validator("labels", "mask_classes")
    @classmethod
    def _distinct(cls, names: list[str]) -> list[str]:
        if len(set(names)) != len(names):
            raise ValueError("a name occurs twice; expected distinct names")
        formulas = [name for name in names if is_formula(name)]
        if formulas:
            raise ValueError(f"{formulas[0]!r} is a formula to a spreadsheet; rename it")
        return names

    @model_validator(mode="after")
    def _known_labels(self) -> ModelInfo:
        strangers = sorted(set(self.lesion_free) - set(self.labels))
        if strangers:
            raise ValueError(f"lesion_free names {strangers}, which labels does not list")
        return self

    @model_validator(mode="after")
    def _sliced_to_fit(self) -> ModelInfo:
        wanted = self.preprocessing
        given = None if self.slicing is None else (self.slicing.channels, self.slicing.bits)
        if given is not None and given != (wanted.channels, 8 if wanted.dtype == "uint8" else 16):
            raise ValueError(
                f"slicing gives {given[0]} channels of {given[1]} bits, preprocessing expects "
                f"{wanted.channels} of {wanted.dtype}"
            )
        return self


def save_model_folder(
    folder: str | Path, segmenter: SegmentationModel, info: ModelInfo
) -> ModelInfo:
    """Write a bundle.

    The weights go first: a process killed in between leaves weights that the old `model.json` does
    not vouch for, which `load_model_folder` refuses.

    Args:
        folder: Made if absent; a bundle in it is replaced.
        segmenter: Matches `info.model`.
        info: Its version and digest fields are filled in.

    Returns:
        What was written to `model.json`.

    Raises:
        DxsegError: A weight is not finite (a training that diverged), or `training` is too large.
    """
    folder = Path(folder)
    tensors = {}
    for name, tensor in segmenter.state_dict().items():
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
    """The folder of a model that a user names: a run's, one from a hub, or the path as it is."""
    folder = local_copy(path)
    return folder / "model" if (folder / "model").is_dir() else folder


def read_info(folder: str | Path) -> ModelInfo:
    """Read and validate `model.json` alone.

    Args:
        folder: The bundle.

    Raises:
        DxsegError: It is absent, too large, no JSON, of another version, or a field is wrong.
    """
    path = Path(folder) / INFO_FILE
    return parse_info(read_limited(path, INFO_LIMIT), path)


def parse_info(text: bytes, path: Path) -> ModelInfo:
    """Validate the content of a `model.json`.

    Args:
        text: The JSON.
        path: The file that holds it, for errors.

    Raises:
        DxsegError: It is no JSON, of another version, or a field is wrong.
    """
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DxsegError(f"{path}: not valid JSON ({error}); copy the model again") from error
    found = content.get("format_version") if isinstance(content, dict) else None
    if found != FORMAT_VERSION:
        raise DxsegError(
            f"{path}: format_version is {found!r}, this dxseg ({DXSEG_VERSION}) reads "
            f"{FORMAT_VERSION}; use the dxseg that wrote the model, or train again"
        )
    try:
        # In JSON mode, so that lists become tuples where the model wants them.
        info = ModelInfo.model_validate_json(text)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}"
            for problem in error.errors(include_url=False, include_input=False)[:5]
        )
        raise DxsegError(f"{path}: {problems}; copy the model again") from error
    if not _SHA256.fullmatch(info.weights_sha256):
        raise DxsegError(f"{path}: weights_sha256 is no SHA-256; copy the model again")
    return info


def load_model_folder(folder: str | Path) -> tuple[SegmentationModel, ModelInfo]:
    """Read a bundle, checking every byte of the weights against the digest in `model.json`.

    The network is built from `model.json` without looking for pretrained weights, so nothing is
    fetched.

    Args:
        folder: The bundle.

    Returns:
        The network in evaluation mode on the CPU, and what is known of it.

    Raises:
        DxsegError: A file is absent, cut, changed, too large, or fits another network.
    """
    info = read_info(folder)
    path = Path(folder) / WEIGHTS_FILE
    segmenter = _build(info, Path(folder) / INFO_FILE)
    expected = segmenter.state_dict()
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
    segmenter.load_state_dict(tensors, strict=True)
    return segmenter.eval(), info


def _build(info: ModelInfo, path: Path) -> SegmentationModel:
    import timm

    backbone = info.model.backbone
    # timm would fetch "hf-hub:..." and read "local-dir:...", with or without pretrained weights.
    if ":" in backbone or not timm.is_model(backbone):
        raise DxsegError(f"{path}: model.backbone {backbone[:80]!r} is no model of timm; refused")
    task = Task(
        info.preprocessing.channels,
        len(info.mask_classes),
        len(info.labels),
        info.multi_label,
        tuple(info.labels.index(label) for label in info.lesion_free),
    )
    try:
        return build_model(info.model, task, pretrained=False)
    except (ValueError, RuntimeError, TypeError, KeyError, AssertionError) as error:
        raise DxsegError(f"{path}: the network cannot be built ({error})") from error


def read_limited(path: Path, limit: int) -> bytes:
    """Read a file of a model.

    Args:
        path: The file.
        limit: Bytes that it may have.

    Raises:
        DxsegError: It cannot be read, or is larger.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(limit + 1)
    except OSError as error:
        raise DxsegError(
            f"{path}: cannot be read ({error.strerror}); expected a model folder with {INFO_FILE} "
            f"and {WEIGHTS_FILE}, such as a run's model/, or an exported .onnx file"
        ) from error
    if len(data) > limit:
        raise DxsegError(f"{path}: larger than the {limit} bytes it can need; refused")
    return data


def _check_fit(
    path: Path, tensors: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]
) -> None:
    problems = [f"{name} is missing" for name in sorted(expected.keys() - tensors.keys())]
    problems += [f"{name} is unknown" for name in sorted(tensors.keys() - expected.keys())]
    for name in sorted(expected.keys() & tensors.keys()):
        found, wanted = tensors[name], expected[name]
        if found.shape != wanted.shape or found.dtype != wanted.dtype:
            problems.append(
                f"{name} is {found.dtype} {tuple(found.shape)}, "
                f"expected {wanted.dtype} {tuple(wanted.shape)}"
            )
    if problems:
        more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise DxsegError(
            f"{path}: the weights do not fit the network in {INFO_FILE}: "
            f"{'; '.join(problems[:5])}{more}"
        )

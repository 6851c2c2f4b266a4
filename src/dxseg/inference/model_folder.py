"""The model folder: `model.safetensors` and `model.json`; neither file can hold code."""

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

from dxseg.config.network import ModelConfig
from dxseg.data.preprocessing import Preprocessing
from dxseg.data.readers.slicing import Slicing
from dxseg.errors import DxsegError
from dxseg.inference.components import ComponentFilter
from dxseg.inference.hub import FILES, local_copy
from dxseg.io.atomic import write_bytes_atomic, write_text_atomic
from dxseg.io.csv_io import is_formula
from dxseg.metrics.calibration import TEMPERATURES
from dxseg.models.factory import Task, build_model
from dxseg.models.segmentation_model import SegmentationModel

FORMAT_VERSION = 2
NOTICE = "Research software, not a medical device: not for diagnosis or treatment."
DXSEG_VERSION = version("dxseg")
INFO_FILE, WEIGHTS_FILE = FILES
INFO_LIMIT = 1 << 20
"""Largest size of `model.json`, bytes."""

_HEADER_ALLOWANCE = 4 << 20
_SHA256 = re.compile(r"[0-9a-f]{64}")
_Name = Annotated[str, Field(min_length=1, max_length=200)]


class ModelInfo(BaseModel):
    """Content of `model.json`: the network, its preprocessing, labels and thresholds.

    Attributes:
        format_version: Of the model folder; other versions than `FORMAT_VERSION` are refused.
        dxseg_version: The version that wrote it.
        model: The network.
        preprocessing: From decoded pixels to the network's input, and back.
        labels: Names of the image-level labels, in the order of the network's outputs. A network
            without a label head has them too, for label prompts.
        lesion_free: Those of them that mean an empty mask.
        organs_only: Those of them that mean no lesion, where organs have masks; None: there are
            none.
        multi_label: Whether an image may have several labels.
        mask_classes: Names of mask values 1, 2, ...
        lesion_classes: Those of them that are lesions, where others are organs; None: all.
        threshold: Probability from which a pixel is lesion, in (0, 1).
        rule_out_threshold: Lesion probability, by the label head, below which the mask is empty;
            None switches it off. See `dxseg.inference.postprocess` for both.
        rule_in_threshold: Lesion probability above which an image counts as one with a lesion; None
            switches it off.
        mask_temperature: Divides the logits of the pixels.
        label_temperature: Divides the logits of the labels; both image-level thresholds are chosen
            after it.
        smoothing_mm: Standard deviation, millimeters, of the Gaussian that averages mask
            probabilities along the axis of a volume, before all thresholds; 0: slices alone.
        sliding_window: Whether images larger than the input are cut into overlapping windows
            instead of being reduced; see `dxseg.inference.sliding_window`.
        components: Which components of a mask are removed, after all thresholds; None: none.
        slicing: How training volumes were sliced; None for a network trained on images, which
            cannot predict volumes.
        training: Notes of the training; not used by inference.
        weights_sha256: Of `model.safetensors`; filled in by `save_model_folder`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format_version: int = FORMAT_VERSION
    dxseg_version: str = DXSEG_VERSION
    model: ModelConfig
    preprocessing: Preprocessing
    labels: list[_Name] = Field(max_length=10_000)
    lesion_free: list[_Name] = []
    organs_only: list[_Name] | None = None
    multi_label: bool = False
    mask_classes: list[_Name] = Field(default=["lesion"], min_length=1, max_length=255)
    lesion_classes: list[_Name] | None = None
    threshold: float = Field(default=0.5, gt=0, lt=1)
    rule_out_threshold: float | None = Field(default=None, ge=0, le=1)
    rule_in_threshold: float | None = Field(default=None, ge=0, le=1)
    mask_temperature: float = Field(default=1.0, ge=TEMPERATURES[0], le=TEMPERATURES[1])
    label_temperature: float = Field(default=1.0, ge=TEMPERATURES[0], le=TEMPERATURES[1])
    smoothing_mm: float = Field(default=0.0, ge=0, le=1000)
    sliding_window: bool = False
    components: ComponentFilter | None = None
    slicing: Slicing | None = None
    training: dict[str, Any] = {}
    weights_sha256: str = ""

    @property
    def without_lesion(self) -> list[str]:
        """The labels of images without a lesion, whether or not organs have masks there."""
        return [*self.lesion_free, *(self.organs_only or ())]

    @property
    def lesion_names(self) -> list[str]:
        """The mask classes that are lesions."""
        return self.mask_classes if self.lesion_classes is None else self.lesion_classes

    @property
    def joins_slices(self) -> bool:
        """Whether the prediction of a slice depends on the others of its volume."""
        by_volume = self.components is not None and self.components.by_volume
        return self.smoothing_mm > 0 or by_volume

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
    def _names_are_listed(self) -> ModelInfo:
        for field in ("lesion_free", "organs_only"):
            unexpected = sorted(set(getattr(self, field) or ()) - set(self.labels))
            if unexpected:
                raise ValueError(f"{field} names {unexpected}, which labels does not list")
        unexpected = sorted(set(self.lesion_names) - set(self.mask_classes))
        if unexpected:
            raise ValueError(f"lesion_classes names {unexpected}, which mask_classes does not list")
        return self

    @model_validator(mode="after")
    def _slicing_fits_preprocessing(self) -> ModelInfo:
        expected = self.preprocessing
        found = None if self.slicing is None else (self.slicing.channels, self.slicing.bits)
        bits = 8 if expected.dtype == "uint8" else 16
        if found is not None and found != (expected.channels, bits):
            raise ValueError(
                f"slicing gives {found[0]} channels of {found[1]} bits, preprocessing expects "
                f"{expected.channels} of {expected.dtype}"
            )
        return self


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
            f"{path}: format_version is {found!r}, expected {FORMAT_VERSION}; use the version of "
            f"dxseg that wrote the model (this is {DXSEG_VERSION}), or train again"
        )
    try:
        # In JSON mode, so that lists become tuples where they should.
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

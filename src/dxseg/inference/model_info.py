"""The content of `model.json`: all that a prediction needs beside the weights."""

from __future__ import annotations

import json
import re
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from dxseg.config.network import ModelConfig
from dxseg.data.preprocessing import Preprocessing
from dxseg.data.readers.slicing import Slicing
from dxseg.data.table.spec import lesion_values
from dxseg.errors import DxsegError
from dxseg.inference.components import ComponentFilter
from dxseg.io.csv_io import is_formula
from dxseg.metrics.calibration import TEMPERATURES

FORMAT_VERSION = 2
NOTICE = "Research software, not a medical device: not for diagnosis or treatment."
DXSEG_VERSION = version("dxseg")

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
    lesion_classes: list[_Name] | None = Field(default=None, min_length=1)
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
    def lesion_values(self) -> list[int]:
        """The mask values of lesions."""
        return lesion_values(self.mask_classes, self.lesion_classes)

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

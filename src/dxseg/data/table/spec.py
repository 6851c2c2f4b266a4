"""The specification of a dataset, `dataset.yaml`: names, labels, mask classes, file locations."""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from dxseg.data.readers.slicing import Slicing
from dxseg.errors import DxsegError
from dxseg.io.atomic import write_text_atomic
from dxseg.io.csv_io import is_formula
from dxseg.io.remote import address_fault, is_address, redact
from dxseg.io.yaml import parse_yaml, read_small_text

SPEC_FILE = "dataset.yaml"


_Name = Annotated[str, Field(min_length=1, max_length=200)]


class DatasetSpec(BaseModel):
    """The content of `dataset.yaml`.

    Attributes:
        name: Shown in reports; any text.
        modality: Free text, such as "ultrasound" or "CT".
        labels: Names of the image-level labels, in the order of the classifier's outputs.
        lesion_free: Labels of images without a lesion; their mask is empty.
        organs_only: Labels of images without a lesion in which organs may be outlined: their mask
            is not known; None: there are none.
        multi_label: Whether an image may have several labels, written "a;b".
        mask_classes: Names of the mask values 1, 2, ...; 0 is background. At most 255.
        lesion_classes: Those of them that are lesions, where others are organs; None: all.
        channels: Number of image channels the models use.
        spacing_unit: Unit of the spacing columns; "pixel" where there is no physical size.
        provenance: Origin of the images.
        licence: Terms of use of the images.
        roots: Folders besides the dataset's own that may hold files, absolute or relative to it;
            or addresses that fsspec reads, such as "s3://bucket/archive".
        slicing: How volumes were sliced into the images, if they are slices; models store it.
        patients_from: Origin of `patient_id` where it is a guess, such as "folder names"; None
            where patients are given.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: _Name
    modality: str = "unknown"
    labels: list[_Name]
    lesion_free: list[_Name] = []
    organs_only: list[_Name] | None = None
    multi_label: bool = False
    mask_classes: list[_Name] = Field(default=["lesion"], min_length=1, max_length=255)
    lesion_classes: list[_Name] | None = Field(default=None, min_length=1)
    channels: int = Field(default=1, ge=1, le=1024)
    spacing_unit: Literal["mm", "pixel"] = "pixel"
    provenance: str = ""
    licence: str = ""
    roots: list[_Name] = []
    slicing: Slicing | None = None
    patients_from: _Name | None = None

    @field_validator("labels", "lesion_free", "mask_classes")
    @classmethod
    def _distinct_names(cls, names: list[str]) -> list[str]:
        if len(set(names)) != len(names):
            raise ValueError("a name occurs twice; expected distinct names")
        for name in names:
            if name != name.strip() or any(ord(character) < 32 for character in name):
                raise ValueError(
                    f"{name!r} has blanks around it or control characters; remove them"
                )
            if is_formula(name):
                raise ValueError(
                    f"{name!r} is a formula to a spreadsheet that opens a table; rename it"
                )
        return names

    @field_validator("roots")
    @classmethod
    def _plain_addresses(cls, roots: list[str]) -> list[str]:
        for number, root in enumerate(roots, start=1):
            # The value itself may hold a password and is not repeated.
            if is_address(root) and (fault := address_fault(root)):
                raise ValueError(f"root {number} {fault}")
        return roots

    @model_validator(mode="after")
    def _labels_agree(self) -> DatasetSpec:
        for field in ("lesion_free", "organs_only"):
            unknown = [name for name in getattr(self, field) or () if name not in self.labels]
            if unknown:
                raise ValueError(f"{field} lists {unknown}, which labels does not list")
        both = [name for name in self.organs_only or () if name in self.lesion_free]
        if both:
            raise ValueError(
                f"organs_only and lesion_free both list {both}; remove them from lesion_free if "
                "organs are outlined in such images, else from organs_only"
            )
        others = [name for name in self.lesion_classes or () if name not in self.mask_classes]
        if others:
            raise ValueError(f"lesion_classes lists {others}, which mask_classes does not list")
        if self.multi_label and any(";" in name for name in self.labels):
            raise ValueError(
                "a label contains ';', which separates the labels of one image; rename it"
            )
        if self.slicing is not None and self.slicing.channels != self.channels:
            raise ValueError(
                f"slicing with {self.slicing.neighbours} neighbors and "
                f"{len(self.slicing.windows)} sequences makes {self.slicing.channels} channels, "
                f"but channels is {self.channels}; set both to the same number"
            )
        return self

    @property
    def lesion_values(self) -> list[int]:
        """The mask values of lesions."""
        return lesion_values(self.mask_classes, self.lesion_classes)


def read_spec(path: Path) -> DatasetSpec:
    """Read and validate a `dataset.yaml`.

    Args:
        path: The YAML file.

    Raises:
        DxsegError: The file is absent, not YAML, or a field is missing, unknown or wrong.
    """
    text = read_small_text(
        path,
        f"a dataset: a folder with {SPEC_FILE} and cases.csv, as `dxseg import` makes one",
    )
    content = parse_yaml(text, str(path))
    if not isinstance(content, dict):
        raise DxsegError(f"{path}: expected fields such as `name: ...` and `labels: [...]`")
    return make_spec(content, str(path))


def make_spec(fields: dict[str, Any], source: str) -> DatasetSpec:
    """Validate the fields of a specification.

    Args:
        fields: As in `DatasetSpec`.
        source: Origin of the fields, named in errors.

    Raises:
        DxsegError: A field is missing, unknown or wrong.
    """
    try:
        return DatasetSpec.model_validate(fields)
    except ValidationError as error:
        raise DxsegError(f"{source}: {_explain(error)}") from error


def write_spec(path: Path, spec: DatasetSpec) -> None:
    """Write a `dataset.yaml` that `read_spec` reads back as the same object.

    Args:
        path: The YAML file, replaced atomically.
        spec: The specification.
    """
    fields = spec.model_dump(mode="json", exclude_none=True)
    text = yaml.safe_dump(fields, sort_keys=False, allow_unicode=True, width=100)
    write_text_atomic(path, text)


def _shown(value: Any) -> str:
    """Shorten a wrong value without writing all of it: aliases in YAML may be 10^9 long."""
    if isinstance(value, (str, int, float)):
        return redact(repr(str(value)[:80]))
    short = reprlib.Repr()
    short.maxlevel = 1
    return redact(short.repr(value))


def _explain(error: ValidationError) -> str:
    lines = []
    for problem in error.errors(include_url=False):
        field = ".".join(str(part) for part in problem["loc"]) or "the file"
        advice = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            advice = f"unknown field; expected one of {', '.join(DatasetSpec.model_fields)}"
        elif problem["type"] == "missing":
            advice = "this field is required; add it"
        elif problem["type"] == "string_type":
            # YAML reads `no`, `yes`, `on` as booleans and `0` as a number.
            advice = "expected text; put the value in quotes"
        given = "" if problem["type"] == "missing" else f", value {_shown(problem['input'])}"
        lines.append(f"field {field}{given}: {advice}")
    return "\n  ".join(lines)


def lesion_values(mask_classes: Sequence[str], lesion_classes: Sequence[str] | None) -> list[int]:
    """List the mask values of lesions.

    Args:
        mask_classes: Names of the mask values 1, 2, ...
        lesion_classes: Those of them that are lesions, where others are organs; None: all.
    """
    lesions = mask_classes if lesion_classes is None else lesion_classes
    return [value for value, name in enumerate(mask_classes, 1) if name in lesions]

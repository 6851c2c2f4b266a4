"""Types of parameters that the command line cannot read from the annotation alone.

In Python they are what their annotations say; `cyclopts.Parameter` adds how a command line is read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict

from cyclopts import Parameter, Token

from dxseg.errors import UsageError

PYTHON_ONLY = Parameter(parse=False)
"""For parameters that a command line cannot express, such as callbacks."""


def _one(_: Any, tokens: Sequence[Token]) -> str:
    return tokens[0].value


def _many(_: Any, tokens: Sequence[Token]) -> list[str]:
    return [token.value for token in tokens]


def _mask_budget(_: Any, tokens: Sequence[Token]) -> int | float:
    from dxseg.config.mask_budget import parse_mask_budget

    return parse_mask_budget(tokens[0].value)


def _pairs(_: Any, tokens: Sequence[Token]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for token in tokens:
        left, equals, right = token.value.partition("=")
        if not (left and equals and right):
            raise UsageError(
                f"{token.keyword} {token.value!r}: expected {_EXPECTED[token.keyword]}"
            )
        if left in pairs:
            raise UsageError(f"{token.keyword} {token.value!r}: {left} is given twice")
        pairs[left] = right
    return pairs


_EXPECTED: Mapping[str | None, str] = {
    "--channel": "NAME=SUFFIX, e.g. flair=_flair",
    "--column": "FIELD=COLUMN, e.g. label=diagnosis",
    "--mask-color": "COLOR=CLASS, e.g. #00ff00=lesion",
    "--mask-colour": "COLOR=CLASS, e.g. #00ff00=lesion",
    "--mask-replace": "TEXT=OTHER, e.g. volume=segmentation",
    "--mask-value": "VALUE=CLASS, e.g. 2=tumour",
    "--region": "REGION=CLASS, e.g. 1=tumour",
    "--window": "WINDOW for all sequences, or NAME=WINDOW for each, e.g. ct=liver",
}


def _windows(type_: Any, tokens: Sequence[Token]) -> str | dict[str, str]:
    if len(tokens) == 1 and "=" not in tokens[0].value:
        return tokens[0].value
    return _pairs(type_, tokens)


def _one_pair(type_: Any, tokens: Sequence[Token]) -> tuple[str, str]:
    return next(iter(_pairs(type_, tokens).items()))


def _numbered(type_: Any, tokens: Sequence[Token]) -> dict[int, str]:
    pairs = _pairs(type_, tokens)
    for value, name in pairs.items():
        if not (value.isascii() and value.isdecimal()):
            raise UsageError(
                f"{tokens[0].keyword} '{value}={name}': expected a number in "
                f"{_EXPECTED[tokens[0].keyword]}"
            )
    return {int(value): name for value, name in pairs.items()}


def _overrides(_: Any, tokens: Sequence[Token]) -> dict[str, Any]:
    from dxseg.config.presets import parse_overrides

    return parse_overrides([token.value for token in tokens])


def _input_spacing(_: Any, tokens: Sequence[Token]) -> Any:
    from dxseg.io.yaml import parse_yaml

    return parse_yaml(tokens[0].value, "--spacing", UsageError)


# `str` first: the command line takes the first type that fits, and an address such as s3://bucket
# must not become a Path.
StrPath = Annotated[str | Path, Parameter(metavar="PATH")]

StrPaths = Annotated[
    str | Path | Sequence[str | Path], Parameter(converter=_many, n_tokens=-1, metavar="PATH")
]
"""One path or several; one or more arguments."""

OutputPath = Annotated[str | Path, Parameter(name="--out", metavar="PATH")]

MaskBudget = Annotated[int | float, Parameter(converter=_mask_budget, metavar="NUMBER")]
"""35 is a count, 0.1 a fraction."""

LabelTable = Annotated[
    str | Path | Mapping[str, str],
    Parameter(converter=_one, n_tokens=1, accepts_keys=False, metavar="PATH"),
]
"""A table of labels, or the labels by file."""

PatientTable = Annotated[str | Path, Parameter(name="--patients", metavar="PATH")]
PatientPattern = Annotated[
    str, Parameter(name="--patient-pattern", allow_leading_hyphen=True, metavar="REGEX")
]
Missing = Annotated[Sequence[str], Parameter(name="--missing", metavar="WORD")]
OneHot = Annotated[
    Sequence[str] | None, Parameter(name="--one-hot", consume_multiple=True, metavar="COLUMN")
]
"""Columns that are labels; the option alone: every column of 0, 1, -1 and nothing."""

LesionFree = Annotated[Sequence[str], Parameter(metavar="LABEL")]
LesionClasses = Annotated[Sequence[str], Parameter(name="--lesion-class", metavar="CLASS")]
MaskClasses = Annotated[
    Sequence[str], Parameter(name="--mask-class", metavar="CLASS|VALUE=CLASS|STRUCTURE=CLASS")
]
SlidingWindow = Annotated[bool | None, Parameter(negative="--no-sliding-window")]
Suffix = Annotated[str, Parameter(allow_leading_hyphen=True, metavar="TEXT")]


def _repeated(converter: Any, name: str | tuple[str, ...], metavar: str) -> Parameter:
    return Parameter(
        name=name, converter=converter, n_tokens=-1, accepts_keys=False, metavar=metavar
    )


Columns = Annotated[Mapping[str, str], _repeated(_pairs, "--column", "FIELD=COLUMN")]
Channels = Annotated[Mapping[str, str], _repeated(_pairs, "--channel", "NAME=SUFFIX")]
Windows = Annotated[str | Mapping[str, str], _repeated(_windows, "--window", "WINDOW|NAME=WINDOW")]
Regions = Annotated[Mapping[str, str], _repeated(_pairs, "--region", "REGION=CLASS")]
MaskColors = Annotated[
    Mapping[str, str], _repeated(_pairs, ("--mask-color", "--mask-colour"), "COLOR=CLASS")
]
MaskValues = Annotated[Mapping[int, str], _repeated(_numbered, "--mask-value", "VALUE=CLASS")]
Replacement = Annotated[
    tuple[str, str], Parameter(converter=_one_pair, n_tokens=1, metavar="TEXT=OTHER")
]
Overrides = Annotated[Mapping[str, Any], _repeated(_overrides, "--set", "SECTION.KEY=VALUE")]
"""Nested values of the configuration."""

InputSpacing = Annotated[
    Literal["auto"] | tuple[float, float],
    Parameter(
        converter=_input_spacing, n_tokens=1, accepts_keys=False, metavar="auto|[HEIGHT, WIDTH]"
    ),
]
"""As `data.spacing` of the configuration."""

BudgetUnit = Literal["volume", "slice"]
LabelUnit = Literal["slice", "slab", "volume"]
Split = Literal["test", "validation", "train"]
Backend = Literal["torch", "onnxruntime", "openvino"]


class SlicingOptions(TypedDict, total=False):
    """Options of every import of volumes; `make_slicing` has the defaults.

    Attributes:
        axis: Plane of the slices; default: `through-plane`, across the coarsest spacing of most
            volumes.
        window: Gray-value window: `liver`, `lung`, `brain`, `abdomen`, `LEVEL,WIDTH`, or (default)
            `percentiles` of the volume; of one of several sequences `NAME=WINDOW`, which may be
            repeated. In Python also a mapping.
        resample: Bring volumes of a tilted gantry, of uneven gaps or of oblique slices onto a
            regular grid along the patient's axes; default: tilted and uneven DICOM series are
            refused, others sliced as they are stored.
        neighbours: Neighboring slices added as channels on each side (2.5D); default: 0.
        bits: Bit depth of the slice images; default: 8.
    """

    axis: Literal["through-plane", "axial", "coronal", "sagittal"]
    window: Windows
    resample: bool
    neighbours: int
    bits: Literal[8, 16]

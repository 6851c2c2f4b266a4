"""What all verbs below `dxseg import` share: options and how they are read."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from dxseg.commands.terminal import out
from dxseg.errors import UsageError

Overwrite = Annotated[bool, typer.Option(help="Replace the dataset that DESTINATION holds.")]
LesionFree = Annotated[
    list[str] | None,
    typer.Option(help="A label that means: no lesion, the mask is empty. May be repeated."),
]
Axis = Annotated[str, typer.Option(help="through-plane, axial, coronal or sagittal.")]
Window = Annotated[
    str, typer.Option(help="liver, lung, brain, abdomen, LEVEL,WIDTH, or percentiles.")
]
Neighbours = Annotated[int, typer.Option(help="Slices on each side as channels.")]
Bits = Annotated[int, typer.Option(help="Of a grey value of a slice: 8 or 16.")]
LesionClass = Annotated[
    list[str] | None, typer.Option(help="A mask class that is a lesion; all if absent.")
]
LesionLabel = Annotated[str | None, typer.Option(help="Label of slices whose mask shows a lesion.")]
VolumeAxis = Annotated[
    str | None, typer.Option(help="Of volumes: through-plane, axial, coronal or sagittal.")
]
VolumeWindow = Annotated[
    str | None, typer.Option(help="Of volumes: liver, lung, ..., LEVEL,WIDTH, or percentiles.")
]


def chosen_slicing(axis: str | None, window: str | None) -> Any:
    """The slicing of volumes that two options ask for; what is absent is the default."""
    from dxseg.data.readers.slicing import make_slicing

    return make_slicing(axis=axis or "through-plane", window=window or "percentiles")


def print_import(done: Any) -> None:
    """What an importer reports, one line a note."""
    for note in done.notes:
        out.print(f"- {note}", soft_wrap=True)
    out.print(f"Dataset: {done.destination}", soft_wrap=True)


def column_pairs(texts: list[str]) -> dict[str, str]:
    """``--column FIELD=COLUMN``, repeated."""
    return dict(pair(text, "--column", "FIELD=COLUMN, e.g. label=diagnosis") for text in texts)


def pair(text: str, option: str, expected: str) -> tuple[str, str]:
    """Both sides of ``LEFT=RIGHT``; anything else is a wrong usage of the option."""
    left, equals, right = text.partition("=")
    if not (left and equals and right):
        raise UsageError(f"{option} {text!r}: expected {expected}")
    return left, right


def mask_values(texts: list[str]) -> dict[int, str]:
    """``--mask-value VALUE=CLASS``, repeated."""
    expected = "VALUE=CLASS, e.g. 2=tumour"
    pairs = [pair(text, "--mask-value", expected) for text in texts]
    for value, name in pairs:
        if not (value.isascii() and value.isdecimal()):
            raise UsageError(f"--mask-value '{value}={name}': expected a number in {expected}")
    values = {int(value): name for value, name in pairs}
    if len(values) < len(pairs):
        raise UsageError(f"--mask-value {', '.join(texts)}: a value occurs twice; give it once")
    return values

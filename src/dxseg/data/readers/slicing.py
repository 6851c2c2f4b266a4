"""The rule by which volumes become images; `dataset.yaml` and the model store it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from dxseg.errors import UsageError

Plane = Literal["axial", "coronal", "sagittal"]
Axis = Literal["through-plane", "axial", "coronal", "sagittal"]

# Level and width in Hounsfield units, the usual ones as listed in Radiopaedia's article "Windowing
# (CT)"; scanners and hospitals differ a little.
WINDOWS: dict[str, tuple[float, float]] = {
    "liver": (30.0, 150.0),
    "lung": (-600.0, 1500.0),
    "brain": (40.0, 80.0),
    "abdomen": (50.0, 400.0),
}
PERCENTILES = "percentiles"

_Text = Annotated[str, Field(min_length=1, max_length=200)]

Window = tuple[float, float]
"""Level and width."""


class SequenceRule(BaseModel):
    """One of several files of a volume, such as a sequence of MR.

    Attributes:
        name: Shown in messages.
        suffix: End of the name of its file, without `.nii.gz`; None: it is not a file of its own,
            but one index of the fourth dimension, in the order of the sequences.
        window: As that of `Slicing`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: _Text
    suffix: _Text | None = None
    window: Window | None = None

    @model_validator(mode="after")
    def _usable(self) -> SequenceRule:
        _check_window(self.window)
        if self.suffix is not None and set(self.suffix) & {"/", "\\", "\0"}:
            raise ValueError("suffix: expected the end of the name of a file, such as _flair")
        return self


class Slicing(BaseModel):
    """Rule by which a volume becomes images.

    Attributes:
        axis: The plane of the slices, in patient space; "through-plane" slices each volume across
            the array axis of its coarsest spacing; imports decide on one plane for all. Of spacings
            within 1% of each other, axial is preferred, then coronal.
        window: Level and width that are scaled to the gray values, in the volume's units.
        percentiles: Percentiles of the voxels (0 to 100) that are scaled to the gray values if
            there is no window, as for MR, which has no unit. Padding does not count: NaN, and
            the lowest value if only it is below -1024 and 1% of the voxels have it, as in CT.
        resample: Whether volumes that are no regular grid along the patient's axes are brought onto
            one (`dxseg.data.readers.regular_grid`); None: slices are taken as they are stored.
        neighbours: Neighboring slices on each side that are added as channels (2.5D).
        bits: Bit depth of the gray values.
        sequences: Those of which a volume consists, in the order of the channels, each with its own
            window; None: a volume is one file.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    axis: Axis = "through-plane"
    window: Window | None = None
    percentiles: tuple[float, float] = (0.5, 99.5)
    resample: Literal[True] | None = None
    neighbours: int = Field(default=0, ge=0, le=16)
    bits: Literal[8, 16] = 8
    sequences: tuple[SequenceRule, ...] | None = Field(default=None, min_length=1, max_length=64)

    @model_validator(mode="after")
    def _consistent(self) -> Slicing:
        low, high = self.percentiles
        if not 0 <= low < high <= 100:
            raise ValueError("percentiles: expected two rising numbers of 0 to 100")
        _check_window(self.window)
        if self.sequences is not None:
            _check_sequences(self.sequences)
            if self.window is not None:
                raise ValueError("window: each sequence has its own; leave the common one out")
        return self

    @property
    def windows(self) -> list[Window | None]:
        """The window of each sequence; one for volumes of one file."""
        return [self.window] if self.sequences is None else [one.window for one in self.sequences]

    @property
    def channels(self) -> int:
        """Number of channels of the images: each sequence of the slice and its neighbors."""
        return (2 * self.neighbours + 1) * len(self.windows)

    @property
    def suffixes(self) -> dict[str, str]:
        """Suffix of the file of each sequence by its name; empty where one file has them all."""
        return {one.name: one.suffix for one in self.sequences or () if one.suffix is not None}

    def other_suffixes(self, given: Mapping[str, str]) -> dict[str, str]:
        """The suffixes of files that are named otherwise, in the order of the sequences.

        Args:
            given: Suffix of each sequence by its name.

        Raises:
            UsageError: The names are not those of the sequences.
        """
        names = [one.name for one in self.sequences or ()]
        if set(names) != set(given):
            raise UsageError(
                f"--channel {', '.join(given)}: the model was trained on "
                f"{', '.join(names) or 'volumes of one file'}; give exactly these"
            )
        return {name: given[name] for name in names}


def shown_slice(image: NDArray[Any], slicing: Slicing | None) -> NDArray[Any]:
    """The channels of an image that are the slice itself, of the first sequence, to be looked at.

    Args:
        image: (H, W, C).
        slicing: The rule that made it; an image of another number of channels is returned as it is.
    """
    if slicing is None or image.shape[2] != slicing.channels:
        return image
    return image[:, :, slicing.neighbours : slicing.neighbours + 1]


def _check_window(window: Window | None) -> None:
    if window is not None and not (np.isfinite(window).all() and window[1] > 0):
        raise ValueError("window: expected a level and a width above 0")


def _check_sequences(sequences: tuple[SequenceRule, ...]) -> None:
    for field in ("name", "suffix"):
        given = [getattr(one, field) for one in sequences if getattr(one, field) is not None]
        if len(set(given)) != len(given):
            raise ValueError(f"{field}: two sequences have the same; expected distinct ones")
    if len({one.suffix is None for one in sequences}) > 1:
        raise ValueError("suffix: expected one for each sequence, or for none")


def parse_window(text: str) -> tuple[float, float] | None:
    """Parse the option `--window`.

    Args:
        text: A key of `WINDOWS`, "LEVEL,WIDTH", or "percentiles".

    Returns:
        Level and width; None for percentiles.

    Raises:
        UsageError: The text is none of these.
    """
    if text == PERCENTILES:
        return None
    if text in WINDOWS:
        return WINDOWS[text]
    try:
        level, width = (float(part) for part in text.split(","))
    except ValueError:
        level, width = np.nan, np.nan
    if np.isfinite([level, width]).all() and width > 0:
        return level, width
    raise UsageError(
        f"window {text!r}: expected {', '.join(WINDOWS)}, {PERCENTILES}, or LEVEL,WIDTH such as "
        "40,400"
    )


def make_slicing(
    *,
    window: str | Mapping[str, str] = PERCENTILES,
    sequences: Mapping[str, str | None] | None = None,
    **fields: Any,
) -> Slicing:
    """Make a `Slicing` of options of the command line.

    Args:
        window: See `parse_window`; of all sequences, or of some by name (others: percentiles).
        sequences: Suffix of the file of each sequence by its name, in the order of the channels.
        fields: Other fields of `Slicing`.

    Raises:
        UsageError: A field is unknown or wrong, or a window is of no sequence.
    """
    if sequences is None and isinstance(window, Mapping):
        raise UsageError(
            f"window {next(iter(window))}=...: there are no sequences; expected one window for all"
        )
    if sequences is None:
        fields["window"] = parse_window(str(window))
    else:
        windows = window if isinstance(window, Mapping) else dict.fromkeys(sequences, window)
        unknown = sorted(set(windows) - set(sequences))
        if unknown:
            raise UsageError(
                f"window {unknown[0]}=...: no such sequence; expected {', '.join(sequences)}"
            )
        fields["sequences"] = [
            {
                "name": name,
                "suffix": suffix,
                "window": parse_window(windows.get(name, PERCENTILES)),
            }
            for name, suffix in sequences.items()
        ]
    fields["resample"] = fields.get("resample") or None
    try:
        return Slicing(**fields)
    except ValidationError as error:
        problems = "; ".join(
            f"{problem['loc'][0] if problem['loc'] else 'slicing'} {problem['input']!r}: "
            f"{problem['msg'].removeprefix('Value error, ')}"
            for problem in error.errors(include_url=False)
        )
        raise UsageError(problems) from error

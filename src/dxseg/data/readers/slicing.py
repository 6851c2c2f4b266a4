"""Slices of a volume: axis, orientation on the screen, and grey values of voxels.

Training and inference both use this module; `dataset.yaml` and the model store the rule.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from dxseg.data.readers.volume import Volume
from dxseg.errors import DxsegError, UsageError

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

# Directions of the slice number, the rows and the columns in each plane. Columns lead towards the
# patient's left: radiological convention.
_TOWARDS: dict[Plane, str] = {"axial": "SPL", "coronal": "AIL", "sagittal": "RIP"}
_EQUAL_SPACING = 0.99
_AIR = -1024
"""Hounsfield units of air; scanners write a lower value around what they scanned."""
_PADDED_FRACTION = 0.01


class Slicing(BaseModel):
    """Rule by which a volume becomes images.

    Attributes:
        axis: The plane of the slices, in patient space; "through-plane" slices each volume across
            the array axis of its coarsest spacing; imports decide on one plane for all. Of spacings
            within 1% of each other, axial is preferred, then coronal.
        window: Level and width that are scaled to the grey values, in the volume's units.
        percentiles: Percentiles of the voxels (0 to 100) that are scaled to the grey values if
            there is no window, as for MR, which has no unit. Padding does not count: NaN, and
            the lowest value if only it is below -1024 and 1% of the voxels have it, as in CT.
        neighbours: Neighbouring slices on each side that are added as channels (2.5D).
        bits: Bit depth of the grey values.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    axis: Axis = "through-plane"
    window: tuple[float, float] | None = None
    percentiles: tuple[float, float] = (0.5, 99.5)
    neighbours: int = Field(default=0, ge=0, le=16)
    bits: Literal[8, 16] = 8

    @model_validator(mode="after")
    def _ordered(self) -> Slicing:
        low, high = self.percentiles
        if not 0 <= low < high <= 100:
            raise ValueError("percentiles: expected two rising numbers of 0 to 100")
        if self.window is not None and not (np.isfinite(self.window).all() and self.window[1] > 0):
            raise ValueError("window: expected a level and a width above 0")
        return self

    @property
    def channels(self) -> int:
        """Number of channels of the images: the slice and its neighbours."""
        return 2 * self.neighbours + 1


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


def make_slicing(**fields: Any) -> Slicing:
    """Make a `Slicing` of options of the command line.

    Args:
        fields: Fields of `Slicing`; the window is parsed by `parse_window`.

    Raises:
        UsageError: A field is unknown or wrong.
    """
    if isinstance(fields.get("window"), str):
        fields["window"] = parse_window(fields["window"])
    try:
        return Slicing(**fields)
    except ValidationError as error:
        problems = "; ".join(
            f"{problem['loc'][0] if problem['loc'] else 'slicing'} {problem['input']!r}: "
            f"{problem['msg'].removeprefix('Value error, ')}"
            for problem in error.errors(include_url=False)
        )
        raise UsageError(problems) from error


class SlicedVolume:
    """A volume as a stack of images in radiological orientation.

    Axial slices count from the feet to the head, coronal ones from the back to the front, sagittal
    ones from the left to the right. The patient's front (axial) or head (coronal, sagittal) is at
    the top; the patient's right (axial, coronal) or front (sagittal) is at the left of the image.
    Oblique volumes are not resampled: each array axis counts as the patient axis it is closest to.

    Attributes:
        plane: Plane of the slices.
        spacing: Millimetres between slices, rows and columns.
        shape: Number of slices, height, width.
    """

    def __init__(self, volume: Volume, slicing: Slicing) -> None:
        """Orient the volume; nothing is copied.

        Args:
            volume: A volume with an invertible affine.
            slicing: The rule.

        Raises:
            DxsegError: The rule needs percentiles and no voxel is finite.
        """
        from nibabel import orientations

        own = orientations.io_orientation(volume.affine)
        self.plane = _plane(own, volume.spacing, slicing.axis)
        shown = orientations.axcodes2ornt(_TOWARDS[self.plane])
        self._there = orientations.ornt_transform(own, shown)
        self._back = orientations.ornt_transform(shown, own)
        self._stack = self.turn(volume.voxels)
        self._slicing = slicing
        self._limits = _limits(volume.voxels, slicing)
        source = np.argsort(self._there[:, 0])
        slices, rows, columns = (volume.spacing[axis] for axis in source)
        self.spacing = (slices, rows, columns)
        self.shape: tuple[int, int, int] = self._stack.shape

    def __len__(self) -> int:
        return self.shape[0]

    def image(self, index: int) -> NDArray[Any]:
        """Make an image of one slice.

        Args:
            index: 0 to the number of slices - 1.

        Returns:
            (H, W, C) uint8 or uint16. The channels are the slices from the lowest neighbour to the
            highest; the first and the last slice are repeated for neighbours beyond the ends.
            Values below the window and NaN are 0.
        """
        reach = self._slicing.neighbours
        wanted = np.arange(index - reach, index + reach + 1).clip(0, len(self) - 1)
        low, high = self._limits
        dtype = np.uint8 if self._slicing.bits == 8 else np.uint16
        top = np.iinfo(dtype).max
        scaled = self._stack[wanted].astype(np.float64)
        scaled -= low
        scaled *= top / (high - low)
        if self._stack.dtype.kind == "f":
            scaled[np.isnan(scaled)] = 0
        grey = np.rint(scaled.clip(0, top, out=scaled), out=scaled).astype(dtype)
        return np.ascontiguousarray(grey.transpose(1, 2, 0))

    def turn(self, voxels: NDArray[Any]) -> NDArray[Any]:
        """Orient an array (I, J, K) of the volume's grid as slices (slice, row, column); a view."""
        from nibabel.orientations import apply_orientation

        turned: NDArray[Any] = apply_orientation(voxels, self._there)
        return turned

    def restore(self, slices: NDArray[Any]) -> NDArray[Any]:
        """Orient slices (slice, row, column) back to an array (I, J, K); the inverse of `turn`."""
        from nibabel.orientations import apply_orientation

        restored: NDArray[Any] = apply_orientation(slices, self._back)
        return restored


def count_slices(affine: NDArray[np.float64], shape: tuple[int, int, int], slicing: Slicing) -> int:
    """Count the slices of a volume from its grid.

    Args:
        affine: (4, 4), from voxel indices to millimetres.
        shape: (I, J, K).
        slicing: The rule.
    """
    # One value stands for all voxels.
    grid = Volume(np.broadcast_to(np.uint8(0), shape), affine)
    return len(SlicedVolume(grid, slicing.model_copy(update={"window": (0.0, 1.0)})))


def through_plane(affine: NDArray[np.float64]) -> Plane:
    """The plane across the coarsest spacing of a volume.

    Args:
        affine: (4, 4), from voxel indices to millimetres.
    """
    from nibabel import orientations

    grid = Volume(np.empty(0), affine)
    return _plane(orientations.io_orientation(affine), grid.spacing, "through-plane")


def _plane(orientation: NDArray[Any], spacing: tuple[float, float, float], axis: Axis) -> Plane:
    if axis != "through-plane":
        return axis
    coarse = np.asarray(spacing) >= _EQUAL_SPACING * max(spacing)
    across = set(orientation[coarse, 0].astype(int).tolist())
    preferred: tuple[tuple[int, Plane], ...] = ((2, "axial"), (1, "coronal"), (0, "sagittal"))
    return next(plane for patient_axis, plane in preferred if patient_axis in across)


def _limits(voxels: NDArray[Any], slicing: Slicing) -> tuple[float, float]:
    if slicing.window is not None:
        level, width = slicing.window
        return level - width / 2, level + width / 2
    finite = voxels[np.isfinite(voxels)] if voxels.dtype.kind == "f" else voxels
    if finite.size == 0:
        raise DxsegError("no voxel of the volume is a finite number; export it again")
    lowest = finite.min()
    if lowest < _AIR:
        above = finite[finite > lowest]
        many = finite.size - above.size >= _PADDED_FRACTION * finite.size
        # Other volumes than CT may have low values of every kind: those are no padding.
        finite = above if many and above.size and above.min() >= _AIR else finite
    low, high = (float(value) for value in np.percentile(finite, slicing.percentiles))
    # A constant volume becomes black.
    return low, high if high > low else low + 1.0

"""What the slices of a volume must agree on: size, spacing, orientation, equal distances."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dxseg.data.readers.dicom.headers import Header, Plane
from dxseg.data.readers.volume import VOXEL_LIMIT
from dxseg.errors import DxsegError

Array = npt.NDArray[np.float64]

_COSINE_TOLERANCE = 1e-3
_SPACING_TOLERANCE = 1e-3
# Fraction of the distance between slices. Exports round positions, to 0.01 mm at worst.
_POSITION_TOLERANCE = 0.05
_SAME_PLACE = 1e-3


@dataclass(frozen=True)
class Slice:
    """A plane and its object."""

    header: Header
    plane: Plane


def size_of(slices: Sequence[Slice], name: str) -> tuple[int, int]:
    """Read the height and width of all slices.

    Args:
        slices: Of one volume.
        name: Of the volume in messages.

    Raises:
        DxsegError: They differ, the slices are in several frames of reference, or are too many.
    """
    layouts = [part.header.layout for part in slices]
    sizes = {(layout.rows, layout.columns) for layout in layouts if layout is not None}
    if len(sizes) != 1:
        shown = ", ".join(f"{rows} x {columns}" for rows, columns in sorted(sizes))
        raise DxsegError(f"{name}: slices of different sizes ({shown}); export the series again")
    spaces = {part.header.frame_of_reference for part in slices}
    if len(spaces) != 1:
        raise DxsegError(
            f"{name}: slices in {len(spaces)} frames of reference; expected one; split the series"
        )
    [(rows, columns)] = sizes
    if rows * columns * len(slices) > VOXEL_LIMIT:
        raise DxsegError(
            f"{name}: {len(slices)} slices of {rows} x {columns} pixels; expected at most "
            f"{VOXEL_LIMIT} voxels in all; export a part of it"
        )
    return rows, columns


def spacing_of(slices: Sequence[Slice], name: str) -> Array:
    """Read the height and width of a pixel, in millimeters, of all slices.

    Args:
        slices: Of one volume.
        name: Of the volume in messages.

    Raises:
        DxsegError: They are unknown or differ.
    """
    known = [part.plane.spacing for part in slices if part.plane.spacing is not None]
    spacings = np.array(known, dtype=np.float64).reshape(-1, 2)
    if len(spacings) < len(slices) or spacings.min() <= 0:
        raise DxsegError(f"{name}: slices without pixel spacing; expected millimeters above 0")
    if np.ptp(spacings, axis=0).max() > _SPACING_TOLERANCE * spacings.min():
        raise DxsegError(
            f"{name}: pixel spacings from {spacings.min():.4g} to {spacings.max():.4g} mm; "
            "expected one; split the series"
        )
    return np.asarray(spacings[0])


def cosines_of(slices: Sequence[Slice], name: str) -> Array:
    """Read the directions (2, 3) of rows and columns of all slices.

    Args:
        slices: Of one volume.
        name: Of the volume in messages.

    Raises:
        DxsegError: They are unknown, differ, or are not at right angles.
    """
    known = [part.plane.orientation for part in slices if part.plane.orientation is not None]
    all_cosines = np.array(known, dtype=np.float64).reshape(-1, 2, 3)
    if len(all_cosines) < len(slices):
        raise DxsegError(f"{name}: slices without orientation; expected six direction cosines")
    # Rows and columns must be unit vectors at right angles, or normals mean nothing.
    products = all_cosines @ all_cosines.transpose(0, 2, 1) - np.eye(2)
    if np.abs(products).max() > _COSINE_TOLERANCE:
        raise DxsegError(f"{name}: directions of rows and columns are not at right angles")
    if np.ptp(all_cosines, axis=0).max() > _COSINE_TOLERANCE:
        raise DxsegError(
            f"{name}: slices of mixed orientation, as of a localiser; expected parallel ones; "
            "split the series"
        )
    return np.asarray(all_cosines[0])


def step_of(positions: Array, across: Array, spacing: Array, name: str) -> tuple[Array | None, str]:
    """Compute the vector from one slice to the next, and why the slices are no regular grid.

    Args:
        positions: (K, 3) of the slices, in order.
        across: Their normal.
        spacing: Height and width of a pixel.
        name: Of the volume in messages.

    Returns:
        The mean vector, None for a single slice; and the fault, "" for none.

    Raises:
        DxsegError: Several slices have the same position.
    """
    if len(positions) == 1:
        return None, ""
    distances = positions @ across
    gaps = np.diff(distances)
    if gaps.min() < _SAME_PLACE:
        raise DxsegError(
            f"{name}: {int((gaps < _SAME_PLACE).sum())} slice(s) have the position of another one, "
            "as with several phases or repetitions; expected one per position; export each as a "
            "series"
        )
    step: Array = (positions[-1] - positions[0]) / (len(positions) - 1)
    even = distances[0] + (step @ across) * np.arange(len(positions))
    if np.abs(distances - even).max() > _POSITION_TOLERANCE * (step @ across):
        missing = round(float((distances[-1] - distances[0]) / np.median(gaps))) + 1 - len(gaps) - 1
        return step, (
            f"slices are {gaps.min():.4g} to {gaps.max():.4g} mm apart"
            + (f", as if {missing} were missing" if missing > 0 else "")
            + "; expected equal distances; export the series completely"
        )
    shift = positions - positions[0] - np.outer(distances - distances[0], across)
    if np.linalg.norm(shift, axis=1).max() > spacing.min():
        whole = step @ across
        tilt = np.degrees(np.arctan2(np.linalg.norm(step - whole * across), whole))
        return step, (
            f"each slice is shifted against the one before, as by a gantry tilted by {tilt:.1f} "
            "degrees; expected slices above each other"
        )
    return step, ""

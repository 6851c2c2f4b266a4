"""Label maps: whole numbers on the grid of a volume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dxseg.data.readers.volume import Grid, VolumeLabels, onto_grid
from dxseg.data.readers.volume_files import read_volume_file
from dxseg.errors import DxsegError

_NEARLY = 0.05
"""Values this close to a whole number are that number."""

_REMEDY = (
    "resample the label map onto the image's grid; if only its header is wrong, `dxseg import "
    "volumes --masks-by-voxel`"
)
_BY_VOXEL = "label map: its header places it elsewhere than its volume; laid on it voxel by voxel"


def read_label_map(path: str | Path, grid: Grid, by_voxel: bool = False) -> VolumeLabels:
    """Read the label map of a volume.

    A label map whose axes are stored in another order or direction is reoriented, which moves no
    voxel. Values within 0.05 of a whole number are that number, and NaN is background, with a note.

    Args:
        path: A file of a format of volumes.
        grid: Of the volume it belongs to.
        by_voxel: Whether a label map of the volume's shape lies on its voxels where the headers
            place them apart.

    Raises:
        DxsegError: As `read_volume_file`; or the grids differ by half a voxel or more at a corner;
            or values are not nearly whole numbers from 0 to 65535.
    """
    volume = read_volume_file(path)
    placed: tuple[str, ...] = ()
    try:
        [values] = onto_grid(volume, grid, path, "its image", _REMEDY)
    except DxsegError:
        if not by_voxel or volume.voxels.shape != grid[1]:
            raise
        values, placed = volume.voxels, (_BY_VOXEL,)
    whole, notes = _whole_numbers(values, path)
    return VolumeLabels(whole, notes=(*placed, *notes))


def _whole_numbers(
    values: NDArray[Any], path: str | Path
) -> tuple[NDArray[np.uint16], tuple[str, ...]]:
    """Round label values that scaling or compression has moved a little; NaN is background."""
    if values.dtype.kind in "iu" and 0 <= values.min() <= values.max() < 2**16:
        return values.astype(np.uint16), ()
    unknown = np.isnan(values)
    given = np.where(unknown, 0, values)
    rounded = np.rint(given)
    # Infinities fail the comparison.
    with np.errstate(invalid="ignore"):
        moved = float(np.abs(given - rounded).max())
    if not (moved <= _NEARLY and 0 <= rounded.min() <= rounded.max() < 2**16):
        raise DxsegError(
            f"{path}: values from {np.nanmin(given)} to {np.nanmax(given)} that are not all whole "
            f"numbers from 0 to 65535, nor within {_NEARLY} of one; expected a label map; "
            "threshold a soft map first"
        )
    notes = []
    if moved > 0:
        notes.append(f"label map: values up to {moved:.2g} away from whole numbers are rounded")
    if unknown.any():
        notes.append(f"label map: {unknown.sum()} voxels are NaN, read as background")
    return rounded.astype(np.uint16), tuple(notes)

"""Series of slices as volumes: sorted by position, an error if they are not a regular grid."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dxseg.data.readers.dicom.headers import Header, alias_in_errors, read_header
from dxseg.data.readers.dicom.image import measured_frame
from dxseg.data.readers.dicom.objects import is_dicom, open_object, pixel_layout
from dxseg.data.readers.dicom.slice_checks import (
    Slice,
    cosines_of,
    size_of,
    spacing_of,
    step_of,
)
from dxseg.data.readers.images import is_supported
from dxseg.data.readers.regular_grid import RegularGrid
from dxseg.data.readers.volume import Volume, volume_without_voxels
from dxseg.errors import DxsegError

Array = npt.NDArray[np.float64]

OFF_PLANE = 0.1
"""Maximum distance of a plane from its slice, in voxels."""

_INT16 = np.iinfo(np.int16)


@dataclass(frozen=True)
class Stack:
    """Slices in order, and their grid.

    Attributes:
        name: Name of the series in messages.
        slices: In the direction of the normal, which is row x column.
        affine: (4, 4), from (column, row, slice) to millimeters in RAS+.
        rows: Height of a slice in pixels.
        columns: Width of a slice in pixels.
        positions: (K, 3) of the first pixel of each slice, RAS+, where they are no regular grid;
            `affine` then has their mean distance. Else None.
    """

    name: str
    slices: tuple[Slice, ...]
    affine: Array
    rows: int
    columns: int
    positions: Array | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of the voxels: columns, rows, slices."""
        return self.columns, self.rows, len(self.slices)

    def voxels_at(self, positions: Array) -> Array:
        """Convert positions to voxel coordinates.

        Args:
            positions: (N, 3) in the patient's coordinates of DICOM (LPS+), in millimeters.

        Returns:
            (N, 3) column, row and slice, with fractions.
        """
        points = positions * [-1, -1, 1]
        if self.positions is not None:
            own = volume_without_voxels(self.affine, self.shape, self.positions)
            return RegularGrid(own).to_voxels(points)
        inverse = np.linalg.inv(self.affine)
        voxels: Array = points @ inverse[:3, :3].T + inverse[:3, 3]
        return voxels


def group_series(headers: Iterable[Header]) -> dict[tuple[str, ...], list[Header]]:
    """Group the objects of each volume: a series, or a multi-frame object.

    Args:
        headers: Headers of objects whose frames are slices.

    Returns:
        Headers by the UIDs that identify the volume, in the given order.
    """
    groups: dict[tuple[str, ...], list[Header]] = defaultdict(list)
    for header in headers:
        several = len(header.planes) > 1
        key = (header.series_uid, header.sop_uid) if several else (header.series_uid,)
        groups[key].append(header)
    return dict(groups)


def stack_slices(headers: Sequence[Header], name: str, *, resample: bool = False) -> Stack:
    """Sort slices along their normal, and check that they are a regular grid.

    Args:
        headers: Headers of the objects of one volume.
        name: Name of the volume in messages.
        resample: Whether the volume will be resampled, so that it may be no regular grid.

    Raises:
        DxsegError: Slices differ in size, spacing or orientation, or have the same position; or,
            unless they are resampled, leave gaps or are shifted against each other, as by a tilted
            gantry.
    """
    slices = [Slice(header, plane) for header in headers for plane in header.planes]
    rows, columns = size_of(slices, name)
    spacing, cosines = spacing_of(slices, name), cosines_of(slices, name)
    across = np.cross(cosines[0], cosines[1])
    positions = np.array([part.plane.position for part in slices])
    order = np.argsort(positions @ across, kind="stable")
    positions = positions[order]
    step, fault = step_of(positions, across, spacing, name)
    if fault and not resample:
        raise DxsegError(
            f"{name}: {fault}; --resample, of the import or of `dxseg predict`, brings it onto a "
            "regular grid, and masks back"
        )
    if step is None:
        thickness = slices[0].plane.thickness
        if thickness is None:
            raise DxsegError(f"{name}: one slice of unknown thickness; expected its thickness")
        step = across * thickness
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = cosines[0] * spacing[1], cosines[1] * spacing[0]
    affine[:3, 2], affine[:3, 3] = step, positions[0]
    # DICOM counts towards left and posterior, NIfTI towards right and anterior.
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    own = positions * [-1, -1, 1] if fault else None
    return Stack(name, tuple(slices[index] for index in order), affine, rows, columns, own)


def read_stack(stack: Stack) -> Volume:
    """Read the voxels, as measured: Hounsfield units for CT.

    Args:
        stack: From `stack_slices`.

    Returns:
        Voxels (column, row, slice): int16 if all values are whole and in range, else float32; NaN
        where a slice is padded.

    Raises:
        DxsegError: A slice is damaged or colored, or there is no decoder for its compression;
            messages have the names of `Header`.
    """
    voxels: npt.NDArray[Any] = np.empty((len(stack.slices), stack.rows, stack.columns), np.int16)
    padded = 0
    for index, frame in enumerate(_frames(stack)):
        if voxels.dtype == np.int16 and not _fits_int16(frame):
            voxels = voxels.astype(np.float32)
        voxels[index] = frame
        padded += int(np.isnan(frame).sum())
    notes = (f"{padded} voxels are padding: black, and in no percentile",) if padded else ()
    return Volume(voxels.transpose(2, 1, 0), stack.affine, notes, positions=stack.positions)


def series_in(folder: Path, *, resample: bool = False) -> Stack:
    """Find the series whose slices are in a folder, not below it.

    Masks, localisers and images without a position are ignored. Messages have the paths of files.

    Args:
        folder: The folder.
        resample: See `stack_slices`.

    Raises:
        DxsegError: There are slices of no volume or of several, a file is damaged, or the slices
            are not a regular grid.
    """
    headers = [read_header(path, str(path)) for path in _dicom_files(folder)]
    groups = group_series(header for header in headers if header.is_volume)
    if len(groups) != 1:
        raise DxsegError(
            f"{folder}: contains slices of {len(groups)} volumes; expected one; put each series "
            "into a separate folder"
        )
    [group] = groups.values()
    return stack_slices(group, str(folder), resample=resample)


def holds_slices(folder: Path) -> bool:
    """Whether the first DICOM image in a folder is a slice of a volume.

    Args:
        folder: The folder; folders below it do not count.
    """
    for path in _dicom_files(folder):
        try:
            header = read_header(path, str(path))
        except DxsegError:
            continue
        if header.layout is not None and not header.localiser:
            return header.is_volume
    return False


def _dicom_files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        # Thousands of PNG files are not opened only to find that they are not DICOM.
        other = is_supported(path) and path.suffix.lower() != ".dcm"
        if not other and path.is_file() and is_dicom(path):
            yield path


def _frames(stack: Stack) -> Iterator[Array]:
    opened: tuple[Any, Any, Any] = (None, None, None)
    for part in stack.slices:
        path = part.header.path
        with alias_in_errors(path, part.header.name):
            if opened[0] != path:
                ds = open_object(path, pixels=True)
                opened = (path, ds, pixel_layout(ds, path))
            frame = measured_frame(opened[1], part.plane.frame, opened[2], path)
            if frame.shape != (stack.rows, stack.columns):
                raise DxsegError(f"{path}: has changed since the import started; start it again")
            yield frame


def _fits_int16(frame: Array) -> bool:
    whole = bool((frame == np.rint(frame)).all())
    return whole and _INT16.min <= frame.min() and frame.max() <= _INT16.max

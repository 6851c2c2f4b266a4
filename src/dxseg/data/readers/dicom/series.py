"""Series of slices as volumes: sorted by position, an error if they are not a regular grid."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dxseg.data.readers.dicom.headers import Header, Plane, alias_in_errors, read_header
from dxseg.data.readers.dicom.image import measured_frame
from dxseg.data.readers.dicom.objects import is_dicom, open_object, pixel_layout
from dxseg.data.readers.images import is_supported
from dxseg.data.readers.regular_grid import RegularGrid
from dxseg.data.readers.volume import VOXEL_LIMIT, Volume, volume_without_voxels
from dxseg.errors import DxsegError

Array = npt.NDArray[np.float64]

_COSINE_TOLERANCE = 1e-3
_SPACING_TOLERANCE = 1e-3
# Fraction of the distance between slices. Exports round positions, to 0.01 mm at worst.
_POSITION_TOLERANCE = 0.05
_SAME_PLACE = 1e-3
OFF_PLANE = 0.1
"""Maximum distance of a plane from its slice, in voxels."""

_INT16 = np.iinfo(np.int16)


@dataclass(frozen=True)
class Slice:
    """A plane and its object."""

    header: Header
    plane: Plane


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
    rows, columns = _agree(slices, name)
    spacing, cosines = _spacing(slices, name), _cosines(slices, name)
    across = np.cross(cosines[0], cosines[1])
    positions = np.array([part.plane.position for part in slices])
    order = np.argsort(positions @ across, kind="stable")
    positions = positions[order]
    step, fault = _step(positions, across, spacing, name)
    if fault and not resample:
        raise DxsegError(
            f"{name}: {fault}; --resample brings it onto a regular grid, and masks back"
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


def _agree(slices: Sequence[Slice], name: str) -> tuple[int, int]:
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


def _spacing(slices: Sequence[Slice], name: str) -> Array:
    known = [part.plane.spacing for part in slices if part.plane.spacing is not None]
    spacings = np.array(known, dtype=np.float64).reshape(-1, 2)
    if len(spacings) < len(slices) or spacings.min() <= 0:
        raise DxsegError(f"{name}: slices without pixel spacing; expected millimetres above 0")
    if np.ptp(spacings, axis=0).max() > _SPACING_TOLERANCE * spacings.min():
        raise DxsegError(
            f"{name}: pixel spacings from {spacings.min():.4g} to {spacings.max():.4g} mm; "
            "expected one; split the series"
        )
    return np.asarray(spacings[0])


def _cosines(slices: Sequence[Slice], name: str) -> Array:
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


def _step(positions: Array, across: Array, spacing: Array, name: str) -> tuple[Array | None, str]:
    """Compute the vector from one slice to the next, and why the slices are no regular grid.

    Returns:
        The mean vector, None for a single slice; and the fault, "" for none.
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

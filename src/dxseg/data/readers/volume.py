"""Volumes: voxels with a position in space, whatever the file format."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dxseg.errors import DxsegError

VOXEL_LIMIT = 2**30
"""Larger volumes are an error before they are read: a small file may claim any size."""
GZIP_RATIO = 1032
"""A gzip stream cannot expand more than this."""

Grid = tuple[NDArray[np.float64], tuple[int, int, int]]
"""The affine (4, 4), from voxel indices to millimeters in RAS+, and the shape (I, J, K)."""


@dataclass(frozen=True)
class Volume:
    """A three-dimensional image and its position in space.

    Attributes:
        voxels: (I, J, K), integers or float32; CT in Hounsfield units.
        affine: (4, 4) float64, from voxel indices to millimeters in RAS+ space, as in NIfTI.
        notes: Assumptions of the reader; importers report them.
        more_sequences: Further images on the same grid, such as other sequences of MR.
        positions: (K, 3) of the first voxel of each slice, RAS+, where slices are no regular grid;
            `affine` then has their mean distance. Else None.
    """

    voxels: NDArray[Any]
    affine: NDArray[np.float64]
    notes: tuple[str, ...] = ()
    more_sequences: tuple[NDArray[Any], ...] = ()
    positions: NDArray[np.float64] | None = None

    @property
    def sequences(self) -> tuple[NDArray[Any], ...]:
        """All images on the grid, in their order."""
        return self.voxels, *self.more_sequences

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Millimeters between voxels along each axis of the array."""
        i, j, k = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(i), float(j), float(k)


@dataclass(frozen=True)
class VolumeLabels:
    """The label map of a volume.

    Attributes:
        values: (I, J, K) whole numbers on the volume's grid; 0 is background.
        unknown: (I, J, K), where there may be more than `values` shows, such as on slices with a
            contour that cannot be read; None: nowhere.
        notes: What was left out; importers report them.
    """

    values: NDArray[Any]
    unknown: NDArray[np.bool_] | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class FoundVolume:
    """A volume that an importer has found, before its voxels are read.

    Attributes:
        volume_id: Its id in the dataset; does not identify a patient.
        load: Reads the voxels.
        load_labels: Reads the label map on the same grid; None if there is none.
        patient_id: Patient in the dataset; a keyed hash if the file identifies a patient.
        keys: Keys on which a table of labels may be joined, such as `{"patient": ...,
            "study": ..., "accession": ...}`. Never written to the dataset.
        path: Path of its file below the imported folder, with "/"; "" for DICOM.
        digest: Digest of the content of its files, 64 hexadecimal digits. Without one, an
            interrupted import converts the volume again.
        grid: Reads its grid without its voxels.
        is_asked: Whether the volume is left out, with a question, if it looks like a label map.
    """

    volume_id: str
    load: Callable[[], Volume]
    load_labels: Callable[[], VolumeLabels] | None = None
    patient_id: str = ""
    keys: Mapping[str, str] = field(default_factory=dict)
    path: str = ""
    digest: Callable[[], str] | None = None
    grid: Callable[[], Grid] | None = None
    is_asked: bool = False


def volume_without_voxels(
    affine: NDArray[np.float64],
    shape: tuple[int, int, int],
    positions: NDArray[np.float64] | None = None,
) -> Volume:
    """Make a volume whose voxels nobody reads: one value in memory stands for all.

    Args:
        affine: As that of `Volume`.
        shape: Of its voxels.
        positions: As those of `Volume`.
    """
    return Volume(np.broadcast_to(np.uint8(0), shape), affine, positions=positions)


def onto_grid(
    volume: Volume, grid: Grid, path: str | Path, other: str, remedy: str
) -> list[NDArray[Any]]:
    """Store the sequences of a volume in the order of axes of a grid, which moves no voxel.

    Args:
        volume: The volume.
        grid: Where its voxels have to lie.
        path: Its file, named in errors.
        other: What has that grid.
        remedy: What to do if it lies elsewhere.

    Raises:
        DxsegError: The shapes differ, or the grids by half a voxel or more at a corner.
    """
    from nibabel import orientations

    affine, shape = grid
    turn = orientations.ornt_transform(
        orientations.io_orientation(volume.affine), orientations.io_orientation(affine)
    )
    turned = [orientations.apply_orientation(voxels, turn) for voxels in volume.sequences]
    if turned[0].shape != shape:
        raise DxsegError(
            f"{path}: {times(turned[0].shape)} voxels, but {other} has {times(shape)}; {remedy}"
        )
    own = volume.affine @ orientations.inv_ornt_aff(turn, volume.voxels.shape)
    distance = _max_distance(own, affine, shape)
    if distance >= 0.5:
        raise DxsegError(
            f"{path}: lies up to {distance:.1f} voxels away from {other}, which has another "
            f"position or spacing; {remedy}"
        )
    return turned


def check_affine(affine: NDArray[np.float64], path: str | Path) -> None:
    """Check that an affine is a position in space.

    Args:
        affine: (4, 4).
        path: The file, named in errors.

    Raises:
        DxsegError: A number is not finite, a spacing is 0, or two directions agree.
    """
    with np.errstate(all="ignore"):
        spacing = np.linalg.norm(affine[:3, :3], axis=0)
        # The determinant of the directions: 1 where they are at right angles, 0 where two agree.
        spread = abs(np.linalg.det(affine[:3, :3] / spacing)) if np.isfinite(affine).all() else 0
    if not (np.isfinite(affine).all() and spacing.min() > 0 and spread > 1e-3):
        raise DxsegError(
            f"{path}: its affine {affine[:3].tolist()} is no position in space; expected finite "
            "numbers, a spacing above 0 and three distinct directions; correct the header"
        )


def count_not_finite(voxels: NDArray[Any]) -> list[str]:
    """A note on voxels that are not finite, if there are any."""
    unknown = int((~np.isfinite(voxels)).sum()) if voxels.dtype.kind == "f" else 0
    return [f"{unknown} voxels are not finite"] if unknown else []


def times(shape: Sequence[int]) -> str:
    """A shape as text: `512 x 512 x 80`."""
    return " x ".join(str(length) for length in shape)


def _max_distance(
    one: NDArray[np.float64], other: NDArray[np.float64], shape: tuple[int, int, int]
) -> float:
    """Maximum distance of the corners of two grids of one shape, in voxels of the other."""
    corners = np.array(np.meshgrid(*[(0, length - 1) for length in shape], [1])).reshape(4, -1)
    # Exports round affines; closer than half a voxel, no other voxel would be the nearest.
    return float(np.abs(np.linalg.inv(other) @ one @ corners - corners).max())

"""Volumes whose voxels lie askew or unevenly, brought onto a regular grid, and masks back.

A tilted gantry, uneven gaps and oblique stacks: the grid has the axes of the patient, RAS+. Voxels
are interpolated linearly; of label maps each value is, and a voxel gets the value that covers most
of it if that is at least half, as in nnU-Net.

SciPy interpolates: SimpleITK is an optional extra, and neither it nor MONAI knows slices at uneven
distances.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects, map_coordinates

from dxseg.data.readers.volume import VOXEL_LIMIT, Volume, times
from dxseg.errors import DxsegError

Array = NDArray[np.float64]
Shape = tuple[int, int, int]

_DISPLACED = 0.5
"""In voxels: a volume that is nowhere further from a regular grid is taken as one."""


class RegularGrid:
    """A grid along the patient's axes over all of a volume.

    Its spacing is that of the volume's axis that is closest to each of the patient's; between
    slices, which are across the coarsest axis, the median of their distances.

    Attributes:
        affine: (4, 4), from voxel indices to millimeters in RAS+.
        shape: Of its voxels.
    """

    def __init__(self, volume: Volume) -> None:
        """Lay the grid.

        Args:
            volume: Its voxels are not read.

        Raises:
            DxsegError: It would have more than `VOXEL_LIMIT` voxels.
        """
        from nibabel.orientations import io_orientation

        affine, self._shape = volume.affine, volume.voxels.shape
        self._in_plane = affine[:3, :2]
        across = np.cross(*self._in_plane.T)
        self._across = across / np.linalg.norm(across) * np.sign(across @ affine[:3, 2])
        numbers = np.arange(self._shape[2])[:, None]
        own = volume.positions
        self._corners = affine[:3, 3] + numbers * affine[:3, 2] if own is None else own
        self._heights = self._corners @ self._across
        self._gaps = np.diff(self._heights) if len(numbers) > 1 else [affine[:3, 2] @ self._across]
        lengths = np.linalg.norm(affine[:3, :3], axis=0)
        if own is None:
            # The way to the next slice of a sheared volume is longer than their distance.
            coarsest = lengths.argmax()
            plane = np.delete(affine[:3, :3], coarsest, axis=1)
            area = np.linalg.norm(np.cross(*plane.T))
            lengths[coarsest] = abs(np.linalg.det(affine[:3, :3])) / area
        else:
            lengths[2] = np.median(self._gaps)
        spacing = np.empty(3)
        spacing[io_orientation(affine)[:, 0].astype(int)] = lengths
        ends = np.array([length - 1 for length in self._shape[:2]])
        spread = [self._corners + self._in_plane @ (ends * at) for at in np.ndindex(2, 2)]
        low, high = np.min(spread, axis=(0, 1)), np.max(spread, axis=(0, 1))
        i, j, k = (int(count) + 1 for count in np.rint((high - low) / spacing))
        if i * j * k > VOXEL_LIMIT:
            raise DxsegError(
                f"{times(self._shape)} voxels would be {times((i, j, k))} along the patient's "
                f"axes; expected at most {VOXEL_LIMIT} in all; crop it, or do not resample it"
            )
        self.shape: Shape = (i, j, k)
        self.affine = np.diag([*spacing, 1.0])
        self.affine[:3, 3] = low

    def resample(self, volume: Volume) -> Volume:
        """Bring the voxels of the volume onto the grid; NaN outside of it."""
        first, *others = (self._image(voxels) for voxels in volume.sequences)
        return Volume(first, self.affine, volume.notes, tuple(others))

    def _image(self, voxels: NDArray[Any]) -> NDArray[np.float32]:
        if not any(voxels.strides):  # one value stands for all
            return np.broadcast_to(np.float32(voxels.flat[0]), self.shape)
        image = np.empty(self.shape, np.float32)
        for plane, coordinates in _planes(self.shape, self._to_volume):
            image[:, :, plane] = _interpolate(voxels, coordinates, np.nan)
        return image

    def labels(self, values: NDArray[Any]) -> NDArray[Any]:
        """Bring a label map of the volume onto the grid."""
        return _resample_labels(values, self.shape, self._to_volume)

    def restore(self, values: NDArray[Any]) -> NDArray[Any]:
        """Bring a label map of the grid back onto the voxels of the volume."""
        return _resample_labels(values, self._shape, self._to_grid)

    def to_voxels(self, points: Array) -> Array:
        """Convert points (N, 3) in millimeters, RAS+, to indices of the volume, with fractions."""
        height = points @ self._across
        first, last = self._heights[0], self._heights[-1]
        slices = np.interp(height, self._heights, np.arange(len(self._heights)))
        corners = np.stack([np.interp(height, self._heights, one) for one in self._corners.T], 1)
        columns_rows = (points - corners) @ np.linalg.pinv(self._in_plane).T
        beyond = np.minimum(height - first, 0) / self._gaps[0]
        beyond += np.maximum(height - last, 0) / self._gaps[-1]
        return np.column_stack([columns_rows, slices + beyond])

    def _to_volume(self, indices: Array) -> Array:
        return self.to_voxels(indices * self.affine.diagonal()[:3] + self.affine[:3, 3])

    def _to_grid(self, indices: Array) -> Array:
        points = self._corners[indices[:, 2].astype(int)] + indices[:, :2] @ self._in_plane.T
        inside: Array = (points - self.affine[:3, 3]) / self.affine.diagonal()[:3]
        return inside


def is_regular(volume: Volume) -> bool:
    """Whether the voxels of a volume lie on a grid along the patient's axes.

    Args:
        volume: The volume.
    """
    from nibabel.orientations import io_orientation

    if volume.positions is not None:
        return False
    across = volume.affine[:3, :3].copy()
    axes = io_orientation(volume.affine)[:, 0].astype(int)
    across[axes, range(3)] = 0
    displaced = np.abs(across) @ (np.array(volume.voxels.shape) - 1)
    spacing = np.empty(3)
    spacing[axes] = volume.spacing
    return bool((displaced / spacing).max() < _DISPLACED)


def oblique_degrees(affine: Array) -> float:
    """The largest angle between an axis of a volume and the patient's axis that it is closest to.

    Args:
        affine: (4, 4), from voxel indices to millimeters.
    """
    from nibabel.orientations import io_orientation

    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    closest = np.abs(directions[io_orientation(affine)[:, 0].astype(int), range(3)])
    return float(np.degrees(np.arccos(closest.min().clip(0, 1))))


def _planes(shape: Shape, convert: Callable[[Array], Array]) -> Iterator[tuple[int, Array]]:
    """The coordinates (I, J, 3) of each plane, one in memory at a time."""
    indices = np.zeros((*shape[:2], 3))
    indices[..., :2] = np.moveaxis(np.indices(shape[:2]), 0, -1)
    for plane in range(shape[2]):
        indices[..., 2] = plane
        yield plane, convert(indices.reshape(-1, 3)).reshape(indices.shape)


def _interpolate(voxels: NDArray[Any], coordinates: Array, outside: float) -> NDArray[np.float32]:
    """Interpolate linearly at (..., 3); the outermost voxels reach half a voxel further."""
    last = np.array(voxels.shape) - 1
    inside = ((coordinates >= -0.5) & (coordinates <= last + 0.5)).all(axis=-1)
    values = np.full(inside.shape, outside, np.float32)
    at = coordinates[inside].clip(0, last).T
    values[inside] = map_coordinates(voxels, at, output=np.float32, order=1, mode="nearest")
    return values


def _resample_labels(
    values: NDArray[Any], shape: Shape, convert: Callable[[Array], Array]
) -> NDArray[Any]:
    labels, most = np.zeros(shape, values.dtype), np.zeros(shape, np.float32)
    for value in np.unique(values[values > 0]):
        of_value = (values == value).astype(np.uint8)
        # Where it is, and a voxel around it: most of a volume is background.
        box = tuple(slice(max(s.start - 1, 0), s.stop + 1) for s in find_objects(of_value)[0])
        first = [side.start for side in box]
        for plane, coordinates in _planes(shape, convert):
            covered = _interpolate(of_value[box], coordinates - first, 0.0)
            wins = (covered >= 0.5) & (covered > most[:, :, plane])
            labels[:, :, plane][wins] = value
            most[:, :, plane][wins] = covered[wins]
    return labels

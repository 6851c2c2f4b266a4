"""Slices of a volume: axis, orientation on the screen, and gray values of voxels.

Training and inference both use this module.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dxseg.data.readers.regular_grid import RegularGrid, is_regular
from dxseg.data.readers.slicing import Axis, Plane, Slicing, Window
from dxseg.data.readers.volume import Volume, volume_without_voxels
from dxseg.errors import DxsegError

# Directions of the slice number, the rows and the columns in each plane. Columns lead towards the
# patient's left: radiological convention.
_TOWARDS: dict[Plane, str] = {"axial": "SPL", "coronal": "AIL", "sagittal": "RIP"}
_EQUAL_SPACING = 0.99
_AIR = -1024
"""Hounsfield units of air; scanners write a lower value around what they scanned."""
_PADDED_FRACTION = 0.01


class SlicedVolume:
    """A volume as a stack of images in radiological orientation.

    Axial slices count from the feet to the head, coronal ones from the back to the front, sagittal
    ones from the left to the right. The patient's front (axial) or head (coronal, sagittal) is at
    the top; the patient's right (axial, coronal) or front (sagittal) is at the left of the image.
    Each array axis counts as the patient axis it is closest to, unless the rule resamples volumes
    that are no regular grid along these axes: slices are then of such a grid.

    Attributes:
        plane: Plane of the slices.
        spacing: Millimeters between slices (perpendicular to them), rows and columns.
        shape: Number of slices, height, width.
        voxel_mm3: Volume of a voxel of the slices, cubic millimeters.
    """

    def __init__(self, volume: Volume, slicing: Slicing) -> None:
        """Orient the volume; nothing is copied unless it is resampled.

        Args:
            volume: A volume with an invertible affine, of as many sequences as the rule has.
            slicing: The rule.

        Raises:
            DxsegError: The rule needs percentiles and no voxel is finite, the volume has another
                number of sequences, or it would be too large on a regular grid.
        """
        from nibabel import orientations

        if len(volume.sequences) != len(slicing.windows):
            raise DxsegError(
                f"a volume of {len(volume.sequences)} sequence(s); expected "
                f"{', '.join(one.name for one in slicing.sequences or ()) or 'one file'}"
            )
        self._regular = RegularGrid(volume) if slicing.resample and not is_regular(volume) else None
        if self._regular is not None:
            volume = self._regular.resample(volume)
        self.voxel_mm3 = float(abs(np.linalg.det(volume.affine[:3, :3])))
        own = orientations.io_orientation(volume.affine)
        self.plane = _plane(own, volume.spacing, slicing.axis)
        shown = orientations.axcodes2ornt(_TOWARDS[self.plane])
        self._there = orientations.ornt_transform(own, shown)
        self._back = orientations.ornt_transform(shown, own)
        self._slicing = slicing
        self._sequences = [
            (
                orientations.apply_orientation(voxels, self._there),
                _limits(voxels, window, slicing.percentiles),
            )
            for voxels, window in zip(volume.sequences, slicing.windows, strict=True)
        ]
        source = np.argsort(self._there[:, 0])
        _, rows, columns = (volume.spacing[axis] for axis in source)
        # Perpendicular to the slices: with a tilted gantry the way to the next one is longer.
        self.spacing = (self.voxel_mm3 / (rows * columns), rows, columns)
        self.shape: tuple[int, int, int] = self._sequences[0][0].shape

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def is_resampled(self) -> bool:
        """Whether the slices are of a regular grid that the volume was brought onto."""
        return self._regular is not None

    def image(self, index: int) -> NDArray[Any]:
        """Make an image of one slice.

        Args:
            index: 0 to the number of slices - 1.

        Returns:
            (H, W, C) uint8 or uint16. The channels are, sequence by sequence, the slices from the
            lowest neighbor to the highest; the first and the last slice are repeated for neighbors
            beyond the ends. Values below the window and NaN are 0.
        """
        reach = self._slicing.neighbours
        wanted = np.arange(index - reach, index + reach + 1).clip(0, len(self) - 1)
        dtype = np.uint8 if self._slicing.bits == 8 else np.uint16
        planes = [_scale(stack[wanted], limits, dtype) for stack, limits in self._sequences]
        return np.ascontiguousarray(np.concatenate(planes).transpose(1, 2, 0))

    @property
    def limits(self) -> tuple[float, float]:
        """The values of voxels that become black and white, in the first sequence."""
        return self._sequences[0][1]

    def values(self, index: int) -> NDArray[Any]:
        """The voxels of one slice (H, W) of the first sequence, with their own values.

        Args:
            index: 0 to the number of slices - 1.
        """
        values: NDArray[Any] = self._sequences[0][0][index]
        return values

    def turn(self, voxels: NDArray[Any]) -> NDArray[Any]:
        """Orient a label map (I, J, K) of the volume as slices (slice, row, column).

        A view, unless the volume is resampled.
        """
        from nibabel.orientations import apply_orientation

        if self._regular is not None:
            voxels = self._regular.labels(voxels)
        turned: NDArray[Any] = apply_orientation(voxels, self._there)
        return turned

    def restore(self, slices: NDArray[Any]) -> NDArray[Any]:
        """Orient slices (slice, row, column) back to a label map (I, J, K), the inverse of `turn`.

        Of a resampled volume, each value gets the voxels that it covers by half or more.
        """
        from nibabel.orientations import apply_orientation

        restored: NDArray[Any] = apply_orientation(slices, self._back)
        return restored if self._regular is None else self._regular.restore(restored)


def slice_grid(
    affine: NDArray[np.float64],
    shape: tuple[int, int, int],
    slicing: Slicing,
    positions: NDArray[np.float64] | None = None,
) -> SlicedVolume:
    """Slice a grid without its voxels, to turn label maps or to count slices.

    Args:
        affine: (4, 4), from voxel indices to millimeters.
        shape: (I, J, K).
        slicing: The rule.
        positions: As those of `Volume`.
    """
    rule = Slicing(axis=slicing.axis, window=(0.0, 1.0), resample=slicing.resample)
    return SlicedVolume(volume_without_voxels(affine, shape, positions), rule)


def through_plane(affine: NDArray[np.float64]) -> Plane:
    """The plane across the coarsest spacing of a volume.

    Args:
        affine: (4, 4), from voxel indices to millimeters.
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


def _scale(
    slices: NDArray[Any], limits: tuple[float, float], dtype: type[np.uint8 | np.uint16]
) -> NDArray[Any]:
    low, high = limits
    top = np.iinfo(dtype).max
    scaled = slices.astype(np.float64)
    scaled -= low
    scaled *= top / (high - low)
    if slices.dtype.kind == "f":
        scaled[np.isnan(scaled)] = 0
    return np.rint(scaled.clip(0, top, out=scaled), out=scaled).astype(dtype)


def _limits(
    voxels: NDArray[Any], window: Window | None, percentiles: tuple[float, float]
) -> tuple[float, float]:
    if window is not None:
        level, width = window
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
    low, high = (float(value) for value in np.percentile(finite, percentiles))
    # A constant volume becomes black.
    return low, high if high > low else low + 1.0

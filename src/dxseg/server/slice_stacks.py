"""What a reader scrolls through: the slices of a volume, or the frames of a multi-frame object."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dxseg.data.geometry import Spacing
from dxseg.data.readers.budget import TooLargeError
from dxseg.data.readers.dicom.headers import Header, alias_in_errors, pixel_spacing, read_header
from dxseg.data.readers.dicom.image import displayed_frame, measured_image_of
from dxseg.data.readers.dicom.objects import open_object, pixel_layout
from dxseg.data.readers.dicom.series import group_series, read_stack, stack_slices
from dxseg.data.readers.nifti import is_nifti
from dxseg.data.readers.nifti_writer import write_label_map, write_label_map_at
from dxseg.data.readers.raster import Pixels
from dxseg.data.readers.sliced_volume import SlicedVolume
from dxseg.data.readers.slicing import Slicing, shown_slice
from dxseg.data.readers.volume import Volume
from dxseg.data.readers.volume_files import is_volume_file, read_volume_file, volume_grid
from dxseg.errors import DxsegError
from dxseg.inference.model_info import ModelInfo
from dxseg.server.stored_values import StoredValues, pack_values
from dxseg.server.uploads import NAME, count_frames

_VOXEL_BYTES = 4
"""What is read is float32 or smaller integers, but for rare integers of 8 bytes."""
_NO_SLICES = (
    f"{NAME}: a volume, but the model was trained on images, not on slices of volumes; serve a "
    "model that was trained on a dataset of `dxseg import volumes`"
)


class VolumeSlices:
    """The slices of a volume, made as those that the network was trained on.

    Attributes:
        shape: Number of slices, their height and width.
        spacing: Height and width of a pixel in mm, where they are known.
        distance: Millimeters between slices; None where the images are no volume.
        nbytes: Memory that it takes.
    """

    def __init__(
        self, volume: Volume, slicing: Slicing, unit: str, source: Path | None = None
    ) -> None:
        """Slice a volume.

        Args:
            volume: Its voxels stay in memory.
            slicing: Of the model.
            unit: "HU" for CT, else "".
            source: The NIfTI file, whose header label maps get; None for another format.
        """
        self._volume, self._unit, self._source = volume, unit, source
        self._slicing = slicing
        self._sliced = SlicedVolume(volume, slicing)
        self.shape = self._sliced.shape
        self.spacing: Spacing | None = self._sliced.spacing[1:]
        self.distance: float | None = self._sliced.spacing[0]
        self.nbytes = sum(voxels.nbytes for voxels in volume.sequences)

    def image(self, index: int) -> Pixels:
        """Make the network's input (H, W, C) of a slice."""
        return self._sliced.image(index)

    def shown(self, image: Pixels) -> Pixels:
        """The channels of that input that are the slice itself."""
        return shown_slice(image, self._slicing)

    def values(self, index: int) -> StoredValues | None:
        """Pack the values of a slice for window and level; None for 8 bit or color."""
        values = self._sliced.values(index).astype(np.float64)
        # Padding is black.
        values[~np.isfinite(values)] = min(values[np.isfinite(values)], default=0.0)
        return pack_values(values, self._unit, self._sliced.limits)

    def write(self, masks: NDArray[np.uint8], target: Path) -> None:
        """Write masks (slices, H, W) as a label map (.nii.gz) in the volume's grid."""
        labels = np.ascontiguousarray(self._sliced.restore(masks))
        if self._source is None:
            write_label_map_at(target, labels, self._volume.affine)
        else:
            write_label_map(target, labels, self._source)


class Frames:
    """The frames of a DICOM object that is no volume, such as a cine loop.

    Attributes:
        shape: Number of frames, their height and width.
        spacing: As of `VolumeSlices`.
        distance: None.
        nbytes: Memory that it takes.
    """

    def __init__(self, path: Path) -> None:
        """Open the object; its pixels stay in memory, compressed as they are.

        Args:
            path: The file.

        Raises:
            DxsegError: It is damaged, or its frames are larger than the budget of decoded bytes.
        """
        self._path = path
        with alias_in_errors(path, NAME):
            self._ds = open_object(path, pixels=True)
            self._layout = pixel_layout(self._ds, path)
        self.shape = self._layout.frames, self._layout.rows, self._layout.columns
        self.spacing: Spacing | None = pixel_spacing(self._ds)
        self.distance: float | None = None
        self.nbytes = path.stat().st_size

    def image(self, index: int) -> Pixels:
        """See `VolumeSlices.image`."""
        with alias_in_errors(self._path, NAME):
            return displayed_frame(self._ds, index, self._layout, self._path)

    def shown(self, image: Pixels) -> Pixels:
        """See `VolumeSlices.shown`."""
        return image

    def values(self, index: int) -> StoredValues | None:
        """See `VolumeSlices.values`."""
        if self._layout.bits_stored <= 8:
            return None
        with alias_in_errors(self._path, NAME):
            found = measured_image_of(self._ds, index, self._layout, self._path)
        if found is None or not np.isfinite(found.values).all():
            return None
        return pack_values(found.values, found.unit, found.window)

    def write(self, masks: NDArray[np.uint8], target: Path) -> None:
        """See `VolumeSlices.write`; frames have no position in space, the grid is (x, y, frame)."""
        height, width = self.spacing or (1.0, 1.0)
        affine = np.diag([-width, -height, 1.0, 1.0])
        write_label_map_at(target, np.ascontiguousarray(masks.transpose(2, 1, 0)), affine)


SliceStack = VolumeSlices | Frames
"""Images in an order, which become one label map."""


def read_slices(paths: Sequence[Path], info: ModelInfo, max_bytes: int) -> SliceStack:
    """Read an upload: a volume in one file, a DICOM series, or a DICOM object of several frames.

    Args:
        paths: Its files, each with the suffix of its content.
        info: Of the model, whose rule makes the slices.
        max_bytes: Decoded bytes at most.

    Raises:
        TooLargeError: It has more.
        DxsegError: It cannot be read, is no volume, the model predicts no volumes, or reads several
            sequences, which only a NIfTI file holds.
    """
    first = paths[0]
    if info.slicing is not None and len(info.slicing.windows) > 1:
        _check_sequences(paths, info.slicing)
    if len(paths) == 1 and not (is_volume_file(first) or first.suffix == ".dcm"):
        raise DxsegError(f"{NAME}: no volume; expected NIfTI, MetaImage, NRRD, or DICOM slices")
    if len(paths) == 1 and first.suffix != ".dcm":
        with alias_in_errors(first, NAME):
            return _read_file(first, info, max_bytes)
    if any(path.suffix != ".dcm" for path in paths):
        raise DxsegError(
            f"{NAME}: several files that are not all DICOM; expected one file, or the slices of "
            "one DICOM series"
        )
    if len(paths) == 1:
        with alias_in_errors(first, NAME):
            frames = count_frames(first)
            header = read_header(first, NAME) if frames > 1 else None
        if header is not None and not (header.is_volume and info.slicing is not None):
            return Frames(first)
    headers = [read_header(path, f"file {number}") for number, path in enumerate(paths, 1)]
    return _read_series(headers, info, max_bytes)


def _check_sequences(paths: Sequence[Path], slicing: Slicing) -> None:
    # Files have no names here, by which `dxseg predict` finds the sequence of each.
    if len(paths) > 1 or not is_nifti(paths[0]):
        names = ", ".join(one.name for one in slicing.sequences or ())
        raise DxsegError(
            f"{NAME}: {len(paths)} file(s) for a model of the sequences {names}; expected one "
            "NIfTI file with these in this order as its fourth dimension; join the files (such as "
            "with `nibabel.concat_images`), or use `dxseg predict`"
        )


def _read_file(path: Path, info: ModelInfo, max_bytes: int) -> SliceStack:
    if info.slicing is None:
        raise DxsegError(_NO_SLICES)
    sequences = len(info.slicing.windows)
    _, shape = volume_grid(path, sequences)
    check_bytes(shape, sequences * _VOXEL_BYTES, max_bytes)
    volume = read_volume_file(path, sequences)
    return VolumeSlices(volume, info.slicing, "", path if is_nifti(path) else None)


def _read_series(headers: Sequence[Header], info: ModelInfo, max_bytes: int) -> SliceStack:
    groups = group_series(header for header in headers if header.is_volume)
    if len(groups) != 1:
        raise DxsegError(
            f"{NAME}: {len(headers)} files with slices of {len(groups)} volumes; expected those of "
            "one; open each series on its own"
        )
    if info.slicing is None:
        raise DxsegError(_NO_SLICES)
    [group] = groups.values()
    stack = stack_slices(group, NAME, resample=bool(info.slicing.resample))
    check_bytes(stack.shape, _VOXEL_BYTES, max_bytes)
    unit = "HU" if group[0].modality == "CT" else ""
    return VolumeSlices(read_stack(stack), info.slicing, unit)


def check_bytes(shape: tuple[int, ...], itemsize: int, max_bytes: int, name: str = NAME) -> None:
    """Check that a volume fits into memory.

    Args:
        shape: Of its voxels.
        itemsize: Bytes of a voxel.
        max_bytes: Bytes at most.
        name: Of the volume in messages.

    Raises:
        TooLargeError: It has more.
    """
    needed = int(np.prod(shape, dtype=np.float64)) * itemsize
    if needed > max_bytes:
        size = " x ".join(map(str, shape))
        raise TooLargeError(
            f"{name}: {size} voxels of {itemsize} bytes, {needed} in all; expected at most "
            f"{max_bytes}; crop or resample it, or start the server with a larger --max-megapixels"
        )

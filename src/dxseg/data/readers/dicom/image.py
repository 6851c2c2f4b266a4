"""Decoding frames of a DICOM object: for display (VOI window) and as measured (modality LUT)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dxseg.data.readers.dicom.codestream import check_codestream
from dxseg.data.readers.dicom.elements import read_text
from dxseg.data.readers.dicom.objects import (
    COLOR,
    GRAY,
    PixelLayout,
    open_object,
    pixel_layout,
    translate_errors,
)
from dxseg.data.readers.dicom.stored_values import (
    describes_its_bits,
    find_padding,
    used_bits,
    without_padding,
)
from dxseg.data.readers.dicom.windows import (
    apply_modality,
    apply_window,
    first_window,
    frame_context,
)
from dxseg.data.readers.raster import Pixels, Raster
from dxseg.errors import DxsegError

if TYPE_CHECKING:
    from pydicom.dataset import FileDataset


def decode_dicom(path: Path) -> Raster:
    """Decode a DICOM image of one frame for display.

    Color becomes RGB. Gray values go through the modality LUT or rescaling, then the VOI LUT or
    the first window, and MONOCHROME1 is inverted; padding is black. The range of the window, or
    without a window the range of BitsStored, is scaled to the output range.

    Args:
        path: The file; its content, not its suffix, determines the format.

    Returns:
        Pixels (H, W, 1) or (H, W, 3): uint8 if samples have at most 8 bits, else uint16.

    Raises:
        DxsegError: The file is damaged, too large, has no image or several frames, or there
            is no decoder for its compression.
    """
    ds = open_object(path, pixels=True)
    layout = _single(pixel_layout(ds, path), path)
    step = 255 // (2**layout.bits_stored - 1) if layout.bits_stored < 8 else 1
    return Raster(displayed_frame(ds, 0, layout, path), step=step)


def dicom_size(path: Path) -> tuple[int, int]:
    """Read (height, width) from the header of a DICOM image of one frame.

    Args:
        path: The file.

    Raises:
        DxsegError: As `decode_dicom`, as far as the header shows it.
    """
    layout = _single(pixel_layout(open_object(path), path), path)
    return layout.rows, layout.columns


def displayed_frame(ds: FileDataset, index: int, layout: PixelLayout, path: Path) -> Pixels:
    """Decode a frame for display; the rules are those of `decode_dicom`.

    Args:
        ds: An object opened with its pixels.
        index: The frame, from 0.
        layout: Its pixel layout.
        path: Its file.

    Raises:
        DxsegError: The frame is damaged, or there is no decoder for its compression.
    """
    raw = _raw_frame(ds, index, layout, path)
    stored = used_bits(raw, layout)
    depth = np.dtype(np.uint8 if layout.bits_stored <= 8 else np.uint16)
    if layout.photometric == "PALETTE COLOR":
        return _through_palette(ds, stored, path)
    if layout.photometric in COLOR:
        return _spread(stored, 0, 2**layout.bits_stored - 1, depth)
    context = frame_context(ds, index, layout)
    with translate_errors(path):
        values, low, high = apply_window(apply_modality(stored, context), context)
    pixels = _spread(values, low, high, depth)
    if layout.photometric == "MONOCHROME1":
        pixels = ~pixels  # of unsigned numbers: the maximum less the value
    padding = find_padding(raw, ds, layout, path)
    if padding is not None:
        pixels[padding] = 0
    return pixels[:, :, None]


def measured_frame(
    ds: FileDataset, index: int, layout: PixelLayout, path: Path
) -> npt.NDArray[np.float64]:
    """Decode a frame as measured: the modality LUT or rescaling, such as Hounsfield units for CT.

    Args:
        ds: An object opened with its pixels.
        index: The frame, from 0.
        layout: Its pixel layout; pixels must be gray.
        path: Its file.

    Returns:
        (rows, columns); NaN in padding, and in CT below -1024 HU.

    Raises:
        DxsegError: The frame is damaged or colored, or there is no decoder for its compression.
    """
    if layout.photometric not in GRAY:
        raise DxsegError(f"{path}: a slice in color; expected gray values; leave the series out")
    raw = _raw_frame(ds, index, layout, path)
    context = frame_context(ds, index, layout)
    with translate_errors(path):
        values = np.asarray(apply_modality(used_bits(raw, layout), context), dtype=np.float64)
    return without_padding(values, find_padding(raw, ds, layout, path), ds)


@dataclass(frozen=True)
class MeasuredImage:
    """A gray image as measured.

    Attributes:
        values: (H, W), after the modality LUT or rescaling.
        unit: "HU" for CT, else "".
        window: Lowest and highest value of the first window; None without one.
    """

    values: npt.NDArray[np.float64]
    unit: str
    window: tuple[float, float] | None


def measured_image(path: Path) -> MeasuredImage | None:
    """Decode a DICOM image of one frame as measured, for window and level.

    Args:
        path: The file.

    Returns:
        The image; None if it is in color, or if low values are bright (MONOCHROME1).

    Raises:
        DxsegError: As `decode_dicom`.
    """
    ds = open_object(path, pixels=True)
    return measured_image_of(ds, 0, _single(pixel_layout(ds, path), path), path)


def measured_image_of(
    ds: FileDataset, index: int, layout: PixelLayout, path: Path
) -> MeasuredImage | None:
    """Decode a frame as `measured_image` does.

    Args:
        ds: An object opened with its pixels.
        index: The frame, from 0.
        layout: Its pixel layout.
        path: Its file.
    """
    if layout.photometric != "MONOCHROME2":
        return None
    window = first_window(frame_context(ds, index, layout))
    unit = "HU" if read_text(ds, "Modality") == "CT" else ""
    return MeasuredImage(measured_frame(ds, index, layout, path), unit, window)


def stored_frame(ds: FileDataset, index: int, layout: PixelLayout, path: Path) -> npt.NDArray[Any]:
    """Decode a frame's stored values; YBR becomes RGB.

    Args:
        ds: An object opened with its pixels.
        index: The frame, from 0.
        layout: Its pixel layout.
        path: Its file.

    Returns:
        (rows, columns) or (rows, columns, 3).

    Raises:
        DxsegError: The frame is damaged, or there is no decoder for its compression.
    """
    return used_bits(_raw_frame(ds, index, layout, path), layout)


def _raw_frame(ds: FileDataset, index: int, layout: PixelLayout, path: Path) -> npt.NDArray[Any]:
    """Decode a frame with all bits of its samples."""
    from pydicom.pixels.utils import pixel_array

    if "PixelData" not in ds:
        raise DxsegError(f"{path}: has no whole-number pixel data; expected an image")
    plugin = _plugin(layout, path)
    with translate_errors(path):
        check_codestream(ds, index, layout, path)
        array: npt.NDArray[Any] = (
            pixel_array(
                ds,
                index=index,
                decoding_plugin=plugin,
                correct_unused_bits=describes_its_bits(layout),
            )
            if layout.bits_allocated > 1 or plugin
            else _packed_frame(ds.PixelData, index, layout)
        )
    samples = array.shape[2:] if layout.photometric in COLOR[:-1] else ()
    if array.shape != (layout.rows, layout.columns, *samples):
        raise DxsegError(f"{path}: its pixels do not have the size in its header; export it again")
    return array


def _single(layout: PixelLayout, path: Path) -> PixelLayout:
    if layout.frames != 1:
        raise DxsegError(
            f"{path}: {layout.frames} frames; expected one image; `dxseg import dicom` makes one "
            "image of each frame"
        )
    return layout


def _plugin(layout: PixelLayout, path: Path) -> str:
    from pydicom.uid import UID

    from dxseg.data.readers.dicom.decoders import choose_decoder

    try:
        decoder, plugin = choose_decoder(layout.syntax)
    except (NotImplementedError, ValueError):
        raise DxsegError(
            f"{path}: its transfer syntax is missing, or not for images; export it again, as "
            "Explicit VR Little Endian if in doubt"
        ) from None
    if not decoder.is_available:
        raise DxsegError(
            f"{path}: compressed as {UID(layout.syntax).name}, for which no decoder is installed; "
            "pip install 'dxseg[dicom]'"
        )
    return plugin


def _packed_frame(packed: bytes, index: int, layout: PixelLayout) -> npt.NDArray[np.uint8]:
    """Unpack a frame of single bits, which may begin within a byte: pydicom 3.0 reads others.

    The first pixel is the lowest bit (PS3.5 8.1.1).
    """
    pixels = layout.rows * layout.columns
    first = index * pixels
    part = np.frombuffer(packed[first // 8 : (first + pixels + 7) // 8], np.uint8)
    bits = np.unpackbits(part, bitorder="little")[first % 8 :][:pixels]
    return bits.reshape(layout.rows, layout.columns)


def _spread(values: npt.NDArray[Any], low: float, high: float, depth: np.dtype[Any]) -> Pixels:
    """Scale low..high to all of uint8 or uint16; exact if both ranges are the same."""
    top = np.iinfo(depth).max
    if low == 0 and high == top and values.dtype.kind == "u":
        return values.astype(depth)
    scaled = (values.astype(np.float64) - low) / (high - low)
    pixels: Pixels = np.rint(np.clip(scaled, 0, 1) * top).astype(depth)
    return pixels


def _through_palette(ds: FileDataset, stored: npt.NDArray[Any], path: Path) -> Pixels:
    from pydicom.pixels.processing import apply_color_lut

    with translate_errors(path):
        colors = apply_color_lut(stored, ds)[:, :, :3]
    # Tables of 16 bit have screen colors in their high bytes (PS3.3 C.7.6.3.1.6).
    return colors if colors.dtype == np.uint8 else (colors >> 8).astype(np.uint8)

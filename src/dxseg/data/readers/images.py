"""Reading images: one registry of formats by file suffix."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dxseg.data.geometry import Spacing
from dxseg.data.readers.dicom.headers import pixel_spacing
from dxseg.data.readers.dicom.image import decode_dicom, dicom_size
from dxseg.data.readers.dicom.objects import is_dicom, open_object
from dxseg.data.readers.orientation import UPRIGHT
from dxseg.data.readers.raster import (
    Pixels,
    Raster,
    decode_raster,
    raster_orientation,
    raster_size,
)
from dxseg.errors import DxsegError
from dxseg.io.remote import as_path, fetch

# ITU-R BT.601, the weights behind most "convert to gray".
_LUMINANCE = np.array([0.299, 0.587, 0.114])


@dataclass(frozen=True)
class Reader:
    """How files of one suffix are read.

    Attributes:
        decode: Reads the pixels of a file.
        size: Reads (height, width) without decoding the pixels.
        orientation: Reads the EXIF orientation, 1 to 8, which `decode` and `size` have applied.
        spacing: Reads the height and width of a pixel, in millimeters.
    """

    decode: Callable[[Path], Raster]
    size: Callable[[Path], tuple[int, int]]
    orientation: Callable[[Path], int] = lambda _: UPRIGHT
    spacing: Callable[[Path], Spacing | None] = lambda _: None


_RASTER = Reader(decode_raster, raster_size, raster_orientation)
_DICOM = Reader(decode_dicom, dicom_size, spacing=lambda path: pixel_spacing(open_object(path)))
_RASTER_SUFFIXES = ".png .jpg .jpeg .jpe .jfif .tif .tiff .bmp .webp .gif .pbm .pgm .ppm .pnm"
_OTHER_SUFFIXES = """
.avif .dib .heic .heif .hdr .ima .img .j2k .jp2 .jpx .mat .mha .mhd .mrxs .ndpi .nhdr .nii .nii.gz
.npy .npz .nrrd .pcx .psd .svs .tga
"""
READERS: dict[str, Reader] = {
    **dict.fromkeys(_RASTER_SUFFIXES.split(), _RASTER),
    ".dcm": _DICOM,
}
"""The reader of each suffix, in lower case. Another format is one more entry."""


def is_supported(path: str | Path) -> bool:
    """Whether there is a reader for the suffix of a file."""
    # A Path of each of many thousand names takes longer than finding them.
    return os.path.splitext(str(path))[1].lower() in READERS  # noqa: PTH122


def is_image_name(path: str | Path) -> bool:
    """Whether a file is named as an image or a volume, of a format that is read or not.

    Args:
        path: The file.
    """
    name = Path(path).name.lower()
    return name.endswith((*READERS, *_OTHER_SUFFIXES.split()))


def read_image(path: str | Path) -> Pixels:
    """Read an image with all its channels.

    PNG, JPEG, TIFF, BMP, WebP, GIF of one frame and PNM; gray, color, palette, 1 to 16 bit.
    Transparency is dropped. A TIFF may
    have any number of channels, interleaved, planar or one per page. DICOM of one frame, as it is
    displayed (`decode_dicom`); recognized without a suffix too. An EXIF orientation is applied: the
    image is as viewers show it.

    Args:
        path: A file, or an address that fsspec reads, such as `s3://bucket/a.png`, which is read
            into memory once.

    Returns:
        (H, W, C) uint8 or uint16; 1-bit images hold 0 and 255.

    Raises:
        DxsegError: The file is absent, empty, damaged, of an unknown kind or too large.
    """
    return np.ascontiguousarray(decode(path).pixels)


def decode(path: str | Path) -> Raster:
    """Decode a file with what only masks need; see `read_image`.

    Args:
        path: A file or an address.

    Raises:
        DxsegError: As `read_image`.
    """
    source = fetch(as_path(path))
    return find_reader(source).decode(source)


def image_size(path: str | Path) -> tuple[int, int]:
    """Read (height, width) in pixels from the header of an image.

    Args:
        path: A file or an address.

    Raises:
        DxsegError: As `read_image`, as far as the header shows it.
    """
    source = fetch(as_path(path))
    return find_reader(source).size(source)


def image_orientation(path: str | Path) -> int:
    """Read the EXIF orientation of an image, 1 to 8; `read_image` has applied it.

    Args:
        path: A file or an address.

    Raises:
        DxsegError: As `read_image`, as far as the header shows it.
    """
    source = fetch(as_path(path))
    return find_reader(source).orientation(source)


def image_spacing(path: str | Path) -> Spacing | None:
    """Read the height and width of a pixel, in millimeters; None where the file has none.

    Args:
        path: A file or an address.

    Raises:
        DxsegError: As `read_image`, as far as the header shows it.
    """
    source = fetch(as_path(path))
    return find_reader(source).spacing(source)


def to_channels(array: Pixels, channels: int) -> Pixels:
    """Convert an image to the number of channels a model expects.

    Gray is repeated into RGB; RGB becomes gray by luminance (ITU-R BT.601), so that an RGB file of
    equal channels has exactly its gray values.

    Args:
        array: (H, W, C) uint8 or uint16.
        channels: Number of channels of the result.

    Returns:
        (H, W, channels) of the same type.

    Raises:
        DxsegError: Any other change of the number of channels.
    """
    given = array.shape[2]
    if given == channels:
        return array
    if (given, channels) == (1, 3):
        repeated: Pixels = np.repeat(array, 3, axis=2)
        return repeated
    if (given, channels) == (3, 1):
        gray: Pixels = np.rint(array @ _LUMINANCE).astype(array.dtype)[:, :, None]
        return gray
    raise DxsegError(
        f"an image has {given} channel(s), expected {channels}; only gray and RGB are converted "
        "into each other; correct channels in dataset.yaml or export the image again"
    )


def find_reader(path: Path) -> Reader:
    """Find the reader of a file by its suffix, or by its content for DICOM without one.

    Args:
        path: The file.

    Raises:
        DxsegError: There is no reader for it.
    """
    suffix = path.suffix.lower()
    if suffix not in READERS:
        # PACS export files named by a UID or a number.
        if is_dicom(path):
            return _DICOM
        raise DxsegError(
            f"{path}: unknown type {suffix or 'without a suffix'}; expected {', '.join(READERS)}"
        )
    return READERS[suffix]

"""Opening DICOM files, with no value of a header in any message."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, BinaryIO, cast

from dxseg.data.readers.budget import check_size
from dxseg.data.readers.dicom.elements import read_int, read_text
from dxseg.errors import DxsegError
from dxseg.io.remote import RemotePath

if TYPE_CHECKING:
    from pydicom.dataset import Dataset, FileDataset

GRAY = ("MONOCHROME1", "MONOCHROME2")
COLOR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT", "PALETTE COLOR")
_PREAMBLE = 132


@dataclass(frozen=True)
class PixelLayout:
    """The layout of the pixels, as in the header.

    Attributes:
        rows: Height of a frame in pixels.
        columns: Width of a frame in pixels.
        frames: Number of frames, at least 1.
        photometric: One of `GRAY` or `COLOR`.
        bits_allocated: Bits per sample: 1, 8, 16 or 32.
        bits_stored: Number of these bits that are used.
        high_bit: The highest of them, from 0.
        signed: Whether samples are two's complement.
        syntax: UID of the transfer syntax.
    """

    rows: int
    columns: int
    frames: int
    photometric: str
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool
    syntax: str


def is_dicom(path: Path) -> bool:
    """Whether a file starts as DICOM does (PS3.10: 128 bytes, then DICM).

    Args:
        path: Any file; an unreadable file is not DICOM.
    """
    try:
        with path.open("rb") as stream:
            return stream.read(_PREAMBLE)[128:] == b"DICM"
    except OSError:
        return False


def open_object(path: Path, *, pixels: bool = False) -> FileDataset:
    """Read a DICOM file.

    Messages contain no value of the file and no message of pydicom, which quotes values: both may
    identify a patient.

    Args:
        path: The file; its content, not its suffix, determines the format.
        pixels: Whether to read the pixel data too.

    Raises:
        DxsegError: The file is absent, empty, not DICOM, damaged, or inflates beyond the
            budget of decoded bytes.
    """
    _check_start(path)
    import pydicom
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    from dxseg.data.readers.dicom.deflated import read_deflated

    # Warnings of pydicom quote values. Filtered on each call: names must not appear on a terminal
    # because other code has reset filters or levels.
    warnings.filterwarnings("ignore", module=r"pydicom\b")
    logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)
    with translate_errors(path), path.open("rb") as stream:
        meta = _read_meta(stream)
        if meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
            return read_deflated(stream, path, meta, pixels=pixels)
        stream.seek(0)
        return pydicom.dcmread(stream, stop_before_pixels=not pixels)


@contextmanager
def translate_errors(path: Path) -> Iterator[None]:
    """Translate any error of parsers and decoders into one without their text.

    Args:
        path: The file named in the error.

    Raises:
        DxsegError: The block raised anything.
    """
    try:
        yield
    except DxsegError:
        raise
    except Exception as error:  # noqa: BLE001 - they raise nearly every type on hostile files
        raise DxsegError(
            f"{path}: damaged or cut short ({type(error).__name__}); expected a complete DICOM "
            "file; copy or export it again"
        ) from None


def pixel_layout(ds: FileDataset, path: Path) -> PixelLayout:
    """Read and check the layout of the pixels, before any memory is allocated for them.

    Args:
        ds: An opened object, with or without its pixels.
        path: Its file.

    Raises:
        DxsegError: There are no pixels, more than a frame may have or the file can contain, or they
            are of an unsupported kind.
    """
    rows, columns = read_int(ds, "Rows", path, 0), read_int(ds, "Columns", path, 0)
    samples = read_int(ds, "SamplesPerPixel", path, 1)
    allocated = read_int(ds, "BitsAllocated", path, 0)
    stored = read_int(ds, "BitsStored", path, allocated)
    frames = read_int(ds, "NumberOfFrames", path, 1)
    photometric = read_text(ds, "PhotometricInterpretation")
    if rows < 1 or columns < 1:
        raise DxsegError(f"{path}: has no image (no rows and columns); expected pixels")
    known = (samples == 1 and photometric in (*GRAY, "PALETTE COLOR")) or (
        samples == 3 and photometric in COLOR[:-1]
    )
    if not known:
        raise DxsegError(
            f"{path}: {samples} sample(s) per pixel of an unknown color model; expected one of "
            f"{', '.join(GRAY + COLOR)}; export it again in one of them"
        )
    limit = 32 if samples == 1 else 16
    if allocated not in (1, 8, 16, 32) or not 1 <= stored <= allocated or allocated > limit:
        raise DxsegError(
            f"{path}: {stored} of {allocated} bits per sample; expected at most {limit} of 1, 8, "
            "16 or 32; export it again as whole numbers of 8 or 16 bit"
        )
    high_bit = read_int(ds, "HighBit", path, stored - 1)
    if not stored - 1 <= high_bit < allocated:
        raise DxsegError(
            f"{path}: its highest bit is {high_bit} (HighBit), but {stored} of {allocated} bits "
            f"are stored; expected {stored - 1}; correct the header"
        )
    if frames < 1:
        raise DxsegError(f"{path}: claims {frames} frames; expected at least 1")
    check_size(path, rows, columns, samples * max(allocated // 8, 1))
    syntax = str(getattr(getattr(ds, "file_meta", None), "TransferSyntaxUID", ""))
    layout = PixelLayout(
        rows,
        columns,
        frames,
        photometric,
        allocated,
        stored,
        high_bit,
        read_int(ds, "PixelRepresentation", path, 0) == 1,
        syntax,
    )
    chroma = 2 if photometric == "YBR_FULL_422" else samples
    _check_length(layout, chroma * allocated, path)
    return layout


def _check_start(path: Path) -> None:
    try:
        with path.open("rb") as stream:
            start = stream.read(_PREAMBLE)
    except OSError as error:
        raise DxsegError(f"{path}: cannot be read ({error.strerror}); expected a file") from None
    if not start:
        raise DxsegError(f"{path}: is empty (0 bytes); expected DICOM; copy it again")
    if start[128:] != b"DICM":
        raise DxsegError(
            f"{path}: not a DICOM file (DICM is not at byte 128); expected DICOM as PACS export "
            "it; convert it, or correct its suffix"
        )


def _read_meta(stream: IO[bytes]) -> Dataset:
    """Read the file meta information; leaves the stream where the data set begins."""
    from pydicom.filereader import read_dataset

    stream.seek(_PREAMBLE)
    return read_dataset(
        cast("BinaryIO", stream),
        is_implicit_VR=False,
        is_little_endian=True,
        stop_when=lambda tag, _vr, _length: tag >> 16 != 2,
    )


def _check_length(layout: PixelLayout, bits: int, path: Path) -> None:
    """Compare the claimed pixels with the file size; a compressed frame has 8 bytes or more."""
    from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

    syntax = UID(layout.syntax)
    if syntax == DeflatedExplicitVRLittleEndian or syntax.is_private:
        return
    encapsulated = syntax.is_transfer_syntax and syntax.is_encapsulated
    pixels = layout.rows * layout.columns * layout.frames
    needed = 8 * layout.frames if encapsulated else pixels * bits // 8
    with translate_errors(path):
        size = path.size() if isinstance(path, RemotePath) else path.stat().st_size
    if needed > size:
        raise DxsegError(
            f"{path}: claims {layout.frames} frame(s) of {layout.rows} x {layout.columns} pixels, "
            f"at least {needed} bytes, but has {size}; it is cut short or damaged; copy it again"
        )

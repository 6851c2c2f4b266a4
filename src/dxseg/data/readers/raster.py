"""Decoding PNG, JPEG, TIFF, BMP, WebP, GIF and PNM by content, whatever the file name.

Pillow, tifffile and imagecodecs decode. This module is our own because each of them reads some
kinds of files only in part, and none limits what a hostile file may claim.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from dxseg.data.readers.budget import check_size
from dxseg.data.readers.orientation import UPRIGHT, as_shown, pillow_orientation, shown_size
from dxseg.data.readers.sample_types import to_integers
from dxseg.data.readers.tiff import read_tiff, tiff_layout
from dxseg.errors import DxsegError

MERGED_TAG = "dxseg:united-masks"
"""Key of the PNG text with the number of masks that an importer merged into one."""

_MODE_BYTES = {"I": 4, "F": 4}
"""Bytes per sample of Pillow's modes of more than one byte, but for those of 16 bit."""
_PNG_RGB, _PNG_GRAY_ALPHA, _PNG_RGBA = 2, 4, 6

Pixels = npt.NDArray[Any]
"""(H, W, C), uint8 or uint16."""


@dataclass(frozen=True)
class Raster:
    """A decoded file, with details that only masks need.

    Attributes:
        pixels: (H, W, C), uint8 or uint16, without the alpha channel; 1-bit images hold 0 and 255.
        alpha: (H, W) transparency, if the file has one that is not a palette's.
        indices: (H, W) palette positions, if the file has a palette.
        palette: (256, 3) colors of these positions.
        step: Difference of neighboring gray levels of a 1, 2 or 4 bit image in `pixels`.
        merged_count: Number of masks that an importer merged into this one, from the PNG text
            `MERGED_TAG`.
        orientation: EXIF orientation of the file, 1 to 8; the arrays are turned by it already.
    """

    pixels: Pixels
    alpha: Pixels | None = None
    indices: npt.NDArray[np.uint8] | None = None
    palette: npt.NDArray[np.uint8] | None = None
    step: int = 1
    merged_count: int = 1
    orientation: int = UPRIGHT

    def as_shown(self, orientation: int) -> Raster:
        """Turn the arrays as viewers show them."""
        if orientation == UPRIGHT:
            return self
        turned: dict[str, Any] = {
            name: np.ascontiguousarray(as_shown(array, orientation))
            for name in ("pixels", "alpha", "indices")
            if (array := getattr(self, name)) is not None
        }
        return replace(self, **turned, orientation=orientation)


def decode_raster(path: Path) -> Raster:
    """Decode a file of one of these formats.

    An EXIF orientation is applied, also of TIFF and PNG: pixels are as viewers show them.

    Args:
        path: The file; its content, not its suffix, determines the format.

    Raises:
        DxsegError: The file is empty, cut short, of another kind, too large, or has pixels that
            are not whole numbers from 0 to 65535.
    """
    with _open(path) as stream:
        kind = _kind(stream, path)
        try:
            raster = _decode_tiff(stream, path) if kind == "tiff" else _decode(stream, path, kind)
        except DxsegError:
            raise
        except Exception as error:
            # Decoders raise nearly every type there is on hostile files.
            raise DxsegError(
                f"{path}: damaged or cut short ({type(error).__name__}: {error}); expected a "
                f"complete {kind.upper()} file; copy or export it again"
            ) from error
    if raster.pixels.size == 0:
        raise DxsegError(f"{path}: has no pixels; expected an image; copy or export it again")
    return raster


def raster_kind(path: Path) -> str:
    """Detect the format of a file: png, jpeg, tiff, bmp, webp, gif or pnm.

    Args:
        path: The file.

    Raises:
        DxsegError: It cannot be opened, is empty or of another kind.
    """
    with _open(path) as stream:
        return _kind(stream, path)


def raster_size(path: Path) -> tuple[int, int]:
    """Read (height, width), as viewers show it, from the header of a file.

    Args:
        path: The file.

    Raises:
        DxsegError: As `decode_raster`, as far as the header shows it.
    """
    return shown_size(*_read_header(path))


def raster_orientation(path: Path) -> int:
    """Read the EXIF orientation, 1 to 8, from the header of a file.

    Args:
        path: The file.

    Raises:
        DxsegError: As `decode_raster`, as far as the header shows it.
    """
    return _read_header(path)[2]


def _read_header(path: Path) -> tuple[int, int, int]:
    """Read the stored height and width, and the orientation; one after the other is asked for."""
    try:
        stat = path.stat()
    except (OSError, DxsegError):  # absent, or read from an address
        return _read_header_once.__wrapped__(path, 0, 0)
    return _read_header_once(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=2**14)
def _read_header_once(path: Path, _time: int, _size: int) -> tuple[int, int, int]:
    with _open(path) as stream:
        kind = _kind(stream, path)
        try:
            if kind == "tiff":
                layout = tiff_layout(stream, path)
                return layout.height, layout.width, layout.orientation
            image = _pillow(stream, path, kind)
            return image.height, image.width, pillow_orientation(image)
        except DxsegError:
            raise
        except Exception as error:
            raise DxsegError(
                f"{path}: damaged header ({type(error).__name__}: {error}); expected a complete "
                f"{kind.upper()} file; copy or export it again"
            ) from error


def _open(path: Path) -> IO[bytes]:
    if not path.is_file() and path.exists():
        # Opening a named pipe would block forever.
        raise DxsegError(f"{path}: cannot be read (not a file); expected an image")
    try:
        return path.open("rb")
    except OSError as error:
        raise DxsegError(f"{path}: cannot be read ({error.strerror}); expected an image") from error


def _kind(stream: IO[bytes], path: Path) -> str:
    start = stream.read(12)
    stream.seek(0)
    if not start:
        raise DxsegError(f"{path}: is empty (0 bytes); expected an image; copy it again")
    if start.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if start.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if start.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return "tiff"
    if start.startswith(b"BM"):
        return "bmp"
    if start.startswith(b"RIFF") and start.endswith(b"WEBP"):
        return "webp"
    if start.startswith((b"GIF87a", b"GIF89a")):
        return "gif"
    if start[:1] == b"P" and start[1:2] in b"123456" and start[2:3].isspace():
        return "pnm"
    raise DxsegError(
        f"{path}: not an image that can be read (starts with {start[:8]!r}); expected PNG, JPEG, "
        "TIFF, BMP, WebP, GIF or PNM; convert it"
    )


@cache
def _plugins() -> dict[str, Any]:
    # The plugins themselves, not Image.open: its limit depends on a global variable.
    from PIL import (
        BmpImagePlugin,
        GifImagePlugin,
        JpegImagePlugin,
        PngImagePlugin,
        PpmImagePlugin,
        TiffImagePlugin,
        WebPImagePlugin,
    )

    return {
        "png": PngImagePlugin.PngImageFile,
        "jpeg": JpegImagePlugin.JpegImageFile,
        "bmp": BmpImagePlugin.BmpImageFile,
        "tiff": TiffImagePlugin.TiffImageFile,
        "webp": WebPImagePlugin.WebPImageFile,
        "gif": GifImagePlugin.GifImageFile,
        "pnm": PpmImagePlugin.PpmImageFile,
    }


def _pillow(stream: IO[bytes], path: Path, kind: str) -> Any:
    image = _plugins()[kind](stream)
    depth = _MODE_BYTES.get(image.mode, 2 if image.mode.startswith("I;16") else 1)
    check_size(path, image.height, image.width, depth * len(image.getbands()))
    if kind in ("webp", "gif") and image.is_animated:
        raise DxsegError(f"{path}: has several frames; expected one image; save one frame")
    return image


def _decode(stream: IO[bytes], path: Path, kind: str) -> Raster:
    step = 1
    if kind == "png":
        depth, color = struct.unpack(">16x8xBB", stream.read(26))
        stream.seek(0)
        if depth == 16 and color in (_PNG_RGB, _PNG_GRAY_ALPHA, _PNG_RGBA):
            return _decode_deep_png(stream, path, color)
        if depth < 8 and color == 0:
            step = 255 // (2**depth - 1)
    image = _pillow(stream, path, kind)
    if kind == "pnm":
        step = _pnm_step(image, path)
    orientation = pillow_orientation(image)
    image.load()
    merged = str(image.info.get(MERGED_TAG, "")) if kind == "png" else ""
    count = int(merged) if merged.isdecimal() and len(merged) < 6 else 1
    raster = replace(_from_pillow(image, path, step), merged_count=count)
    return raster.as_shown(orientation)


def _pnm_step(image: Any, path: Path) -> int:
    """What Pillow multiplies the values of a PNM file by, to 8 bit; refuse what it would round."""
    form = image.tile[0][3]
    if isinstance(form, str):  # one bit, 8 bit, or gray of 16 bit
        return 1
    highest = int(form[1])
    if highest == 65535 and image.mode == "I":
        return 1
    if highest <= 255 and 255 % highest == 0:
        return 255 // highest
    raise DxsegError(
        f"{path}: PNM with the highest value {highest}; expected 255, or 65535 if it is gray; "
        "convert it to PNG or TIFF"
    )


def _from_pillow(image: Any, path: Path, step: int = 1) -> Raster:
    mode = image.mode
    if mode == "1":
        return Raster(np.asarray(image).astype(np.uint8)[:, :, None] * np.uint8(255), step=255)
    if mode == "P":
        palette = np.zeros((256, 3), dtype=np.uint8)
        colors = np.array(image.getpalette("RGB"), dtype=np.uint8).reshape(-1, 3)
        palette[: len(colors)] = colors
        indices = np.asarray(image)
        gray = (palette == palette[:, :1]).all()
        pixels = palette[indices][:, :, : 1 if gray else 3]
        return Raster(pixels, indices=indices, palette=palette)
    if mode in ("PA", "La", "RGBa"):
        image = image.convert("LA" if mode == "La" else "RGBA")
    elif mode in ("CMYK", "YCbCr", "RGBX", "LAB", "HSV"):
        image = image.convert("RGB")
    array = np.asarray(image)
    if image.mode in ("LA", "RGBA"):
        return Raster(array[:, :, :-1], alpha=array[:, :, -1])
    return Raster(to_integers(array if array.ndim == 3 else array[:, :, None], path), step=step)


def _decode_deep_png(stream: IO[bytes], path: Path, color: int) -> Raster:
    # Pillow reads 16-bit color as its high bytes and drops the low ones without a warning.
    import imagecodecs

    image = _pillow(stream, path, "png")
    check_size(path, image.height, image.width, 8)
    orientation = pillow_orientation(image)
    stream.seek(0)
    array = imagecodecs.png_decode(stream.read())
    if color == _PNG_RGB:
        # What may follow is a single transparent color (tRNS).
        return Raster(array[:, :, :3]).as_shown(orientation)
    return Raster(array[:, :, :-1], alpha=array[:, :, -1]).as_shown(orientation)


def _decode_tiff(stream: IO[bytes], path: Path) -> Raster:
    layout = tiff_layout(stream, path)
    page = layout.page
    stream.seek(0)
    plain = page.photometric.name in ("RGB", "MINISBLACK", "MINISWHITE")
    if (len(layout.axes) == 2 and page.bitspersample < 8) or not plain:
        if not set(layout.axes) <= set("YXS"):
            raise DxsegError(
                f"{path}: several pages of {page.photometric.name}; expected one, or pages of gray "
                "values; save a page as a file of its own"
            )
        # Palettes, 1-bit and CMYK are decoded by Pillow, and left raw by tifffile. Pillow turns
        # TIFF itself.
        raster = _from_pillow(_pillow(stream, path, "tiff"), path)
        return replace(raster, orientation=layout.orientation)
    array = to_integers(read_tiff(stream, layout, path), path)
    if page.photometric.name == "MINISWHITE":
        array = (np.iinfo(array.dtype).max - array).astype(array.dtype)
    transparent = any(int(sample) in (1, 2) for sample in page.extrasamples or ())
    if transparent and array.shape[2] in (2, 4):
        raster = Raster(array[:, :, :-1], alpha=array[:, :, -1])
    else:
        raster = Raster(array)
    return raster.as_shown(layout.orientation)

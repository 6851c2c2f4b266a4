"""Write 8-bit PNG files, fast: two are written for every image that is predicted.

Own code, because Pillow tries five filters per row: one filter for all rows and libdeflate take
half of its time for a mask and a fifth for an overlay of speckle, and the files are no larger.
libpng (`imagecodecs.png_encode`) takes twice as long for such an overlay.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dxseg.errors import DxsegError
from dxseg.io.atomic import atomic_path

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GRAY, _RGB = 0, 2
_SUB = 1
"""Filter type: each byte minus that of the pixel on its left."""


def write_mask_png(path: str | Path, mask: NDArray[np.uint8], classes: int) -> None:
    """Write a label map as an 8-bit gray PNG of the same size.

    Args:
        path: File to write, atomically.
        mask: (H, W) values 0..classes.
        classes: Lesion classes. One: the PNG holds 0 and 255. Several: the label map as it is.

    Raises:
        DxsegError: The mask is not a two-dimensional map of 0..classes.
    """
    if mask.ndim != 2 or mask.size == 0 or int(mask.max()) > classes:
        raise DxsegError(
            f"{path}: a mask must be (H, W) with values 0..{classes}, got {mask.shape}"
        )
    write_png(path, mask_levels(mask, classes))


def mask_levels(mask: NDArray[np.uint8], classes: int) -> NDArray[np.uint8]:
    """Gray levels of a label map: 0 and 255 for one class, else the class numbers.

    Args:
        mask: (H, W) values 0..classes.
        classes: Lesion classes.
    """
    return (mask > 0).astype(np.uint8) * np.uint8(255) if classes == 1 else mask.astype(np.uint8)


def write_png(path: str | Path, pixels: NDArray[np.uint8]) -> None:
    """Write a PNG file atomically.

    Args:
        path: File to write.
        pixels: (H, W) gray, or (H, W, 3) RGB.
    """
    # Flushing two files per image to disk can cost as much as the network; `predict_files`
    # recomputes a result that a power cut has emptied.
    with atomic_path(path, flush=False) as temporary:
        temporary.write_bytes(encode_png(pixels))


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """Encode an image as PNG.

    Args:
        pixels: (H, W) gray, or (H, W, 3) RGB.

    Returns:
        The content of the file.
    """
    import imagecodecs

    height, width = pixels.shape[:2]
    channels = 1 if pixels.ndim == 2 else 3
    rows = pixels.reshape(height, width * channels)
    filtered = np.empty((height, 1 + rows.shape[1]), np.uint8)
    filtered[:, 0] = _SUB
    filtered[:, 1 : 1 + channels] = rows[:, :channels]
    np.subtract(rows[:, channels:], rows[:, :-channels], out=filtered[:, 1 + channels :])
    color_type = _GRAY if channels == 1 else _RGB
    parts = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, color_type, 0, 0, 0)),
        (b"IDAT", bytes(imagecodecs.deflate_encode(filtered.tobytes(), level=1))),
        (b"IEND", b""),
    )
    return _SIGNATURE + b"".join(_chunk(name, content) for name, content in parts)


def _chunk(name: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(content, zlib.crc32(name))
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)

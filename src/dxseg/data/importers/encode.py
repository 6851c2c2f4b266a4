"""Encoding the images that importers write."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray


def encode_image(pixels: NDArray[Any]) -> bytes:
    """Encode an image without loss: as PNG if it has one channel, else as TIFF.

    Args:
        pixels: (H, W, C) uint8 or uint16.
    """
    buffer = io.BytesIO()
    if pixels.shape[2] == 1:
        from PIL import Image

        image = Image.fromarray(np.ascontiguousarray(pixels[:, :, 0]))
        # Level 1 is several times faster than the default; CT noise compresses little either way.
        image.save(buffer, format="PNG", compress_level=1)
    else:
        import tifffile

        tifffile.imwrite(
            buffer,
            pixels,
            photometric="minisblack",
            planarconfig="contig",
            compression="zlib",
            compressionargs={"level": 1},
            metadata=None,
        )
    return buffer.getvalue()

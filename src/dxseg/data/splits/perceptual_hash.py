"""Thumbnails and perceptual hashes of images, by which near-duplicates are found."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dxseg.data.readers.images import read_image
from dxseg.io.atomic import preallocate
from dxseg.io.parallel import parallel_map
from dxseg.io.sqlite_cache import SqliteCache, file_key

SIDE = 48
BYTES = SIDE * SIDE + 8
"""Size of one record: the thumbnail, then the hash."""

_FORMAT = "description 2"
"""Part of every key: raise it when reading, reducing or hashing changes."""
_ROWS_AT_ONCE = 1 << 22  # pixels converted to gray at a time, which bounds memory for large images


@dataclass(frozen=True)
class ImageHashes:
    """Thumbnails and perceptual hashes of N images.

    Attributes:
        thumbnails: (N, 2304) uint8, 48x48 gray; a memory map where there are many.
        hashes: (N, 8) uint8, 64 bits.
    """

    thumbnails: NDArray[np.uint8]
    hashes: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.hashes)


def hash_image(pixels: NDArray[Any]) -> bytes:
    """Compute the thumbnail and the perceptual hash of an image.

    Args:
        pixels: (H, W) or (H, W, C) of any integer or float type.

    Returns:
        `BYTES` bytes: the 48x48 gray copy, then the 64-bit perceptual hash (DCT of a 32x32
        reduction, Zauner 2010, as in `imagehash`); a hash of zeros where the copy is flat.
    """
    return hash_gray(gray_image(pixels))


def hash_gray(gray: Image.Image) -> bytes:
    """Compute the thumbnail and the hash of an 8-bit gray image, as `hash_image`."""
    import imagehash

    # BILINEAR with Pillow's reduction window is a triangle filter: smoother than a box, so that
    # rescaled copies of one frame, whose pixels fall on other grid points, still correlate.
    thumbnail = np.asarray(gray.resize((SIDE, SIDE), Image.Resampling.BILINEAR), np.uint8)
    if thumbnail.min() == thumbnail.max():
        # The hash of a flat image is rounding noise; all flat images get the same hash.
        return thumbnail.tobytes() + bytes(8)
    return thumbnail.tobytes() + np.packbits(imagehash.phash(gray).hash.ravel()).tobytes()


def hash_images(
    images: Sequence[Path | NDArray[Any]],
    *,
    cache: Path | None = None,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ImageHashes:
    """Compute thumbnails and hashes of images, files in parallel.

    Args:
        images: Files, or arrays as in `hash_image`.
        cache: File for the records, so that an interrupted job can continue; default: none.
        workers: Processes; default: number of cores.
        progress: Called with (done, total) after each image.

    Raises:
        DxsegError: A file cannot be read as an image.
    """
    total = len(images)
    keys = [_key(image, number) for number, image in enumerate(images)]
    with SqliteCache(cache) as store:
        waiting = store.missing(keys)
        kept = total - len(waiting)
        if progress is not None and kept:
            progress(kept, total)
        work = parallel_map(_hash, [images[place] for place in waiting], workers=workers)
        for done, (place, record) in enumerate(work, kept + 1):
            store.put(keys[waiting[place]], record)
            if progress is not None:
                progress(done, total)
        return stack_hashes(store.read(keys), total)


def stack_hashes(records: Iterator[bytes], total: int) -> ImageHashes:
    """Stack records into arrays that may be larger than memory.

    Args:
        records: Results of `hash_image`.
        total: Number of records.
    """
    hashes = np.zeros((total, 8), np.uint8)
    if total == 0:
        return ImageHashes(np.zeros((0, SIDE * SIDE), np.uint8), hashes)
    # The memory map keeps its nameless file open, which is gone when the map is.
    with tempfile.TemporaryFile() as file:
        preallocate(file.fileno(), total * SIDE * SIDE)
        thumbnails = np.memmap(file, np.uint8, mode="w+", shape=(total, SIDE * SIDE))
    for row, record in enumerate(records):
        values = np.frombuffer(record, np.uint8)
        thumbnails[row], hashes[row] = values[:-8], values[-8:]
    return ImageHashes(thumbnails, hashes)


def _key(image: Path | NDArray[Any], number: int) -> str:
    if not isinstance(image, Path):
        return f"array {number}"
    try:
        return file_key(image, _FORMAT)
    except OSError:
        # Reading it will raise the error.
        return f"absent {number}"


def _hash(image: Path | NDArray[Any]) -> bytes:
    return hash_image(read_image(image) if isinstance(image, Path) else image)


def gray_image(pixels: NDArray[Any]) -> Image.Image:
    """Average the channels and, unless they are 8-bit, stretch the range to 0..255.

    Args:
        pixels: (H, W) or (H, W, C) of any integer or float type.
    """
    low, gain = 0.0, 1.0
    if pixels.dtype != np.uint8:
        extremes = [(float(block.min()), float(block.max())) for _, block in _gray_blocks(pixels)]
        low, high = min(e[0] for e in extremes), max(e[1] for e in extremes)
        # Correlation and hash ignore gain and offset, so a stretch per image is safe.
        gain = 255 / (high - low) if high > low else 0.0
    gray = np.empty(pixels.shape[:2], np.uint8)
    for rows, block in _gray_blocks(pixels):
        gray[rows] = np.rint((block - np.float32(low)) * np.float32(gain))
    return Image.fromarray(gray)


def _gray_blocks(pixels: NDArray[Any]) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    height = max(1, _ROWS_AT_ONCE // max(1, int(np.prod(pixels.shape[1:]))))
    for start in range(0, pixels.shape[0], height):
        rows = slice(start, start + height)
        block = pixels[rows].astype(np.float32)
        yield rows, block.mean(axis=2) if block.ndim == 3 else block

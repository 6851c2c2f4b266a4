"""Decoded and resized images and masks, memory-mapped and keyed by what they were made from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dxseg.data.dataset import Dataset
from dxseg.data.files import atomic_path, sha256_file, sha256_json
from dxseg.data.preprocess import fit_image, fit_mask
from dxseg.data.readers import read_image, read_mask, to_channels
from dxseg.errors import DxsegError

Progress = Callable[[int, int], None]

_FORMAT = 1
"""Part of every key: raise it when resizing or reading changes what is stored."""


def cached_images(
    dataset: Dataset,
    rows: pd.DataFrame,
    image_size: int,
    folder: Path,
    progress: Progress | None = None,
) -> NDArray[Any]:
    """The images of some cases as a read-only memory map (N, image_size, image_size, C).

    Args:
        dataset: where the files are and how many channels are wanted.
        rows: rows of ``dataset.cases``, in the order wanted.
        image_size: side of the square each image is fitted into, pixels.
        folder: where caches lie; a cache of the same content is reused.
        progress: called with (done, total).

    Returns:
        uint8 or uint16, as the files are.

    Raises:
        DxsegError: a file is unreadable, or 8-bit and 16-bit images are mixed.
    """
    paths = [dataset.image_path(row) for row in rows.itertuples()]
    digests = [sha256_file(path) for path in paths]
    channels = dataset.spec.channels
    key = sha256_json(
        {"format": _FORMAT, "images": digests, "size": image_size, "channels": channels}
    )

    def read(index: int) -> NDArray[Any]:
        return fit_image(to_channels(read_image(paths[index]), channels), image_size)[0]

    return _memory_map(folder / f"images-{key[:32]}.npy", read, paths, progress)


def cached_masks(
    dataset: Dataset, rows: pd.DataFrame, image_size: int, folder: Path
) -> NDArray[np.uint8]:
    """The masks of some cases as a read-only memory map (N, image_size, image_size).

    Cases without a mask file get an empty mask: pass only those whose mask is known.

    Returns:
        Label maps, 0 for background, 1..K for the mask classes.
    """
    classes = len(dataset.spec.mask_classes)
    paths = [dataset.mask_path(row) for row in rows.itertuples()]
    digests = ["" if path is None else sha256_file(path) for path in paths]
    key = sha256_json({"format": _FORMAT, "masks": digests, "size": image_size, "classes": classes})

    def read(index: int) -> NDArray[np.uint8]:
        path = paths[index]
        if path is None:
            return np.zeros((image_size, image_size), dtype=np.uint8)
        return fit_mask(read_mask(path, classes), image_size, classes)

    return _memory_map(folder / f"masks-{key[:32]}.npy", read, paths, None)


def _memory_map(
    path: Path,
    read: Callable[[int], NDArray[Any]],
    sources: list[Path] | list[Path | None],
    progress: Progress | None,
) -> NDArray[Any]:
    """Open the array at ``path``, writing it first where it is absent or damaged."""
    if not sources:
        raise DxsegError(f"{path.parent}: no cases to cache; the split leaves none for training")
    try:
        return _open(path)
    except (FileNotFoundError, EOFError, ValueError):
        _write(path, read, sources, progress)
    return _open(path)


def _open(path: Path) -> NDArray[Any]:
    array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    return array


def _write(
    path: Path,
    read: Callable[[int], NDArray[Any]],
    sources: list[Path] | list[Path | None],
    progress: Progress | None,
) -> None:
    """Write one item at a time; the file gets its name when all are there."""
    first = read(0)
    with atomic_path(path) as temporary:
        array = np.lib.format.open_memmap(
            temporary, mode="w+", dtype=first.dtype, shape=(len(sources), *first.shape)
        )
        for index, source in enumerate(sources):
            item = first if index == 0 else read(index)
            if item.dtype != array.dtype:
                raise DxsegError(
                    f"{source}: {item.dtype} where the cases before are {array.dtype}; a "
                    "dataset holds 8-bit or 16-bit images, not both: convert one kind"
                )
            array[index] = item
            if progress is not None:
                progress(index + 1, len(sources))
        array.flush()
        del array

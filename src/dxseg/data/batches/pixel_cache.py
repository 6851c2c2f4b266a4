"""Decoded and resized images and masks, memory-mapped and keyed by what they were made from.

Files are decoded by all cores. What is decoded is kept in a store beside the array until all is
there: a job that is killed goes on, and a second one that wants the same waits for the first.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dxseg.data.geometry import Zoom
from dxseg.data.preprocessing import fit_image, fit_mask, fit_soft_mask
from dxseg.data.readers.images import read_image, to_channels
from dxseg.data.readers.masks import read_mask
from dxseg.data.table.dataset import Dataset
from dxseg.errors import DxsegError
from dxseg.io.atomic import atomic_path, sha256_file, sha256_json
from dxseg.io.file_lock import wait_for_lock
from dxseg.io.parallel import parallel_map
from dxseg.io.remote import RemotePath, versions
from dxseg.io.sqlite_cache import SqliteCache

Progress = Callable[[int, int], None]
Source = tuple[Path | None, Zoom | None]
"""A file, and the zoom that brings its image to the spacing of the network."""

_FORMAT = 2
"""Part of every key: raise it when resizing or reading changes what is stored."""
# A process has to import torch first, some seconds.
MIN_IMAGES_PER_PROCESS = 1000
MIN_FILES_PER_PROCESS = 20_000
_NO_ARRAY = (FileNotFoundError, EOFError, ValueError)


def cached_images(
    dataset: Dataset,
    rows: pd.DataFrame,
    image_size: int,
    folder: Path,
    progress: Progress | None = None,
    zooms: Sequence[Zoom] | None = None,
) -> NDArray[Any]:
    """The images of some cases as a read-only memory map (N, image_size, image_size, C).

    Args:
        dataset: where the files are and how many channels are wanted.
        rows: rows of `dataset.cases`, in the order wanted.
        image_size: side of the square each image is fitted into, pixels.
        folder: where caches lie; a cache of the same content is reused.
        progress: called with (done, total).
        zooms: of each image, see `dxseg.data.geometry.fit_geometry`.

    Returns:
        uint8 or uint16, as the files are.

    Raises:
        DxsegError: a file is unreadable, or 8-bit and 16-bit images are mixed.
    """
    paths = [dataset.image_path(row) for row in rows.itertuples()]
    channels = dataset.spec.channels
    content = {"images": _digests(paths), "size": image_size, "channels": channels}
    read = partial(_read_image, channels=channels, image_size=image_size)
    path = folder / f"images-{_key(content, zooms)}.npy"
    return _memory_map(path, read, _sources(paths, zooms), progress)


def cached_masks(
    dataset: Dataset,
    rows: pd.DataFrame,
    image_size: int,
    folder: Path,
    zooms: Sequence[Zoom] | None = None,
    *,
    soft: bool = False,
) -> NDArray[np.uint8]:
    """The masks of some cases as a read-only memory map (N, image_size, image_size).

    Cases without a mask file get an empty mask: pass only those whose mask is known.

    Returns:
        Label maps, 0 for background, 1..K for the mask classes; if `soft`, how much of a pixel each
        class covers, in 255ths, (N, K, image_size, image_size).
    """
    classes = len(dataset.spec.mask_classes)
    paths = [dataset.mask_path(row) for row in rows.itertuples()]
    content = {"masks": _digests(paths), "size": image_size, "classes": classes}
    content |= {"soft": True} if soft else {}
    fit = fit_soft_mask if soft else fit_mask
    read = partial(_read_mask, fit=fit, classes=classes, image_size=image_size)
    path = folder / f"masks-{_key(content, zooms)}.npy"
    return _memory_map(path, read, _sources(paths, zooms), None)


def _key(content: dict[str, Any], zooms: Sequence[Zoom] | None) -> str:
    """Without zooms, that of versions which knew none."""
    zoomed = {} if zooms is None else {"zooms": list(zooms)}
    return sha256_json({"format": _FORMAT, **content, **zoomed})[:32]


def _sources(paths: Sequence[Path | None], zooms: Sequence[Zoom] | None) -> list[Source]:
    unzoomed: list[Zoom | None] = [None] * len(paths)
    return list(zip(paths, zooms or unzoomed, strict=True))


def _digests(paths: Sequence[Path | None]) -> list[str]:
    """Identify the files: local ones by their content, others by what their server reports."""
    digests = [""] * len(paths)
    remote = {row: path for row, path in enumerate(paths) if isinstance(path, RemotePath)}
    for row, version in zip(remote, versions(list(remote.values())), strict=True):
        digests[row] = version
    local = [row for row in range(len(paths)) if row not in remote]
    work = parallel_map(
        _digest, [paths[row] for row in local], min_items_per_process=MIN_FILES_PER_PROCESS
    )
    for place, digest in work:
        digests[local[place]] = digest
    return digests


# Called in other processes too, so they stand alone.


def _digest(path: Path | None) -> str:
    return "" if path is None else sha256_file(path)


def _read_image(source: Source, *, channels: int, image_size: int) -> bytes:
    path, zoom = source
    assert path is not None, "every case has an image"
    return _pack(fit_image(to_channels(read_image(path), channels), image_size, zoom)[0])


def _read_mask(
    source: Source, *, fit: Callable[..., NDArray[Any]], classes: int, image_size: int
) -> bytes:
    path, zoom = source
    mask = np.zeros((1, 1), np.uint8) if path is None else read_mask(path, classes)
    return _pack(fit(mask, image_size, classes, zoom))


def _pack(array: NDArray[Any]) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return stream.getvalue()


def _memory_map(
    path: Path,
    read: Callable[[Source], bytes],
    sources: Sequence[Source],
    progress: Progress | None,
) -> NDArray[Any]:
    """Open the array at `path`; write it first if it is absent or damaged."""
    if not sources:
        raise DxsegError(f"{path.parent}: no cases to cache; the split leaves none for training")
    with suppress(*_NO_ARRAY):  # before a lock is asked for: the folder may be read-only
        return _open(path)
    with wait_for_lock(path):
        with suppress(*_NO_ARRAY):  # another process has made it meanwhile
            return _open(path)
        decoded = path.with_name(f".{path.stem}.sqlite")
        with SqliteCache(decoded) as store:
            _decode(store, read, sources, progress)
            _write(path, store, sources)
        decoded.unlink()
        return _open(path)


def _open(path: Path) -> NDArray[Any]:
    array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    return array


def _decode(
    store: SqliteCache,
    read: Callable[[Source], bytes],
    sources: Sequence[Source],
    progress: Progress | None,
) -> None:
    """Decode what an earlier attempt has not; the name of the array identifies the content."""
    waiting = store.missing(_rows(sources))
    done = len(sources) - len(waiting)
    if progress is not None and done:
        progress(done, len(sources))
    work = parallel_map(
        read, [sources[row] for row in waiting], min_items_per_process=MIN_IMAGES_PER_PROCESS
    )
    for place, record in work:
        store.put(str(waiting[place]), record)
        done += 1
        if progress is not None:
            progress(done, len(sources))


def _rows(sources: Sequence[Source]) -> list[str]:
    return [str(row) for row in range(len(sources))]


def _write(path: Path, store: SqliteCache, sources: Sequence[Source]) -> None:
    """Write one item at a time; the file gets its name when it is complete."""
    items = (
        np.load(io.BytesIO(record), allow_pickle=False) for record in store.read(_rows(sources))
    )
    first = next(items)
    header = {
        "descr": first.dtype.str,
        "fortran_order": False,
        "shape": (len(sources), *first.shape),
    }
    # Not through a memory map: on a full disk that ends the process with a bus error.
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        np.lib.format.write_array_header_1_0(stream, header)
        for row, item in enumerate(chain([first], items)):
            _check_depth(sources[row], item.dtype, first.dtype)
            stream.write(item.tobytes())


def _check_depth(source: Source, found: np.dtype[Any], before: np.dtype[Any]) -> None:
    if found != before:
        raise DxsegError(
            f"{source[0]}: {found} where the cases before are {before}; a dataset holds 8-bit or "
            "16-bit images, not both: convert one kind"
        )

"""Write decoded and resized images as shards, see `dxseg.data.batches.shards`.

A shard is made in memory and put where it belongs when it is whole: no local disk is needed. A job
that is killed goes on with the shards that are not finished.
"""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import ValidationError

from dxseg.data.batches.pixel_cache import (
    MIN_IMAGES_PER_PROCESS,
    ImageFiles,
    Progress,
    check_depth,
    image_files,
)
from dxseg.data.batches.shards import (
    MANIFEST,
    Manifest,
    Shard,
    ShardedImages,
    file_system,
    reaching,
    shard_name,
)
from dxseg.data.table.dataset import Dataset
from dxseg.errors import DxsegError, UsageError
from dxseg.io.atomic import write_bytes_atomic
from dxseg.io.file_lock import claimed
from dxseg.io.parallel import parallel_map

SHARD_BYTES = 64 * 2**20
"""Of a shard, unless one image is larger."""


def sharded_images(
    dataset: Dataset,
    rows: pd.DataFrame,
    image_size: int,
    url: str,
    folder: Path,
    room: int,
    progress: Progress | None = None,
) -> ShardedImages:
    """The images of some cases, as `pixel_cache.cached_images` returns them, in shards.

    Those that are not there are decoded; so are those that were damaged and removed.

    Args:
        dataset: Where the files are and how many channels are wanted.
        rows: Rows of ``dataset.cases``, in the order wanted.
        image_size: Side of the square each image is fitted into, pixels.
        url: A folder, or an address that fsspec knows: where all shards lie.
        folder: On the local disk, where caches lie.
        room: Bytes at most that shards take of the local disk.
        progress: Called with (done, total) after each shard.

    Raises:
        DxsegError: A file is unreadable, 8-bit and 16-bit images are mixed, the manifest is
            damaged, or the address cannot be reached.
        UsageError: The address is not understood, or there is room for less than two shards.
    """
    files = image_files(dataset, rows, image_size)
    if not files.paths:
        raise DxsegError(f"{url}: no cases to keep; the split leaves none for training")
    place = f"{url.rstrip('/')}/{files.name}"
    with claimed(folder / files.name):
        manifest = _read_manifest(place) or _new_manifest(files)
        _check_room(manifest, room)
        _write_missing(manifest, files, place, progress)
    # Another name, should both lie in one folder.
    return ShardedImages(place, manifest, folder / f"fetched-{files.name}", room)


def _read_manifest(url: str) -> Manifest | None:
    files, place = file_system(url)
    try:
        with reaching(url):
            content = files.cat_file(f"{place}/{MANIFEST}")
        return Manifest.model_validate_json(content)
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise DxsegError(
            f"{url}/{MANIFEST}: not a manifest of shards ({error.errors()[0]['msg']}); restore it, "
            "or remove it to have all images decoded again"
        ) from error


def _new_manifest(files: ImageFiles) -> Manifest:
    first = files.read(files.paths[0])
    height, width, channels = first.shape
    return Manifest(
        shape=(len(files.paths), height, width, channels),
        dtype="uint8" if first.dtype == np.uint8 else "uint16",
        rows=max(1, SHARD_BYTES // first.nbytes),
        shards={},
    )


def _check_room(manifest: Manifest, room: int) -> None:
    needed = 2 * manifest.shard_bytes  # one that is read, and one of the window that follows
    if room < needed:
        raise UsageError(
            f"data.shards_local_gib {room / 2**30:.3g}: holds less than two shards; allow "
            f"{math.ceil(needed / 2**30 * 1000) / 1000} or more"
        )


def _write_missing(
    manifest: Manifest, files: ImageFiles, url: str, progress: Progress | None
) -> None:
    total = len(files.paths)
    finished = _names_at(url) & set(manifest.shards)
    missing = [
        _Piece(f"{url}/{name}", files.paths[number * manifest.rows : (number + 1) * manifest.rows])
        for number, name in enumerate(map(shard_name, range(manifest.count)))
        if name not in finished
    ]
    done = total - sum(len(piece.paths) for piece in missing)
    if progress is not None and done and missing:
        progress(done, total)
    write = partial(_write, read=files.read, dtype=manifest.dtype)
    worth = max(1, MIN_IMAGES_PER_PROCESS // manifest.rows)
    for place, shard in parallel_map(write, missing, worth=worth, chunk=1):
        manifest.shards[missing[place].name] = shard
        _put(f"{url}/{MANIFEST}", manifest.model_dump_json(indent=1).encode())
        done += len(missing[place].paths)
        if progress is not None:
            progress(done, total)


def _names_at(url: str) -> set[str]:
    files, place = file_system(url)
    files.invalidate_cache()  # other processes have written
    try:
        with reaching(url):
            return {PurePosixPath(path).name for path in files.ls(place, detail=False)}
    except FileNotFoundError:
        return set()


@dataclass(frozen=True)
class _Piece:
    """A shard that is to be written, and of which files."""

    url: str
    paths: list[Path]

    @property
    def name(self) -> str:
        return PurePosixPath(self.url).name


# Called in other processes too, so it stands alone.


def _write(piece: _Piece, *, read: Callable[[Path], NDArray[Any]], dtype: str) -> Shard:
    stream = io.BytesIO()
    for path in piece.paths:
        image = read(path)
        check_depth(path, image.dtype, np.dtype(dtype))
        if path is piece.paths[0]:
            shape = (len(piece.paths), *image.shape)
            header = {"descr": image.dtype.str, "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(stream, header)
        stream.write(image.tobytes())
    data = stream.getvalue()
    _put(piece.url, data)
    return Shard(sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))


def _put(url: str, data: bytes) -> None:
    """Write a file that others see when it is whole; stores of objects do that by themselves."""
    from fsspec.implementations.local import LocalFileSystem

    files, place = file_system(url)
    with reaching(url):
        if isinstance(files, LocalFileSystem):
            write_bytes_atomic(place, data)
        else:
            files.makedirs(place.rsplit("/", 1)[0], exist_ok=True)
            files.pipe_file(place, data)

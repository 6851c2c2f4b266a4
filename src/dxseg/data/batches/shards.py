"""Images that do not fit a disk: pieces of their array, fetched when asked for.

The pieces, called shards, lie in a folder or at any address that fsspec knows. What is fetched is
kept on the local disk, up to a bound, for all processes of this machine.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, PositiveInt

from dxseg.errors import DxsegError, UsageError
from dxseg.io.atomic import atomic_path, sha256_file
from dxseg.io.file_lock import claimed

MANIFEST = "manifest.json"

_HEADER = 1024
"""Bytes, more than what a .npy file has besides its pixels."""


class Shard(BaseModel):
    """What is known of a finished shard: the digest of its file, and its size in bytes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sha256: str
    bytes: PositiveInt


class Manifest(BaseModel):
    """``manifest.json`` beside the shards.

    Attributes:
        shape: Of the array that the shards are pieces of, (N, S, S, C).
        dtype: Of its pixels.
        rows: Images in every shard but the last, which may have fewer.
        shards: The finished ones, by the names of their files.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    shape: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt]
    dtype: Literal["uint8", "uint16"]
    rows: PositiveInt
    shards: dict[str, Shard]

    @property
    def count(self) -> int:
        """How many shards there are to be."""
        return -(-self.shape[0] // self.rows)

    @property
    def image_bytes(self) -> int:
        """Of one image."""
        return prod(self.shape[1:]) * np.dtype(self.dtype).itemsize

    @property
    def shard_bytes(self) -> int:
        """Of the file of one shard, at most."""
        return self.rows * self.image_bytes + _HEADER


@dataclass(frozen=True)
class ShardedImages:
    """To :class:`dxseg.data.batches.loader.CaseDataset` what the memory map of all images is.

    Processes that share ``folder`` share what they fetch. A shard is opened for one reading and not
    held or mapped: the space of a file that another process drops would stay taken.

    Attributes:
        url: Where the shards and their manifest lie.
        manifest: All of them are finished.
        folder: On the local disk, for nothing else.
        room: Bytes at most in it, at least two shards.
    """

    url: str
    manifest: Manifest
    folder: Path
    room: int

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, S, S, C)."""
        return self.manifest.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """uint8 or uint16."""
        return np.dtype(self.manifest.dtype)

    def __getitem__(self, row: int) -> NDArray[Any]:
        """One image (S, S, C), read-only.

        Raises:
            IndexError: There is no such row.
            DxsegError: Its shard is not found, damaged, or cannot be fetched.
        """
        if not 0 <= row < self.shape[0]:
            raise IndexError(f"row {row} of {self.shape[0]}")
        number, place = divmod(int(row), self.manifest.rows)
        follow = min(self.manifest.rows, self.shape[0] - int(row) + place) - place
        size = self.manifest.image_bytes
        with self._open(shard_name(number)) as stream:
            stream.seek(-follow * size, os.SEEK_END)  # what precedes all pixels varies
            pixels = stream.read(size)
        image: NDArray[Any] = np.frombuffer(pixels, self.dtype).reshape(self.shape[1:])
        return image

    def window(self, parts: int = 1) -> int:
        """How many shards to draw from at a time, in each of so many parts of a batch.

        Half of those that fit, so that the next ones have room while these are still in use.
        """
        return max(1, self.room // self.manifest.shard_bytes // (2 * parts))

    def shards_of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The number of the shard that each row lies in."""
        return rows // self.manifest.rows

    def _open(self, name: str) -> BinaryIO:
        path = self.folder / name
        try:
            stream = path.open("rb")
        except FileNotFoundError:
            with claimed(self.folder):
                if not path.is_file():  # another process may have fetched it meanwhile
                    self._make_room(self.manifest.shards[name].bytes)
                    self._fetch(name)
                stream = path.open("rb")  # before another process drops it
        now = time.time_ns()
        with suppress(FileNotFoundError):
            os.utime(path, ns=(now, now))
        return stream

    def _make_room(self, needed: int) -> None:
        """Drop what was used least lately, and halves that a killed process has left."""
        self.folder.mkdir(exist_ok=True)
        for half in self.folder.glob(".*.npy"):
            half.unlink()
        kept = [(path.stat(), path) for path in self.folder.glob("*.npy")]
        taken = sum(status.st_size for status, _ in kept)
        for status, path in sorted(kept, key=lambda entry: entry[0].st_mtime_ns):
            if taken + needed <= self.room:
                break
            path.unlink()
            taken -= status.st_size

    def _fetch(self, name: str) -> None:
        source = f"{self.url}/{name}"
        # Not kept: some file systems of fsspec do not survive the start of a worker.
        files, place = file_system(self.url)
        with atomic_path(self.folder / name) as temporary:
            try:
                with reaching(source):
                    files.get_file(f"{place}/{name}", str(temporary))
            except FileNotFoundError as error:
                raise DxsegError(
                    f"{source}: not found, though {MANIFEST} lists it; restore it, or run the same "
                    "command again, which decodes its images"
                ) from error
            if sha256_file(temporary) != self.manifest.shards[name].sha256:
                raise DxsegError(
                    f"{source}: damaged, its content is not what {MANIFEST} says; remove it and "
                    "run the same command again, which decodes its images"
                )


def shard_name(number: int) -> str:
    """The name of the file of a shard."""
    return f"{number:05}.npy"


Images = NDArray[Any] | ShardedImages
"""(N, S, S, C) of stored images: a memory map, or shards of it."""


def file_system(url: str) -> tuple[Any, str]:
    """The file system of fsspec behind an address, and the path there.

    Raises:
        UsageError: The address is not understood, or needs a package that is not installed.
    """
    from fsspec.core import url_to_fs

    try:
        files, place = url_to_fs(url)
    except (ValueError, ImportError) as error:
        raise UsageError(
            f"data.shards {url}: {error}; name a folder, or an address that fsspec knows and whose "
            "package is installed"
        ) from error
    return files, place


@contextmanager
def reaching(url: str) -> Iterator[None]:
    """Tell what went wrong at an address.

    Raises:
        FileNotFoundError: It does not exist.
        DxsegError: Anything else.
    """
    try:
        yield
    except FileNotFoundError:
        raise
    except Exception as error:  # every file system of fsspec has errors of its own
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise DxsegError(
            f"{url}: cannot be reached ({reason}); the same command goes on when it can"
        ) from error

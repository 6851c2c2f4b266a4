"""The volumes that readers have open, within a budget of memory; the oldest ones are closed."""

from __future__ import annotations

import secrets
import shutil
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dxseg.data.readers.slicing import Slicing
from dxseg.errors import DxsegError
from dxseg.server.slice_stacks import SliceStack


class UnknownVolumeError(DxsegError):
    """No such volume is open (any more)."""


@dataclass(frozen=True)
class OpenVolume:
    """A volume that is open.

    Attributes:
        key: Its random name.
        slices: What is scrolled.
        folder: Private folder with its files.
        slicing: Rule of the model by which it was sliced.
        predicted: Masks by model and slice, without a label prompt; kept so that a label map that
            took too long goes on where it stopped.
    """

    key: str
    slices: SliceStack
    folder: Path
    slicing: Slicing | None
    predicted: dict[tuple[str, int], NDArray[np.uint8]] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        """Memory that it takes at most, with a mask for each slice."""
        return self.slices.nbytes + int(np.prod(self.slices.shape))

    def keep(self, model: str, index: int, mask: NDArray[np.uint8]) -> None:
        """Keep a predicted mask; those of another model are dropped.

        Args:
            model: Name of the model.
            index: Of the slice.
            mask: (H, W).
        """
        if self.predicted and next(iter(self.predicted))[0] != model:
            self.predicted.clear()
        self.predicted[model, index] = mask

    def kept(self, model: str) -> dict[int, NDArray[np.uint8]]:
        """Masks of a model by slice.

        Args:
            model: Its name.
        """
        now = list(self.predicted.items())  # at once: other threads keep masks meanwhile
        return {index: mask for (name, index), mask in now if name == model}


class VolumeStore:
    """Keeps volumes by random names; threads may share one."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        """Start without volumes.

        Args:
            folder: Private folder for the files.
            max_bytes: Memory of all volumes together; one alone may take more, by its masks.
        """
        self._folder, self._max_bytes = folder, max_bytes
        self._lock, self._reading = threading.Lock(), threading.Lock()
        self._open: dict[str, OpenVolume] = {}

    def new_folder(self) -> Path:
        """Make a folder for the files of one upload; the caller removes it if reading fails."""
        return Path(tempfile.mkdtemp(dir=self._folder))

    def add(
        self, folder: Path, slicing: Slicing | None, read: Callable[[], SliceStack]
    ) -> OpenVolume:
        """Read and keep a volume; one at a time is read, so that memory stays bounded.

        Args:
            folder: With its files, from `new_folder`.
            slicing: Rule of the model.
            read: Reads it.
        """
        with self._reading:
            opened = OpenVolume(secrets.token_urlsafe(16), read(), folder, slicing)
        with self._lock:
            self._open[opened.key] = opened
            while len(self._open) > 1 and self._taken > self._max_bytes:
                closed = self._open.pop(next(iter(self._open)))
                shutil.rmtree(closed.folder, ignore_errors=True)
        return opened

    def get(self, key: str, slicing: Slicing | None) -> OpenVolume:
        """Find a volume; it is now the newest.

        Args:
            key: Its name, from `add`.
            slicing: Rule of the model that is to predict it.

        Raises:
            UnknownVolumeError: It is not open, or was sliced for another model.
        """
        with self._lock:
            found = self._open.pop(key, None)
            if found is None or found.slicing != slicing:
                raise UnknownVolumeError("the volume is no longer open here; send it again")
            self._open[key] = found
        return found

    @property
    def _taken(self) -> int:
        return sum(volume.nbytes for volume in self._open.values())

"""Uploads: stored in a private folder while they are in use, checked before they are decoded."""

from __future__ import annotations

import os
import secrets
import shutil
import stat
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from filelock import FileLock, Timeout

from dxseg.data.readers.budget import TooLargeError
from dxseg.data.readers.dicom.headers import alias_in_errors, pixel_spacing
from dxseg.data.readers.dicom.objects import is_dicom, open_object
from dxseg.data.readers.images import image_size

NAME = "the upload"
"""Name of an upload in messages: its own may contain a patient's name."""

Spacing = tuple[float, float]

_PREFIX, _LOCK = "dxseg-serve-", "lock"


@dataclass(frozen=True)
class Upload:
    """An uploaded image.

    Attributes:
        path: Its file.
        is_dicom: Whether it is DICOM; else PNG, JPEG, TIFF or BMP.
        spacing: Height and width of a pixel in millimeters, where the file has it.
    """

    path: Path
    is_dicom: bool
    spacing: Spacing | None


class UploadDir:
    """A folder for uploads, readable by the owner of this process only, removed on close.

    A killed server cannot remove its folder: the next one does, because nobody holds its lock.
    """

    def __init__(self) -> None:
        """Create it, and remove those left by killed servers of the same user."""
        for left in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
            _remove_if_left(left)
        while True:
            self._folder = tempfile.TemporaryDirectory(prefix=_PREFIX)
            self.path = Path(self._folder.name)
            self._lock = FileLock(self.path / _LOCK)
            try:
                self._lock.acquire(timeout=0)
            except (Timeout, FileNotFoundError):
                continue  # another server that starts now has removed it
            return

    def close(self) -> None:
        """Remove the folder and its files."""
        self._lock.release()
        self._folder.cleanup()


def _remove_if_left(folder: Path) -> None:
    with suppress(OSError, Timeout):
        status = folder.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
            return
        if (folder / _LOCK).is_file():
            with FileLock(folder / _LOCK, timeout=0):
                shutil.rmtree(folder)


def save_upload(stream: IO[bytes], folder: Path) -> Path:
    """Write an upload to a file with a random name.

    Args:
        stream: Its bytes, read from the current position.
        folder: Private folder for the file.
    """
    # A suffix that the readers support; the content decides when the file is opened.
    path = folder / f"{secrets.token_hex(16)}.png"
    with path.open("xb") as target:
        shutil.copyfileobj(stream, target, 1 << 20)
    return path.rename(path.with_suffix(".dcm")) if is_dicom(path) else path


def inspect_upload(path: Path, max_pixels: int) -> Upload:
    """Read an image's header, within the budget of decoded bytes of the context.

    Args:
        path: From `save_upload`.
        max_pixels: Limit of height times width.

    Raises:
        TooLargeError: It is larger.
        DxsegError: It cannot be read as an image.
    """
    with alias_in_errors(path, NAME):
        check_pixels(str(path), image_size(path), max_pixels)
        dicom = path.suffix == ".dcm"
        spacing = pixel_spacing(open_object(path)) if dicom else None
    return Upload(path, dicom, None if spacing is None else (spacing[0], spacing[1]))


def check_pixels(name: str, size: tuple[int, int], max_pixels: int) -> None:
    """Check the size of an image.

    Args:
        name: Its name in messages.
        size: Height and width.
        max_pixels: Limit of their product.

    Raises:
        TooLargeError: It has more.
    """
    height, width = size
    if height * width > max_pixels:
        raise TooLargeError(
            f"{name}: {height} x {width} pixels; expected at most {max_pixels}; crop it or make it "
            "smaller"
        )

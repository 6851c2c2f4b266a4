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

from dxseg.data.geometry import Spacing
from dxseg.data.readers.budget import TooLargeError
from dxseg.data.readers.dicom.headers import alias_in_errors
from dxseg.data.readers.dicom.objects import is_dicom, open_object, pixel_layout
from dxseg.data.readers.images import image_size, image_spacing
from dxseg.data.readers.volume_files import is_volume_file
from dxseg.errors import DxsegError

NAME = "the upload"
"""Name of an upload in messages: its own may contain a patient's name."""

_NIFTI_HEADER, _GZIP = 348, b"\x1f\x8b"
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


class VolumeError(DxsegError):
    """An upload is a volume or has several frames, where one image was expected."""


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
    return path.rename(path.with_suffix(_suffix(path)))


def _suffix(path: Path) -> str:
    """The suffix of an upload, by its first bytes."""
    if is_dicom(path):
        return ".dcm"
    with path.open("rb") as stream:
        start = stream.read(_NIFTI_HEADER)
    if start.startswith(_GZIP):
        return ".nii.gz"
    if start[344:348] == b"n+1\0" or start[4:8] == b"n+2\0":
        return ".nii"
    if start.startswith(b"NRRD000"):
        return ".nrrd"
    return ".mha" if b"ObjectType" in start.partition(b"\n")[0] or b"NDims" in start else ".png"


def inspect_upload(path: Path, max_pixels: int) -> Upload:
    """Read an image's header, within the budget of decoded bytes of the context.

    Args:
        path: From `save_upload`.
        max_pixels: Limit of height times width.

    Raises:
        TooLargeError: It is larger.
        VolumeError: It is a volume, or has several frames.
        DxsegError: It cannot be read as an image.
    """
    with alias_in_errors(path, NAME):
        if is_volume_file(path) or (path.suffix == ".dcm" and count_frames(path) > 1):
            raise VolumeError(
                f"{NAME}: a volume or several frames; expected one image; open it on the page, "
                "send it to /v1/volumes, or use `dxseg predict`"
            )
        check_pixels(str(path), image_size(path), max_pixels)
        return Upload(path, path.suffix == ".dcm", image_spacing(path))


def count_frames(path: Path) -> int:
    """Count the frames of a DICOM object.

    Args:
        path: The file.

    Raises:
        DxsegError: It is damaged or has no pixels.
    """
    return pixel_layout(open_object(path), path).frames


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

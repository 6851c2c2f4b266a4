"""Atomic writes and content digests.

A killed process leaves the old file or the new one, never part of one. It is our own because
libraries for this (atomicwrites is no longer maintained) neither keep the suffix of the temporary
file, from which image writers choose the format, nor flush the folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from dxseg.io.remote import as_path

_BLOCK = 1 << 20


@contextmanager
def atomic_path(path: str | Path, *, flush: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside `path` that replaces it when the block ends without an error.

    The temporary name keeps the suffix of `path`, because image and table writers choose the
    format from it. Missing parent folders are created.

    Args:
        path: The file to write. A folder in its place is an error of the operating system.
        flush: Wait until the file is on the disk. Without it a killed process still leaves no
            partial file, but a power cut may leave an empty one; for thousands of files that can
            be written again.

    Yields:
        A path in the same folder that does not exist yet; the block must create a file there.

    Raises:
        FileNotFoundError: The block has not written the file.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    # The leading dot hides leftovers of a killed process from globs; the random part keeps two
    # writers apart; the cut keeps names of four-byte characters below the usual 255 bytes.
    temporary = target.parent / f".{target.stem[:32]}.{secrets.token_hex(6)}{target.suffix}"
    try:
        yield temporary
        if flush:
            replace_durably(temporary, target)
        else:
            temporary.replace(target)
    except OSError as error:
        if error.filename is None:  # a full disk does not name the file
            error.filename = str(target)
        raise
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()


def replace_durably(temporary: Path, target: Path) -> None:
    """Rename a finished file over another, and wait until the disk has both changes.

    Args:
        temporary: The finished file, in the folder of `target`.
        target: Its new name; a file of that name is replaced.
    """
    _flush(temporary)
    temporary.replace(target)
    _flush_folder(target.parent)


def write_bytes_atomic(path: str | Path, data: bytes) -> None:
    """Write bytes so that readers see the old content or all of the new.

    Args:
        path: The file to write; missing parent folders are created.
        data: Its whole content.
    """
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_text_atomic(path: str | Path, text: str) -> None:
    """Write text as UTF-8, line ends as they are; readers see the old content or all of the new.

    Args:
        path: The file to write; missing parent folders are created.
        text: Its whole content.
    """
    write_bytes_atomic(path, text.encode("utf-8"))


def write_json_atomic(path: str | Path, obj: Any) -> None:
    """Write an object as indented JSON with a final line end.

    Args:
        path: The file to write; missing parent folders are created.
        obj: Anything that `json` can write.

    Raises:
        ValueError: A number is NaN or infinite, which JSON does not have.
        TypeError: A value has no JSON form.
    """
    write_text_atomic(path, json.dumps(obj, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def sha256_file(path: str | Path) -> str:
    """Compute the SHA-256 of a file's content in constant memory.

    Args:
        path: The file to read.

    Returns:
        64 lower-case hexadecimal digits.
    """
    digest = hashlib.sha256()
    with as_path(path).open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def sha256_json(obj: Any) -> str:
    """Compute the SHA-256 of an object's canonical JSON (sorted keys, no blanks).

    Args:
        obj: Anything that `json` can write, without NaN or infinities.

    Returns:
        64 lower-case hexadecimal digits.
    """
    text = json.dumps(obj, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def preallocate(file: Path | int, size: int) -> None:
    """Allocate the disk space that a memory map will write to.

    Without it a full disk ends the process with a bus error, in the middle of an assignment.

    Args:
        file: A path, or the descriptor of an open file.
        size: In bytes.

    Raises:
        OSError: There is not enough space.
    """
    if not hasattr(os, "posix_fallocate"):
        return
    descriptor = file if isinstance(file, int) else os.open(file, os.O_WRONLY)
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError as error:
        raise OSError(
            error.errno, error.strerror, None if file is descriptor else str(file)
        ) from error
    finally:
        if file is not descriptor:
            os.close(descriptor)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _flush_folder(path: Path) -> None:
    # Without this the rename itself may be lost in a power cut. Some network file systems refuse
    # it; the file's content is safe all the same.
    with suppress(OSError):
        _flush(path)

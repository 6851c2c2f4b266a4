"""Locks between processes: one at a time in a folder, or at a file (filelock)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from dxseg.errors import DxsegError


@contextmanager
def exclusive_lock(output: Path, what: str, timeout: float = 0.0) -> Iterator[None]:
    """Lock a folder against other processes; a process that is killed releases the lock.

    The lock file is beside the folder, which may not exist yet, and is not removed.

    Args:
        output: The folder.
        what: Kind of work in the folder, for the error: "run", "experiment".
        timeout: Seconds to wait for another process, such as one that is about to end.

    Raises:
        DxsegError: Another process has the lock.
    """
    output = output.resolve()
    output.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(output.with_name(f".{output.name}.lock"), timeout=timeout):
            yield
    except Timeout as error:
        raise DxsegError(
            f"{output}: another process is using this {what}; wait until it ends, or stop it"
        ) from error


@contextmanager
def wait_for_lock(path: Path) -> Iterator[None]:
    """Wait until no other process writes the same file or folder, then lock it.

    Args:
        path: File or folder to write; its parents are created. The lock file is beside it, and is
            not removed.

    Raises:
        DxsegError: The folder cannot be written to.
    """
    lock = FileLock(path.with_name(f".{path.stem}.lock"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        raise DxsegError(
            f"{path.parent}: decoded images cannot be stored here ({error.strerror or error}); set "
            "another folder with data.cache_dir"
        ) from error
    try:
        yield
    finally:
        lock.release()

"""One process at a time in a folder, or at a file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from dxseg.errors import DxsegError


@contextmanager
def exclusive_lock(output: Path, what: str, patience: float = 0.0) -> Iterator[None]:
    """Keep a second process out of a folder for a block; a process that is killed leaves it free.

    The lock lies beside the folder, which may not exist yet, and is left there.

    Args:
        output: The folder.
        what: Is done there: "run", "study".
        patience: Seconds to wait for another process, such as one that is about to end.

    Raises:
        DxsegError: Another process is in it.
    """
    output = output.resolve()
    output.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(output.with_name(f".{output.name}.lock"), timeout=patience):
            yield
    except Timeout as error:
        raise DxsegError(
            f"{output}: another process works on this {what}; wait for it, or end it"
        ) from error


@contextmanager
def wait_for_lock(path: Path) -> Iterator[None]:
    """Wait until no other process makes the same file or folder, for a block.

    Args:
        path: What is made; its parents are created. The lock lies beside it, and is left there.

    Raises:
        DxsegError: It cannot be made there.
    """
    lock = FileLock(path.with_name(f".{path.stem}.lock"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        raise DxsegError(
            f"{path.parent}: decoded images cannot be kept there ({error.strerror or error}); name "
            "another folder with data.cache_dir"
        ) from error
    try:
        yield
    finally:
        lock.release()

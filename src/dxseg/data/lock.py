"""One process at a time in a folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from dxseg.errors import DxsegError


@contextmanager
def alone(output: Path, what: str, patience: float = 0.0) -> Iterator[None]:
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

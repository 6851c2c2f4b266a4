"""The budget of decoded bytes: how much memory one file may take, whatever it claims.

It belongs to the context (`contextvars`), so that a server may set less than the command line
without a parameter through every reader.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from dxseg.errors import DxsegError

PIXEL_LIMIT = 2**28
"""Larger images are refused before they are decoded: a small file may claim any size."""

_budget: ContextVar[int] = ContextVar("decoded_bytes", default=2**31)


class TooLargeError(DxsegError):
    """An image takes more than the budget."""


@contextmanager
def decode_budget(max_bytes: int) -> Iterator[None]:
    """Limit what a file may take while the block runs.

    Args:
        max_bytes: Decoded bytes of a file at most: pixels x channels x depth.
    """
    token = _budget.set(max_bytes)
    try:
        yield
    finally:
        _budget.reset(token)


def decoded_limit() -> int:
    """The decoded bytes that a file may take now; without `decode_budget` 2 GiB."""
    return _budget.get()


def check_size(path: Path, height: int, width: int, pixel_bytes: int = 1) -> None:
    """Check that an image is not too large to decode, before memory is allocated.

    Args:
        path: The file named in the error.
        height: In pixels.
        width: In pixels.
        pixel_bytes: Bytes per pixel, all channels together.

    Raises:
        TooLargeError: It has more than `PIXEL_LIMIT` pixels, or more bytes than the budget.
    """
    limit = decoded_limit()
    if height * width > PIXEL_LIMIT or height * width * pixel_bytes > limit:
        raise TooLargeError(
            f"{path}: claims {height} x {width} pixels of {pixel_bytes} bytes; expected at most "
            f"{PIXEL_LIMIT} pixels and {limit} bytes; cut it into tiles"
        )

"""SIGTERM as an exception, for work that has to stop cleanly."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dxseg.errors import TerminatedError


def raise_terminated(*_: Any) -> None:
    """Handle a signal by raising `TerminatedError`."""
    raise TerminatedError


@contextmanager
def sigterm_raises() -> Iterator[None]:
    """Raise `TerminatedError` on SIGTERM; outside the main thread, which gets signals, nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        signal.signal(signal.SIGTERM, raise_terminated)
        yield
    finally:
        signal.signal(signal.SIGTERM, before)

"""Which cases are open in somebody's browser, so that two readers do not draw the same one."""

from __future__ import annotations

import threading
import time

_SECONDS = 15 * 60
_LIMIT = 1000


class Claims:
    """The last case that each reader opened, for a while; threads may share one.

    It is a hint: saving is guarded by the mask that was seen, not by this.
    """

    def __init__(self, seconds: float = _SECONDS) -> None:
        """Start without claims.

        Args:
            seconds: How long a case counts as open.
        """
        self._seconds = seconds
        self._lock = threading.Lock()
        self._open: dict[str, tuple[str, float]] = {}

    def claim(self, reader: str, case_id: str) -> None:
        """Note that a reader has opened a case, and no longer the one before.

        Args:
            reader: Random name of the browser's tab; "" is nobody.
            case_id: Of the case.
        """
        if not reader:
            return
        with self._lock:
            self._open.pop(reader, None)
            self._open[reader] = case_id, time.monotonic() + self._seconds
            if len(self._open) > _LIMIT:
                self._open.pop(next(iter(self._open)))

    def release(self, reader: str) -> None:
        """Note that a reader is done with a case.

        Args:
            reader: As in `claim`.
        """
        with self._lock:
            self._open.pop(reader, None)

    def others(self, reader: str) -> frozenset[str]:
        """The cases that other readers have open.

        Args:
            reader: Whose own case is left out.
        """
        now = time.monotonic()
        with self._lock:
            return frozenset(
                case_id
                for name, (case_id, until) in self._open.items()
                if name != reader and until > now
            )

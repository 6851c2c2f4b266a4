"""The process of a training, seen from the server: started, watched, killed."""

from __future__ import annotations

import os
import signal
import subprocess  # nosec B404: of one fixed command, without a shell
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from dxseg.io.atomic import write_text_atomic
from dxseg.server.retraining.job import FAILURE, read_job, read_progress
from dxseg.server.telemetry import LOGGER

_COMMAND = (sys.executable, "-P", "-m", "dxseg.server.retraining.process")
_LINES = 50


class TrainingProcess:
    """A process that trains; why it failed is written into the folder of its training."""

    def __init__(self, folder: Path, ended: Callable[[TrainingProcess], None]) -> None:
        """Start the process.

        Args:
            folder: Of the training.
            ended: Called in another thread when the process has ended, unless by `kill`.

        Raises:
            OSError: The system has no place for another process.
            DxsegError: The folder holds no training.
        """
        self._folder, self._ended, self._killed = folder, ended, False
        self._job = read_job(folder)
        self._first = read_progress(folder, self._job).fraction
        self._started = time.monotonic()
        threads = str(max(1, (os.cpu_count() or 1) // 2))  # the rest is for predictions
        self._process = subprocess.Popen(  # nosec B603: only the folder varies
            [*_COMMAND, str(folder)],
            stdin=subprocess.PIPE,  # its end tells the process that this one is gone
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads},
            start_new_session=True,  # Ctrl-C is for the server; and its own processes end with it
        )
        LOGGER.info("training started")
        threading.Thread(target=self._watch, daemon=True).start()

    def seconds_left(self) -> float | None:
        """Time to the end, by the pace since the start; None before there is one."""
        fraction = read_progress(self._folder, self._job).fraction
        if fraction <= self._first:
            return None
        elapsed = time.monotonic() - self._started
        return elapsed * (1 - fraction) / (fraction - self._first)

    def kill(self) -> None:
        """End the process at once: all that it writes is written atomically."""
        self._killed = True
        with suppress(ProcessLookupError):  # it has just ended
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _watch(self) -> None:
        assert self._process.stderr is not None
        last = deque(self._process.stderr, maxlen=_LINES)
        code = self._process.wait()
        LOGGER.info("training ended", extra={"fields": {"exit_code": code}})
        if self._killed:
            return
        if code:
            self._note_failure(code, [line.decode(errors="replace").strip() for line in last])
        self._ended(self)

    def _note_failure(self, code: int, lines: list[str]) -> None:
        reason = next((line for line in reversed(lines) if line), f"exit code {code}")
        if code == -signal.SIGKILL:
            reason = "the system killed it, most often for lack of memory; continue it"
        elif code < 0:
            reason = f"ended by {signal.Signals(-code).name}: {reason}; continue it"
        try:
            write_text_atomic(self._folder / FAILURE, reason + "\n")
        except OSError:  # such as of a full disk; it counts as cut off then
            LOGGER.exception("failure not noted")

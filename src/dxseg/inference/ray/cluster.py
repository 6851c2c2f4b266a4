"""Ray on this machine for the time of a call: quiet, with a token of its own, nothing left."""

from __future__ import annotations

import logging
import os
import secrets
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from types import FrameType

from dxseg.errors import DxsegError, TerminatedError, UsageError

_TRIES = 2
_AUTHENTICATION = {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"}


@contextmanager
def running_ray(cpus: int) -> Iterator[None]:
    """Start Ray, and stop it when the block ends; a Ray that this process has started is used.

    Args:
        cpus: How many of its CPUs Ray may give away.

    Raises:
        UsageError: It is not installed, or this program has imported it before without a token.
        DxsegError: It does not start.
    """
    import_ray()
    import ray

    if ray.is_initialized():
        yield
        return
    if not _AUTHENTICATION & os.environ.keys():
        raise UsageError(
            "Ray was imported before dxseg could give it a token, and without one anybody who "
            "reaches this machine could use it; leave `import ray` out, call ray.init() yourself, "
            "whose Ray is then used, or set RAY_AUTH_MODE in the environment"
        )
    # Not in Ray's usual /tmp/ray: others may read there, and its logs and what it moves out of
    # memory may name files. TMPDIR says where; sockets lie in it, so its path has to be short.
    with (
        tempfile.TemporaryDirectory(prefix="dxseg-", ignore_cleanup_errors=True) as folder,
        _sigterm_as_interrupt(),
        # Ray prints what happens to its processes; standard output is for results.
        redirect_stdout(sys.stderr),
    ):
        try:
            _start(cpus, folder)
            yield
        finally:
            ray.shutdown()


def import_ray() -> None:
    """Import Ray with what it reads of its environment then, having no arguments for it.

    Raises:
        UsageError: It is not installed.
    """
    # No statistics are sent.
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # Ray listens on all addresses of the machine. Who may talk to it has to show a token; it would
    # keep one in the home directory, for all Rays alike. It reads of it once, when it is imported.
    if "ray" not in sys.modules and not _AUTHENTICATION & os.environ.keys():
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    try:
        import ray.data  # noqa: F401
    except ModuleNotFoundError as error:
        raise UsageError(
            f"engine ray needs {error.name}, which is not installed; pip install 'dxseg[ray]'"
        ) from error


def _start(cpus: int, folder: str) -> None:
    import ray

    for tried in range(1, _TRIES + 1):
        try:
            ray.init(
                address="local",  # never a cluster that the environment names
                num_cpus=cpus,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                _temp_dir=folder,
            )
            return
        except Exception as error:  # Ray raises its own kinds and plain ones
            ray.shutdown()
            if tried == _TRIES:
                reason = str(error).strip().split("\n")[0]
                raise DxsegError(
                    f"Ray does not start on this machine ({reason}); try again when it is less "
                    "busy, or leave --engine ray out"
                ) from error


@contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """End in good order when a scheduler takes the machine away; Ray would end at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise TerminatedError

    before = signal.getsignal(signal.SIGTERM)
    try:
        signal.signal(signal.SIGTERM, stop)
        yield
    finally:
        signal.signal(signal.SIGTERM, before)

"""Run Ray on this machine during a call: quiet, with its own token, nothing left behind."""

from __future__ import annotations

import logging
import os
import secrets
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

from dxseg.errors import DxsegError, UsageError
from dxseg.io.signals import sigterm_raises

_TRIES = 2
_AUTHENTICATION = {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"}


@contextmanager
def running_ray(cpus: int) -> Iterator[None]:
    """Start Ray, and stop it when the block ends; a Ray that this process has started is used.

    Args:
        cpus: Number of CPUs that Ray may assign.

    Raises:
        UsageError: It is not installed, or was imported before without a token.
        DxsegError: It does not start.
    """
    import_ray()
    import ray

    if ray.is_initialized():
        yield
        return
    if not _AUTHENTICATION & os.environ.keys():
        raise UsageError(
            "Ray was imported before dxseg could set its token, and without one anybody who "
            "reaches this machine could use it; leave `import ray` out, call ray.init() yourself, "
            "or set RAY_AUTH_MODE in the environment"
        )
    # Not in Ray's usual /tmp/ray, which others may read: its logs and spilled objects may contain
    # file names. TMPDIR chooses the place; its path has to be short, because sockets lie in it.
    with (
        tempfile.TemporaryDirectory(prefix="dxseg-", ignore_cleanup_errors=True) as folder,
        sigterm_raises(),
        # Ray prints events of its processes; standard output is for results.
        redirect_stdout(sys.stderr),
    ):
        try:
            _start(cpus, folder)
            yield
        finally:
            ray.shutdown()


def import_ray() -> None:
    """Import Ray with the environment variables that it reads at import.

    Raises:
        UsageError: It is not installed.
    """
    # No statistics are sent.
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # Ray listens on all addresses of the machine, so clients need a token. By default it would keep
    # one in the home directory, shared by all clusters. It is read once, at import.
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
                address="local",  # never a cluster named in the environment
                num_cpus=cpus,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                _temp_dir=folder,
            )
            return
        except Exception as error:  # Ray raises its own types and plain ones
            ray.shutdown()
            if tried == _TRIES:
                reason = str(error).strip().split("\n")[0]
                raise DxsegError(
                    f"Ray does not start on this machine ({reason}); try again when it is less "
                    "busy, or leave --engine ray out"
                ) from error

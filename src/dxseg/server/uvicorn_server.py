"""The server's process: uvicorn on one socket; a signal stops it once all requests are handled."""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

import uvicorn

from dxseg.errors import DxsegError
from dxseg.inference.predictor import Predictor
from dxseg.server.app import create_app
from dxseg.server.case_queue import CaseQueue
from dxseg.server.retraining.trainer import Trainer
from dxseg.server.settings import Settings
from dxseg.server.telemetry import LOG_CONFIG

_CONNECTIONS = 512
"""Connections beyond it get 503: each takes one of the process's open files."""

_GRACE_SECONDS = 5
_LAST_SECONDS = 1.0
"""Time in which a server that stops still reads requests, to answer them with 503."""


def run_server(
    predictor: Predictor,
    settings: Settings,
    *,
    port: int,
    cases: CaseQueue | None = None,
    trainer: Trainer | None = None,
    ready: Callable[[str], None],
) -> None:
    """Serve a model until SIGTERM or SIGINT; requests accepted by then are handled.

    Args:
        predictor: Of the model.
        settings: Address, token and limits.
        port: To listen on; 0 for any that is free.
        cases: See `make_server`.
        trainer: See `make_server`.
        ready: Called with the server's address once it accepts connections.

    Raises:
        DxsegError: The address cannot be listened on.
    """
    listening = listen(settings.host, port)
    server = make_server(predictor, settings, cases=cases, trainer=trainer, log_config=LOG_CONFIG)
    ready(address(listening))
    server.run(sockets=[listening])


def make_server(
    predictor: Predictor,
    settings: Settings,
    *,
    cases: CaseQueue | None = None,
    trainer: Trainer | None = None,
    log_config: dict[str, Any] | None = None,
) -> uvicorn.Server:
    """Put the app into uvicorn.

    Args:
        predictor: Of the model to serve.
        settings: Address, token and limits.
        cases: Of the dataset that masks are saved into; default: none.
        trainer: Of that dataset; default: no training.
        log_config: For `logging.config.dictConfig`; None leaves logging as it is.
    """
    app = create_app(predictor, settings, cases=cases, trainer=trainer)
    config = uvicorn.Config(
        app,
        http="h11",
        ws="none",
        lifespan="on",
        log_config=log_config,
        access_log=False,
        server_header=False,
        # No client's own claim about its address is used.
        proxy_headers=False,
        limit_concurrency=_CONNECTIONS,
        timeout_graceful_shutdown=int(settings.upload_seconds + settings.seconds + _GRACE_SECONDS),
    )
    return _Server(config, app.state)


class _Server(uvicorn.Server):
    """Sets `stopping` in the app on a signal, and ends with exit code 0."""

    def __init__(self, config: uvicorn.Config, state: Any) -> None:
        super().__init__(config)
        self._state = state

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - as signal calls it
        """Stop accepting requests; a second Ctrl-C does not wait for those in flight.

        uvicorn's own method would raise the signal again at the end, so that a normal stop would
        look like a failure to a service manager.
        """
        self._state.stopping = True
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Read what has arrived before connections are closed, which would reset it unanswered."""
        until = time.monotonic() + _LAST_SECONDS
        while time.monotonic() < until and not self.force_exit:
            await asyncio.sleep(0.05)  # in several steps: what connects is read in the next one
        await super().shutdown(sockets)


def listen(host: str, port: int) -> socket.socket:
    """Open the listening socket.

    Args:
        host: A name, or an address of version 4 or 6.
        port: 0 for any that is free.

    Raises:
        DxsegError: It is taken, forbidden, or not of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=_CONNECTIONS)
    except (OSError, OverflowError) as error:
        raise DxsegError(
            f"{host}, port {port}: cannot listen there ({error}); choose another --port or --host"
        ) from error


def address(listening: socket.socket) -> str:
    """URL of a listening socket."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

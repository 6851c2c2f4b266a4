"""The server around a network that finds bright pixels: with a client, or listening."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from brightness import Maker
from browsing import Picture, chromium

pytest.importorskip("fastapi")

from starlette.testclient import TestClient

from dxseg.server.app import create_app
from dxseg.server.case_queue import CaseQueue
from dxseg.server.retraining.trainer import Trainer
from dxseg.server.settings import Settings
from dxseg.server.uvicorn_server import address, listen, make_server
from serving import TOKEN, Served, squares


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """The system's browser; where there is none, the test is skipped."""
    with chromium() as started:
        yield started


@pytest.fixture
def make_client(tmp_path: Path) -> Iterator[Callable[..., TestClient]]:
    """Start a server in this process; it is stopped after the test."""
    opened: list[TestClient] = []

    def make(
        settings: Settings | None = None,
        *,
        web: Path | None = None,
        dataset: Path | None = None,
        **model: Any,
    ) -> Any:
        model.setdefault("lesion_free", ("normal",))
        predictor = Maker()(**model)
        cases = None if dataset is None else CaseQueue(dataset, predictor.info)
        web = web or tmp_path / "no web"
        app = create_app(predictor, settings or Settings(), cases=cases, web=web)
        client = TestClient(app, base_url="http://localhost", raise_server_exceptions=False)
        opened.append(client.__enter__())
        return client

    yield make
    for client in opened:
        client.__exit__(None, None, None)


@pytest.fixture
def start_server() -> Iterator[Callable[..., Served]]:
    """Start a server whose network takes `pause` seconds a batch."""
    started: list[Served] = []

    def start(
        *,
        pause: float = 0.0,
        batch_size: int = 4,
        dataset: Path | None = None,
        trainer: Trainer | None = None,
        model: dict[str, Any] | None = None,
        port: int = 0,
        **settings: Any,
    ) -> Served:
        predictor = Maker()(lesion_free=("normal",), batch_size=batch_size, **(model or {}))
        outputs = predictor.backend.forward

        def slow(*arguments: Any) -> Any:
            time.sleep(pause)
            return outputs(*arguments)

        predictor.backend.forward = slow
        listening = listen("127.0.0.1", port)
        cases = None if dataset is None else CaseQueue(dataset, predictor.info)
        cases = cases if trainer is None else trainer.cases
        server = make_server(predictor, Settings(**settings), cases=cases, trainer=trainer)
        thread = threading.Thread(target=lambda: server.run(sockets=[listening]), daemon=True)
        thread.start()
        served = Served(address(listening), server, thread)
        started.append(served)
        return served

    yield start
    with pytest.MonkeyPatch.context() as patch:  # nobody asks any more
        patch.setattr("dxseg.server.uvicorn_server._LAST_SECONDS", 0.0)
        for served in started:
            served.stop()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return squares(tmp_path / "data").root


@pytest.fixture
def picture(browser: Any, start_server: Callable[..., Any], root: Path) -> Iterator[Picture]:
    """The page of a server with a dataset; nothing may go wrong in it."""
    served = start_server(dataset=root, token=TOKEN)
    opened = Picture.open(browser, f"{served.url}/#token={TOKEN}")
    yield opened
    # Of what the server refuses, as it should, the browser tells by itself.
    opened.close()

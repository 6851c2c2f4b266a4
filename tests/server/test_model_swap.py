"""Another model is served while requests are in flight: each ends with the one it began with."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from brightness import Maker
from dxseg.inference.predictor import Predictor
from dxseg.server.app import create_app
from dxseg.server.case_queue import CaseQueue
from dxseg.server.settings import Settings
from dxseg.server.worker import Worker
from serving import TOKEN, png, sent, squares, until

pytest.importorskip("fastapi")

from starlette.testclient import TestClient

OLD, NEW = "aa" * 32, "bb" * 32


class Held:
    """A model whose network waits until it may go on."""

    def __init__(self, digest: str) -> None:
        self.predictor = Maker()(batch_size=4, digest=digest, lesion_free=("normal",))
        self.may_go, self.waits = threading.Event(), threading.Event()
        outputs = self.predictor.backend.forward

        def waiting(*arguments: Any) -> Any:
            self.waits.set()
            assert self.may_go.wait(60)
            return outputs(*arguments)

        self.predictor.backend.forward = waiting  # type: ignore[method-assign]


@pytest.fixture
def new() -> Predictor:
    return Maker()(digest=NEW, lesion_free=("normal",))


@pytest.fixture
def old() -> Iterator[Held]:
    held = Held(OLD)
    yield held
    held.may_go.set()


def test_a_batch_never_mixes_models(old: Held, new: Predictor, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png())
    used: list[str] = []
    for predictor in (old.predictor, new):
        outputs = predictor.backend.forward

        def counted(
            *arguments: Any, outputs: Any = outputs, name: str = predictor.info.weights_sha256
        ) -> Any:
            used.append(name)
            return outputs(*arguments)

        predictor.backend.forward = counted  # type: ignore[method-assign]
    worker = Worker(20, 2**27)
    try:
        first = worker.submit(old.predictor, tmp_path / "a.png", "")
        assert old.waits.wait(60)
        order = [old.predictor, new, old.predictor, new, new]
        futures = [worker.submit(model, tmp_path / "a.png", "") for model in order]
        old.may_go.set()
        assert all(future.result(60).mask.any() for future in (first, *futures))
    finally:
        old.may_go.set()
        worker.stop()
    assert used == [OLD, OLD, NEW, OLD, NEW]


@pytest.fixture
def client(old: Held, tmp_path: Path) -> Iterator[TestClient]:
    cases = CaseQueue(squares(tmp_path / "data").root, old.predictor.info)
    app = create_app(old.predictor, Settings(token=TOKEN), cases=cases, web=tmp_path / "none")
    with TestClient(app, base_url="http://localhost") as opened:
        opened.headers["Authorization"] = f"Bearer {TOKEN}"
        yield opened


def in_thread(ask: Callable[[], Any]) -> Future[Any]:
    pool = ThreadPoolExecutor(1)
    future = pool.submit(ask)
    pool.shutdown(wait=False)
    return future


@pytest.mark.parametrize("route", ["/v1/predict", "/v1/cases/predict"])
def test_requests_in_flight_end_with_the_model_they_began_with(
    client: TestClient, old: Held, new: Predictor, route: str
) -> None:
    body = sent(png()) if route == "/v1/predict" else {"json": {"case_id": "case0"}}
    before = in_thread(lambda: client.post(route, **body))
    assert old.waits.wait(60)
    service = client.app.state.service  # type: ignore[attr-defined]
    service.model = new
    until(lambda: client.get("/v1/model").json()["model"] == NEW[:12])
    after = in_thread(lambda: client.post(route, **body))
    until(lambda: service.worker.in_flight == 2)
    old.may_go.set()
    assert before.result(60).json()["model"] == OLD[:12]
    assert after.result(60).json()["model"] == NEW[:12]


def test_a_mask_is_recorded_with_the_model_whose_prediction_was_corrected(
    client: TestClient, old: Held, new: Predictor
) -> None:
    old.may_go.set()
    seen = client.post("/v1/cases/predict", json={"case_id": "case0"}).json()
    client.app.state.service.model = new  # type: ignore[attr-defined]
    save = {"case_id": "case0", "role": "other", "mask": seen["mask"]["rle"], "previous": ""}
    saved = client.post("/v1/cases/mask", json={**save, "model": seen["model"]})
    assert saved.status_code == 200, saved.text
    history = client.get("/v1/cases/history", params={"case_id": "case0"}).json()["entries"]
    assert [entry["model"] for entry in history] == [OLD[:12]]
    wrong = client.post("/v1/cases/mask", json={**save, "model": "=cmd()"})
    assert wrong.status_code == 422

"""Training over HTTP: who may ask, what is answered when, and whose model predicts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi")

from starlette.testclient import TestClient

from brightness import Maker
from dxseg.server.app import create_app
from dxseg.server.settings import Settings
from retrained import COMPARED, FIRST, SECOND, Loop
from serving import TOKEN, png, sent, until

TRAINING, MODEL = "/v1/training", "/v1/training/model"


@pytest.fixture
def loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Loop:
    return Loop(tmp_path, monkeypatch)


@pytest.fixture
def client(loop: Loop, tmp_path: Path) -> Iterator[TestClient]:
    trainer = loop.trainer()
    predictor = Maker()(digest=FIRST, lesion_free=("normal",))
    app = create_app(
        predictor,
        Settings(token=TOKEN),
        cases=trainer.cases,
        trainer=trainer,
        web=tmp_path / "none",
    )
    with TestClient(app, base_url="http://localhost") as opened:
        opened.headers["Authorization"] = f"Bearer {TOKEN}"
        yield opened


def save(client: TestClient, case_id: str) -> None:
    runs = {"size": [48, 64], "counts": [48 * 32, 48, 48 * 31]}
    body = {"case_id": case_id, "role": "other", "mask": {"class0": runs}}
    assert client.post("/v1/cases/mask", json=body).status_code == 200


def state(client: TestClient) -> Any:
    return client.get(TRAINING).json()["state"]


def test_a_training_from_the_saved_mask_to_the_model_that_predicts(
    client: TestClient, loop: Loop
) -> None:
    assert client.get("/v1/model").json()["training"] is True
    refused = client.post(TRAINING)
    assert refused.status_code == 422
    assert "save some first" in refused.json()["detail"]
    save(client, "case1")
    assert client.get(TRAINING).json()["new_masks"] == 1
    begun = client.post(TRAINING)
    assert (begun.status_code, begun.json()["state"], begun.json()["masks"]) == (200, "running", 2)
    again = client.post(TRAINING)
    assert (again.status_code, again.json()["title"]) == (409, "Conflict")
    assert client.post("/v1/predict", **sent(png())).json()["model"] == FIRST[:12]
    loop.order("finish")
    until(lambda: state(client) == "done")
    offered = client.get(TRAINING).json()
    assert (offered["offered"]["model"], offered["comparison"]) == (SECOND[:12], COMPARED)
    assert client.post(MODEL, json={"model": "ffff"}).status_code == 409
    used = client.post(MODEL, json={"model": SECOND[:12]}).json()
    assert (used["state"], used["in_use"]["model"]) == ("idle", SECOND[:12])
    assert client.get("/v1/model").json()["model"] == SECOND[:12]
    assert client.post("/v1/predict", **sent(png())).json()["model"] == SECOND[:12]
    back = client.post(MODEL, json={"model": FIRST[:12]}).json()
    assert (back["in_use"]["model"], back["previous"]["model"]) == (FIRST[:12], SECOND[:12])
    assert client.post("/v1/predict", **sent(png())).json()["model"] == FIRST[:12]


def test_cancelling_removes_the_training_and_a_second_time_is_a_conflict(
    client: TestClient, loop: Loop
) -> None:
    save(client, "case1")
    client.post(TRAINING)
    assert client.delete(TRAINING).json()["state"] == "idle"
    assert list(loop.folder.glob("0*")) == []
    assert client.delete(TRAINING).status_code == 409


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", TRAINING), ("POST", TRAINING), ("DELETE", TRAINING), ("POST", MODEL)],
)
def test_only_with_the_token_and_not_from_another_site(
    client: TestClient, loop: Loop, method: str, path: str
) -> None:
    save(client, "case1")
    body = {"json": {"model": SECOND[:12]}} if path == MODEL else {}
    foreign = client.request(method, path, headers={"Origin": "http://evil.example"}, **body)
    assert foreign.status_code == 403
    wrong = client.request(method, path, headers={"Authorization": "Bearer wrong"}, **body)
    assert wrong.status_code == 401
    assert loop.starts() == {}


def test_the_reason_of_a_failure_does_not_name_the_folder(client: TestClient, loop: Loop) -> None:
    save(client, "case1")
    loop.order(f"fail {loop.root}/images/case1.png: damaged; copy it again")
    client.post(TRAINING)
    until(lambda: state(client) == "stopped")
    problem = client.get(TRAINING).json()["problem"]
    assert problem == "the dataset/images/case1.png: damaged; copy it again"
    loop.order("finish")
    assert client.post(TRAINING).json()["state"] == "running"
    until(lambda: state(client) == "done")
    assert client.delete(TRAINING).json()["state"] == "idle", "the offer is dropped"
    assert client.get(TRAINING).json()["in_use"]["model"] == FIRST[:12]


def test_stopping_the_server_ends_the_process_and_keeps_the_training(
    loop: Loop, tmp_path: Path
) -> None:
    loop.save("case1")
    trainer = loop.trainer()
    app = create_app(
        Maker()(digest=FIRST), Settings(token=TOKEN), cases=trainer.cases, trainer=trainer
    )
    with TestClient(app, base_url="http://localhost") as client:
        client.post(TRAINING, headers={"Authorization": f"Bearer {TOKEN}"})
        until(lambda: loop.starts() == {"0001": 1})
        process = trainer._running._process
    assert process.poll() is not None
    again = loop.trainer()
    assert (again.status().state, loop.starts()) == ("stopped", {"0001": 1})
    again.close()


def test_a_server_that_does_not_train_has_no_such_routes(make_client: Any) -> None:
    client = make_client()
    assert client.get("/v1/model").json()["training"] is False
    assert client.get(TRAINING).status_code == 404

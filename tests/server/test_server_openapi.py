"""The OpenAPI description against the server: whatever it allows is answered as it says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from hypothesis import HealthCheck, given, settings
from starlette.testclient import TestClient

from brightness import Maker
from dxseg.export.label_studio import labeling_config
from dxseg.server.app import create_app
from dxseg.server.case_queue import CaseQueue
from dxseg.server.settings import Settings
from retrained import Loop
from serving import TOKEN, png, sent, squares

pytestmark = pytest.mark.slow  # thousands of requests; what a route does has tests of its own
schemathesis = pytest.importorskip("schemathesis")
GenerationMode = schemathesis.GenerationMode

HEADERS = {"Host": "localhost", "Authorization": f"Bearer {TOKEN}"}
HEALTH = list(HealthCheck)
PATIENCE = 300
"""Seconds: a busy machine is no failure."""
RUNS = {"size": [48, 64], "counts": [0, 48, 48 * 63]}


# Those of a dataset exist only where one is served.
BARE = {
    ("POST", "/v1/predict"),
    ("POST", "/v1/volumes"),
    ("POST", "/v1/volumes/slice"),
    ("POST", "/v1/volumes/labels"),
    ("GET", "/v1/model"),
    ("GET", "/metrics"),
    ("GET", "/healthz"),
}
WITH_DATASET = {
    ("GET", "/v1/cases"),
    ("POST", "/v1/cases/predict"),
    ("GET", "/v1/cases/next"),
    ("GET", "/v1/cases/volume"),
    ("POST", "/v1/cases/volume/labels"),
    ("GET", "/v1/cases/mask"),
    ("POST", "/v1/cases/mask"),
    ("GET", "/v1/cases/history"),
    ("POST", "/v1/cases/review"),
    ("GET", "/label-studio/health"),
    ("POST", "/label-studio/setup"),
    ("POST", "/label-studio/predict"),
}

TRAINING = {
    ("GET", "/v1/training"),
    ("POST", "/v1/training"),
    ("DELETE", "/v1/training"),
    ("POST", "/v1/training/model"),
}

# What others take is nothing that could be wrong.
# Only a body can be refused: what a query holds beyond its parameters is ignored everywhere.
TAKING = {route for route in BARE | WITH_DATASET if route[0] == "POST"}
TAKING |= {("POST", "/v1/training/model")}


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Any]:
    predictor = Maker()(lesion_free=("normal",))
    cases = CaseQueue(squares(tmp_path / "data").root, predictor.info)
    made = create_app(predictor, Settings(token=TOKEN), cases=cases)
    with TestClient(made):  # its lifespan, which ends the thread that predicts
        yield made


@pytest.fixture
def training_app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The same with training; the process trains nothing and fails at once."""
    loop = Loop(tmp_path / "loop", monkeypatch)
    loop.save("case1")
    loop.order("fail as it should")
    trainer = loop.trainer()
    made = create_app(Maker()(), Settings(token=TOKEN), cases=trainer.cases, trainer=trainer)
    with TestClient(made):
        yield made


def described(app: Any) -> Any:
    return schemathesis.openapi.from_asgi("/openapi.json", app, headers=HEADERS)


def ask_all(cases: Any) -> None:
    """Send what a strategy makes, and check each answer against the description."""
    # Most strings are no image and no case, which no schema can say: they may be refused.
    excluded = [schemathesis.checks.positive_data_acceptance]

    @settings(max_examples=15, derandomize=True, deadline=None, suppress_health_check=HEALTH)
    @given(case=cases)
    def ask(case: Any) -> None:
        case.call_and_validate(headers=HEADERS, timeout=PATIENCE, excluded_checks=excluded)

    ask()


@pytest.mark.parametrize(
    ("method", "path", "mode"),
    [(*route, GenerationMode.POSITIVE) for route in sorted(BARE | WITH_DATASET)]
    + [(*route, GenerationMode.NEGATIVE) for route in sorted(TAKING - TRAINING)],
)
def test_answers_are_those_that_the_description_says(
    app: Any, method: str, path: str, mode: Any
) -> None:
    ask_all(described(app)[path][method].as_strategy(generation_mode=mode))


@pytest.mark.parametrize(
    ("method", "path", "mode"),
    [(*route, GenerationMode.POSITIVE) for route in sorted(TRAINING)]
    + [(*route, GenerationMode.NEGATIVE) for route in sorted(TRAINING & TAKING)],
)
def test_so_are_those_about_training(training_app: Any, method: str, path: str, mode: Any) -> None:
    ask_all(described(training_app)[path][method].as_strategy(generation_mode=mode))


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/v1/cases/predict", {"case_id": "case0"}),
        ("/v1/cases/mask", {"case_id": "case0", "label_prompt": "", "previous": ""}),
        ("/v1/cases/mask", {"case_id": "case1", "mask": {"class0": RUNS}, "label_prompt": ""}),
        ("/v1/cases/review", {"case_id": "case0", "mask": "", "label": "bright"}),
        ("/label-studio/setup", {"schema": labeling_config(["class0"])}),
        (
            "/label-studio/predict",
            {
                "label_config": labeling_config(["class0"]),
                "tasks": [{"data": {"case_id": "case0"}}, {"data": {"case_id": "nobody"}}],
            },
        ),
    ],
)
def test_so_are_those_to_what_names_cases_and_classes(
    app: Any, path: str, fields: dict[str, Any]
) -> None:
    """Bodies by chance hardly ever name a case, so most of a route would not be reached."""

    def named(case: Any) -> Any:
        case.body = {**case.body, **fields}
        return case

    operation = described(app)[path]["POST"]
    ask_all(operation.as_strategy(generation_mode=GenerationMode.POSITIVE).map(named))


@pytest.mark.parametrize("fields", [{}, {"evidence": "true", "label_prompt": "bright"}])
def test_predictions_and_the_model_are_as_described(
    make_client: Any, fields: dict[str, str]
) -> None:
    client = make_client()
    api = schemathesis.openapi.from_dict(client.get("/openapi.json").json())
    answer = client.post("/v1/predict", **sent(png()), data=fields)
    assert answer.status_code == 200
    api["/v1/predict"]["POST"].validate_response(answer)
    api["/v1/model"]["GET"].validate_response(client.get("/v1/model"))
    other = httpx2.Response(200, json={**answer.json(), "area": 1}, request=answer.request)
    other.elapsed = answer.elapsed
    with pytest.raises(schemathesis.openapi.checks.JsonSchemaError, match="area"):
        api["/v1/predict"]["POST"].validate_response(other)


def test_the_description_names_limits_and_the_token(
    make_client: Any, app: Any, training_app: Any
) -> None:
    described = make_client(Settings(host="::", token=TOKEN)).get("/openapi.json").json()
    assert routes(described) == BARE
    assert routes(app.openapi()) == BARE | WITH_DATASET
    assert routes(training_app.openapi()) == BARE | WITH_DATASET | TRAINING
    for path, operations in training_app.openapi()["paths"].items():
        for operation in operations.values():
            assert ("security" in operation) == (path != "/healthz")
    predict = described["paths"]["/v1/predict"]["post"]
    assert {"200", "401", "408", "413", "422", "429", "503"} <= set(predict["responses"])
    assert "not a medical device" in described["info"]["description"]


def routes(described: dict[str, Any]) -> set[tuple[str, str]]:
    """Method and path of all that a description has."""
    return {
        (method.upper(), path)
        for path, operations in described["paths"].items()
        for method in operations
    }


def test_half_of_a_surrogate_pair_is_told_and_no_failure(make_client: Any, tmp_path: Path) -> None:
    """JSON can name what UTF-8 cannot: pandas and the answer's own encoding would raise on it."""
    root = squares(tmp_path / "data").root
    client = make_client(Settings(token=TOKEN), dataset=root)
    client.headers.update({**HEADERS, "Content-Type": "application/json"})
    half, config = "\\ud800", json.dumps(labeling_config(["class0"]))
    runs = json.dumps(RUNS)
    save = '{{"case_id": "case0", "role": "other", {}}}'
    bodies = [
        ("/v1/cases/predict", f'{{"case_id": "{half}"}}', 422),
        ("/v1/cases/predict", f'{{"case_id": "case0", "label_prompt": "{half}"}}', 422),
        ("/v1/volumes/slice", f'{{"volume": "{half}", "index": 0}}', 422),
        ("/v1/cases/mask", save.format(f'"mask": {{"{half}": {{}}}}'), 422),
        ("/v1/cases/mask", save.format(f'"mask": {{"{half}": {runs}}}'), 422),
        ("/v1/cases/mask", save.format(f'"mask": {{"class0": {runs}}}, "previous": "{half}"'), 422),
        ("/v1/cases/mask", f'{{"case_id": "case0", "role": "{half}", "mask": {{}}}}', 422),
        ("/label-studio/setup", f'{{"schema": "{half}"}}', 422),
        (
            "/label-studio/predict",
            f'{{"tasks": [{{"data": {{"case_id": "{half}"}}}}], "label_config": {config}}}',
            404,
        ),
    ]
    for path, content, status in bodies:
        answer = client.post(path, content=content)
        assert answer.status_code == status, (path, content, answer.text)
        assert answer.json()["status"] == status

"""The OpenAPI description against the server: whatever it allows is answered as it says."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest
from hypothesis import HealthCheck, given, settings

from brightness import Maker
from dxseg.deploy.app import create_app
from dxseg.deploy.settings import Settings
from serving import TOKEN, png, sent

schemathesis = pytest.importorskip("schemathesis")
GenerationMode = schemathesis.GenerationMode

HEADERS = {"Host": "localhost", "Authorization": f"Bearer {TOKEN}"}


@pytest.mark.parametrize(
    ("path", "method", "mode"),
    [
        ("/v1/predict", "POST", GenerationMode.POSITIVE),
        ("/v1/predict", "POST", GenerationMode.NEGATIVE),
        ("/v1/model", "GET", GenerationMode.POSITIVE),
        ("/v1/model", "GET", GenerationMode.NEGATIVE),
        ("/metrics", "GET", GenerationMode.POSITIVE),
        ("/healthz", "GET", GenerationMode.POSITIVE),
    ],
)
def test_answers_are_those_that_the_description_says(path: str, method: str, mode: Any) -> None:
    app = create_app(Maker()(lesion_free=("normal",)), Settings(token=TOKEN))
    api = schemathesis.openapi.from_asgi("/openapi.json", app, headers=HEADERS)
    # Most strings of bytes are no image, which no schema can say: they may be refused.
    excluded = [schemathesis.checks.positive_data_acceptance]

    @settings(max_examples=15, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(case=api[path][method].as_strategy(generation_mode=mode))
    def ask(case: Any) -> None:
        case.call_and_validate(headers=HEADERS, excluded_checks=excluded)

    ask()


@pytest.mark.parametrize("fields", [{}, {"evidence": "true", "known": "bright"}])
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
    with pytest.raises(schemathesis.core.failures.FailureGroup, match="schema"):
        api["/v1/predict"]["POST"].validate_response(other)


def test_the_description_names_limits_and_the_token(make_client: Any) -> None:
    described = make_client(Settings(host="::", token=TOKEN)).get("/openapi.json").json()
    assert set(described["paths"]) == {"/v1/predict", "/v1/model", "/healthz", "/metrics"}
    for path, operations in described["paths"].items():
        [operation] = operations.values()
        assert ("security" in operation) == (path != "/healthz")
    predict = described["paths"]["/v1/predict"]["post"]
    assert {"200", "401", "408", "413", "422", "429", "503"} <= set(predict["responses"])
    assert "not a medical device" in described["info"]["description"]

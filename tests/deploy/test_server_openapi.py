"""The OpenAPI description against the server: whatever it allows is answered as it says."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from brightness import Maker
from dxseg.deploy.app import create_app
from dxseg.deploy.settings import Settings
from serving import TOKEN

schemathesis = pytest.importorskip("schemathesis")

HEADERS = {"Host": "localhost", "Authorization": f"Bearer {TOKEN}"}


@pytest.fixture
def api() -> Any:
    app = create_app(Maker()(lesion_free=("normal",)), Settings(token=TOKEN))
    return schemathesis.openapi.from_asgi("/openapi.json", app, headers=HEADERS)


schema = schemathesis.pytest.from_fixture("api")


@schema.parametrize()
@settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
def test_answers_are_those_that_the_description_says(case: Any) -> None:
    # Most strings of bytes are no image, which no schema can say: they may be refused.
    case.call_and_validate(
        headers=HEADERS, excluded_checks=[schemathesis.checks.positive_data_acceptance]
    )


def test_the_description_names_limits_and_the_token(make_client: Any) -> None:
    described = make_client(Settings(host="::", token=TOKEN)).get("/openapi.json").json()
    assert set(described["paths"]) == {"/v1/predict", "/v1/model", "/healthz", "/metrics"}
    for path, operations in described["paths"].items():
        [operation] = operations.values()
        assert ("security" in operation) == (path != "/healthz")
    predict = described["paths"]["/v1/predict"]["post"]
    assert {"200", "401", "408", "413", "422", "429", "503"} <= set(predict["responses"])
    assert "not a medical device" in described["info"]["description"]

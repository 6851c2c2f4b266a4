"""Who is let in, how much may be sent, and what answers, logs and metrics hold."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from dxseg.config.network import ModelConfig
from dxseg.errors import UsageError
from dxseg.server.middleware import _SECRET
from dxseg.server.routes import predict
from dxseg.server.settings import Settings, read_token
from dxseg.server.telemetry import JsonFormatter
from serving import TOKEN, png, sent

WITH_TOKEN = Settings(host="0.0.0.0", token=TOKEN)
BEARER = {"Authorization": f"Bearer {TOKEN}"}


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "server.hospital"])
def test_beyond_loopback_a_token_is_needed(host: str) -> None:
    with pytest.raises(UsageError, match="token"):
        Settings(host=host)
    assert not Settings(host=host, token=TOKEN).is_loopback


@pytest.mark.parametrize("host", ["127.0.0.1", "127.3.2.1", "::1", "localhost"])
def test_on_loopback_none_is_needed(host: str) -> None:
    assert Settings(host=host).is_loopback


@pytest.mark.parametrize("limit", ["queue", "max_bytes", "max_pixels", "seconds", "upload_seconds"])
def test_limits_are_above_zero(limit: str) -> None:
    with pytest.raises(UsageError, match=limit):
        Settings(**{limit: 0})
    with pytest.raises(UsageError, match=limit):
        Settings(**{limit: float("nan")})


def test_a_token_is_one_long_line(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text(f"{TOKEN}\n")
    assert read_token(path) == TOKEN
    for content in (
        b"",
        b"short",
        b"two words that are long",
        f"{TOKEN}\n{TOKEN}".encode(),
        b"\xff",
    ):
        path.write_bytes(content)
        with pytest.raises(UsageError, match="token") as error:
            read_token(path)
        assert "two words" not in str(error.value)
    with pytest.raises(UsageError, match="absent"):
        read_token(tmp_path / "absent")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": ""},
        {"Authorization": TOKEN},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": f"Bearer {TOKEN}x"},
        {"Authorization": f"Bearer {TOKEN[:-1]}"},
        {"Authorization": "Bearer \u00e9".encode("latin-1")},
    ],
)
def test_without_the_token_nothing_is_told(make_client: Any, headers: dict[str, Any]) -> None:
    client = make_client(WITH_TOKEN)
    for answer in (
        client.post("/v1/predict", **sent(png()), headers=headers),
        client.get("/v1/model", headers=headers),
        client.get("/metrics", headers=headers),
    ):
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        assert answer.headers["content-type"] == "application/problem+json"
        assert "bright" not in answer.text
    assert client.get("/healthz", headers=headers).status_code == 200


@pytest.mark.parametrize("ending", ["%0A", "%0D", "%00", "%C2%85", "%E2%80%A8", "/", ""])
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_no_spelling_of_a_path_passes_without_the_token(
    make_client: Any, method: str, ending: str
) -> None:
    """Starlette's routes match before a final line feed; a slash at the end is redirected."""
    client = make_client(WITH_TOKEN)
    for route in (*_SECRET, "/v1/of-the-future"):
        answer = client.request(method, route + ending, follow_redirects=False)
        assert answer.status_code in (401, 404), (method, route, ending)


def test_paths_with_control_characters_are_no_routes(make_client: Any) -> None:
    answer = make_client().post("/v1/predict%0A", **sent(png()))
    assert answer.status_code == 404


def test_with_the_token_all_is(make_client: Any) -> None:
    client = make_client(WITH_TOKEN)
    assert client.post("/v1/predict", **sent(png()), headers=BEARER).is_success
    assert client.get("/v1/model", headers=BEARER).json()["labels"] == ["normal", "bright"]
    assert client.get("/metrics", headers=BEARER).is_success


def test_the_model_tells_labels_and_limits_and_not_its_training(make_client: Any) -> None:
    told = make_client(Settings(queue=3)).get("/v1/model").json()
    assert (told["model"], told["mask_classes"]) == ("ab" * 6, ["class0"])
    assert (told["labels"], told["lesion_free"]) == (["normal", "bright"], ["normal"])
    assert (told["limits"]["queue"], told["image_size"], told["dtype"]) == (3, 32, "uint8")
    assert told["training"] is False, "whether the server trains, not what the model learned from"
    assert "not a medical device" in told["notice"]


@pytest.mark.parametrize(
    ("values", "evidence"),
    [
        ({"architecture": "sks", "coarse_init": "stage1"}, True),
        ({"architecture": "sks", "coarse_init": "pretrained"}, False),
        ({"architecture": "unet", "encoder_init": "pretrained", "classifier": True}, True),
        ({"architecture": "unet", "encoder_init": "stage1", "label_head": True}, False),
    ],
)
def test_the_model_tells_whether_its_evidence_maps_mean_something(
    make_client: Any, values: dict[str, Any], evidence: bool
) -> None:
    """Those of a coarse branch that was not trained on labels do not."""
    model = ModelConfig.model_validate(values)
    assert make_client(model=model).get("/v1/model").json()["evidence"] is evidence


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "http://[::1"},
        {"Origin": "null"},
        {"Host": "evil.example"},
    ],
)
def test_pages_of_other_sites_get_no_answer(make_client: Any, headers: dict[str, str]) -> None:
    client = make_client()
    assert client.post("/v1/predict", **sent(png()), headers=headers).status_code == 403
    preflight = client.options(
        "/v1/predict", headers={"Access-Control-Request-Method": "POST", **headers}
    )
    assert preflight.status_code == 403
    own = client.post("/v1/predict", **sent(png()), headers={"Origin": "http://localhost"})
    assert own.status_code == 200
    for answer in (preflight, own):
        assert not [name for name in answer.headers if name.startswith("access-control")]


def test_with_a_token_it_is_reached_by_any_name(make_client: Any) -> None:
    headers = {"Host": "segmenter.hospital", **BEARER}
    assert make_client(WITH_TOKEN).get("/v1/model", headers=headers).status_code == 200


def test_large_requests_are_refused_by_their_header_or_while_they_arrive(make_client: Any) -> None:
    client = make_client(Settings(max_bytes=2000))
    assert client.post("/v1/predict", **sent(bytes(3000))).status_code == 413

    def endless() -> Any:
        for _ in range(100):
            yield bytes(500)

    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    answer = client.post("/v1/predict", content=endless(), headers=kind)
    assert answer.status_code == 413
    assert answer.headers["connection"] == "close"
    assert "2000 bytes" in answer.json()["detail"]
    assert client.post("/v1/predict", **sent(png())).status_code == 200


def test_every_answer_has_the_headers_that_browsers_keep_to(make_client: Any) -> None:
    client = make_client()
    answers = [
        client.get("/healthz"),
        client.get("/nowhere"),
        client.post("/v1/predict", **sent(b"bad")),
        client.get("/healthz", headers={"Host": "evil.example"}),
    ]
    assert [answer.status_code for answer in answers] == [200, 404, 422, 403]
    for answer in answers:
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "http" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-request-id"]


def test_the_page_is_served_where_there_is_one(make_client: Any, tmp_path: Path) -> None:
    assert make_client().get("/").status_code == 404
    (tmp_path / "web").mkdir()
    (tmp_path / "web/index.html").write_text("<p>page</p>")
    (tmp_path / "secret").write_text("secret")
    client = make_client(WITH_TOKEN, web=tmp_path / "web")
    page = client.get("/")
    assert (page.text, page.headers["content-type"].split(";")[0]) == ("<p>page</p>", "text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert client.get("/%2e%2e/secret").status_code == 404
    assert client.get("/v1/model").status_code == 401, "the page does not hide the routes"


def test_a_failure_is_told_to_the_log_by_type_and_place_only(
    make_client: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_arguments: Any, **_more: Any) -> None:
        raise RuntimeError("Jane Doe")

    monkeypatch.setattr(predict, "describe_prediction", broken)
    client = make_client()
    with caplog.at_level(logging.INFO, logger="dxseg.serve"):
        answer = client.post("/v1/predict", **sent(png()))
    assert (answer.status_code, answer.headers["content-type"]) == (500, "application/problem+json")
    [failed] = [record for record in caplog.records if record.getMessage() == "failed"]
    entry = json.loads(JsonFormatter().format(failed))
    assert (entry["error"], entry["level"]) == ("RuntimeError", "error")
    assert entry["request_id"] == answer.json()["request_id"]
    assert any("test_server_guard.py" in place for place in entry["where"])
    assert "Doe" not in JsonFormatter().format(failed) + answer.text


def test_logs_and_metrics_hold_no_name(make_client: Any, caplog: pytest.LogCaptureFixture) -> None:
    client = make_client()
    with caplog.at_level(logging.INFO, logger="dxseg.serve"):
        client.post("/v1/predict?patient=Doe", **sent(png(), "Doe.png"))
        client.post("/v1/predict", **sent(b"Doe", "Doe.png"), data={"label_prompt": "Doe"})
        client.get("/Doe/Jane", headers={"User-Agent": "Doe", "X-Forwarded-For": "Doe"})
        client.request("DOE", "/healthz")
    own = [record for record in caplog.records if record.name == "dxseg.serve"]
    entries = [json.loads(JsonFormatter().format(record)) for record in own]
    assert [(one["route"], one["status"]) for one in entries] == [
        ("/v1/predict", 200),
        ("/v1/predict", 422),
        ("other", 404),
        ("/healthz", 405),
    ]
    assert "Doe" not in json.dumps(entries)
    assert entries[0]["received_bytes"] > len(png())
    metrics = client.get("/metrics").text
    assert "Doe" not in metrics
    assert 'dxseg_requests_total{route="/v1/predict",status="200"} 1.0' in metrics
    assert 'dxseg_requests_total{route="other",status="404"} 1.0' in metrics
    assert "dxseg_images_in_flight 0.0" in metrics
    assert 'dxseg_request_seconds_count{route="/v1/predict"} 2.0' in metrics
    assert "process_resident_memory_bytes" in metrics


def test_a_server_that_stops_takes_no_more_images(make_client: Any) -> None:
    client = make_client()
    client.app.state.stopping = True
    answer = client.post("/v1/predict", **sent(png()))
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "10")
    assert client.get("/healthz").status_code == 503
    assert client.get("/v1/model").status_code == 200

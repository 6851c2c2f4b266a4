"""`dxseg serve` before it serves: what it refuses, and what it hands on."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from brightness import Maker
from dxseg.inference.predictor import Predictor
from dxseg.server import case_queue, uvicorn_server
from dxseg.server.retraining import models, trainer
from dxseg.server.settings import Settings
from serving import TOKEN

Cli = Callable[..., Any]


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What would have been served."""
    calls: list[dict[str, Any]] = []

    def load(folder: Path, **options: Any) -> Any:
        return SimpleNamespace(info=None, loaded={"folder": folder, **options})

    def run_server(predictor: Any, settings: Settings, **more: Any) -> None:
        more.pop("ready")("http://127.0.0.1:1")
        calls.append({**predictor.loaded, "settings": settings, **more})

    def train(_cases: Any, run: Path, _load: Any, after: int | None) -> Any:
        return SimpleNamespace(run=run, after=after)

    monkeypatch.setattr(uvicorn_server, "run_server", run_server)
    monkeypatch.setattr(Predictor, "from_folder", load)
    monkeypatch.setattr(case_queue, "CaseQueue", lambda root, _info, table: (root, table))
    monkeypatch.setattr(trainer, "Trainer", train)
    monkeypatch.setattr(models, "find_run", lambda folder: folder)
    return calls


def test_options_become_settings(cli: Cli, served: list[dict[str, Any]], tmp_path: Path) -> None:
    (tmp_path / "token").write_text(TOKEN)
    (tmp_path / "run/model").mkdir(parents=True)
    words = ["--host", "0.0.0.0", "--token-file", tmp_path / "token", "--port", 7, "--queue", 3]
    words += ["--batch-size", 2, "--max-megabytes", 1, "--max-megapixels", 0.5, "--device", "cpu"]
    rest = ["--upload-timeout", 4, "--timeout", 5, "--backend", "openvino"]
    result = cli("serve", tmp_path / "run", *words, *rest)
    assert result.exit_code == 0, result.output
    assert "http://127.0.0.1:1" in result.output
    assert TOKEN not in result.output
    assert served == [
        {
            "folder": tmp_path / "run/model",
            "settings": Settings("0.0.0.0", TOKEN, 3, 2**20, 2**19, 4.0, 5.0),
            "port": 7,
            "device": "cpu",
            "batch_size": 2,
            "backend": "openvino",
            "cases": None,
            "trainer": None,
        }
    ]


def test_with_a_dataset_a_token_is_made_up_and_only_shown(
    cli: Cli, served: list[dict[str, Any]], tmp_path: Path
) -> None:
    result = cli("serve", tmp_path, "--dataset", tmp_path / "data", "--suggestions", "s.csv")
    assert result.exit_code == 0, result.output
    token = served[0]["settings"].token
    assert len(token) > 40
    assert f"http://127.0.0.1:1/#token={token} " in result.output
    assert served[0]["cases"] == (str(tmp_path / "data"), Path("s.csv"))
    cli("serve", tmp_path, "--dataset", tmp_path / "data")
    assert served[1]["settings"].token != token


def test_suggestions_need_a_dataset(cli: Cli, served: list[dict[str, Any]], tmp_path: Path) -> None:
    result = cli("serve", tmp_path, "--suggestions", "s.csv")
    assert (result.exit_code, served) == (2, [])
    assert "--dataset" in result.output


def test_training_needs_a_dataset_and_its_number_needs_training(
    cli: Cli, served: list[dict[str, Any]], tmp_path: Path
) -> None:
    result = cli("serve", tmp_path, "--train")
    assert (result.exit_code, served) == (2, [])
    assert "--dataset" in result.output
    result = cli("serve", tmp_path, "--dataset", tmp_path, "--train-after", 20)
    assert (result.exit_code, served) == (2, [])
    assert "--train" in result.output
    assert (
        cli("serve", tmp_path, "--dataset", tmp_path, "--train", "--train-after", 20).exit_code == 0
    )
    assert served[0]["trainer"].after == 20
    assert served[0]["folder"] == served[0]["trainer"].run / "model"


def test_the_command_has_the_defaults_of_the_function(
    cli: Cli, served: list[dict[str, Any]], tmp_path: Path
) -> None:
    import dxseg

    assert cli("serve", tmp_path).exit_code == 0
    dxseg.serve(tmp_path)
    assert served[0] == served[1]
    assert served[0]["settings"] == Settings()


@pytest.mark.parametrize("value", ["inf", "nan"])
@pytest.mark.parametrize(
    "option", ["--max-megabytes", "--max-megapixels", "--upload-timeout", "--timeout"]
)
def test_limits_are_finite(
    option: str, value: str, cli: Cli, served: list[dict[str, Any]], tmp_path: Path
) -> None:
    result = cli("serve", tmp_path, option, value)
    assert (result.exit_code, served) == (2, [])
    assert f"{value}: expected a finite number" in result.output


def test_beyond_loopback_it_does_not_start_without_a_token(
    cli: Cli, served: list[dict[str, Any]], tmp_path: Path
) -> None:
    result = cli("serve", tmp_path, "--host", "0.0.0.0")
    assert result.exit_code == 2
    assert "--token-file" in result.output
    assert served == []


def test_without_the_extra_it_is_named(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "dxseg.server.uvicorn_server")
    result = cli("serve", tmp_path)
    assert result.exit_code == 2
    assert "dxseg[serve]" in result.output


def test_a_port_that_is_taken_is_an_error(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Predictor, "from_folder", lambda *_args, **_options: Maker()())
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = cli("serve", tmp_path, "--port", port)
    assert result.exit_code == 1
    assert f"port {port}" in result.output
    assert cli("serve", tmp_path, "--port", 70000).exit_code == 1


def test_a_model_that_is_none_is_an_error(cli: Cli, tmp_path: Path) -> None:
    result = cli("serve", tmp_path, "--port", 0)
    assert result.exit_code == 1
    assert "model.json" in result.output

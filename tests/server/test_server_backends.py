"""`dxseg serve` on every backend: the same answers as `dxseg predict` gives."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest

pytest.importorskip("fastapi")
pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")

import dxseg
from dxseg.errors import UsageError
from dxseg.inference.backends import OnnxRuntimeBackend, OpenVinoBackend, TorchBackend
from dxseg.inference.predictor import Predictor
from dxseg.server import uvicorn_server
from onnx_models import make_model_folder
from serving import png, sent

pytestmark = pytest.mark.slow  # backends and the server have tests of their own


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    make_model_folder(root / "run/model", "sks-evidence")
    make_model_folder(root / "beside/model", "unet-classifier")
    models = {}
    for name in ("run", "beside"):
        models[name], models[f"{name}.onnx"] = root / name, root / f"{name}.onnx"
        dxseg.export_onnx(root / name, output=models[f"{name}.onnx"])
    return models


@pytest.fixture
def serving(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., tuple[str, Any]]]:
    """Run `dxseg.serve` in a thread: its address, and the backend that it has loaded."""
    made: list[tuple[Predictor, Any]] = []
    make_server = uvicorn_server.make_server

    def remembered(predictor: Predictor, *arguments: Any, **more: Any) -> Any:
        server = make_server(predictor, *arguments, **{**more, "log_config": None})
        made.append((predictor, server))
        return server

    monkeypatch.setattr(uvicorn_server, "make_server", remembered)
    threads: list[threading.Thread] = []

    def start(model: Path, **options: Any) -> tuple[str, Any]:
        urls: list[str] = []
        listening = threading.Event()

        def ready(url: str) -> None:
            urls.append(url)
            listening.set()

        thread = threading.Thread(
            target=lambda: dxseg.serve(model, port=0, ready=ready, **options), daemon=True
        )
        thread.start()
        threads.append(thread)
        assert listening.wait(300)
        return urls[0], made[-1][0].backend

    yield start
    for _, server in made:
        server.should_exit = True
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()


@pytest.mark.parametrize(
    ("model", "backend", "kind"),
    [
        ("run", None, TorchBackend),
        ("run", "onnxruntime", OnnxRuntimeBackend),
        ("run", "openvino", OpenVinoBackend),
        ("run.onnx", None, OnnxRuntimeBackend),
        ("run.onnx", "openvino", OpenVinoBackend),
        ("beside", None, TorchBackend),
        ("beside.onnx", None, OnnxRuntimeBackend),
    ],
)
def test_the_chosen_backend_answers_as_the_predictor_does(
    serving: Callable[..., tuple[str, Any]],
    models: dict[str, Path],
    model: str,
    backend: str | None,
    kind: type,
) -> None:
    url, loaded = serving(models[model], backend=backend)
    assert type(loaded) is kind
    pixels = np.random.default_rng(3).integers(0, 256, (48, 60), dtype=np.uint8)
    answer = httpx2.post(f"{url}/v1/predict", **sent(png(pixels)), timeout=120).json()
    folder = models[model.removesuffix(".onnx")] / "model"
    [expected] = Predictor.from_folder(folder).predict([pixels[:, :, None]])
    assert answer["label_probabilities"] == pytest.approx(expected.label_probabilities, abs=1e-4)
    found = answer["area"]["lesion"]["pixels"]
    assert 0 < found < pixels.size
    # A pixel whose probability is at the threshold may fall on either side of it.
    assert abs(found - int(expected.mask.sum())) <= 0.01 * pixels.size


def test_a_backend_that_cannot_run_the_model_is_told_before_anything_listens(
    models: dict[str, Path],
) -> None:
    heard: list[str] = []
    with pytest.raises(UsageError, match="torch, onnxruntime, openvino"):
        dxseg.serve(models["run"], port=0, backend="tensorrt", ready=heard.append)
    with pytest.raises(UsageError, match="model folder"):
        dxseg.serve(models["run.onnx"], port=0, backend="torch", ready=heard.append)
    assert heard == []

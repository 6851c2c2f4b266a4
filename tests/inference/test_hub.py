"""Models on a hub: fetched by the hub's own library, and only where a name says so."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from dxseg.errors import DxsegError, UsageError
from dxseg.inference.hub import local_copy
from dxseg.inference.model_folder import find_model_folder, load_model_folder
from onnx_models import make_model_folder

hub = pytest.importorskip("huggingface_hub")
COMMIT = "c0ffee" * 6 + "c0ff"


def entry(name: str, content: bytes) -> dict[str, object]:
    return {"type": "file", "path": name, "size": len(content), "oid": name}


class Hub:
    """As much of a hub as the library asks for, on loopback: one repository, one commit."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.asked: list[str] = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self.answer(body=False)

            def do_GET(self) -> None:
                self.answer(body=True)

            def answer(self, *, body: bool) -> None:
                path = self.path.split("?")[0]
                outer.asked.append(path)
                name = path.rsplit("/", 1)[-1]
                content = b"{}"
                if path.startswith("/api/models/her/model/tree"):
                    tree = [
                        {"type": "file", "path": n, "size": len(c), "oid": n}
                        for n, c in files.items()
                    ]
                    content = json.dumps(tree).encode()
                elif path.startswith("/api/models/her/model"):
                    siblings = [{"rfilename": one} for one in files]
                    told = {"id": "her/model", "sha": COMMIT, "siblings": siblings}
                    content = json.dumps(told).encode()
                elif path.startswith("/her/model/resolve/") and name in files:
                    content = files[name]
                else:
                    self.send_error(404)
                    return
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.send_header("ETag", f'"{name}"')
                self.send_header("X-Repo-Commit", COMMIT)
                self.end_headers()
                if body:
                    self.wfile.write(content)

            def log_message(self, *_: object) -> None: ...

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model_folder(tmp_path_factory.mktemp("model_folder"), "unet")


@pytest.fixture
def served(model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    files = {path.name: path.read_bytes() for path in model_folder.iterdir()}
    one = Hub(files | {"pytorch_model.bin": b"pickle", "README.md": b"# card"})
    constants = hub.constants
    monkeypatch.setattr(constants, "ENDPOINT", one.url)
    monkeypatch.setattr(
        constants,
        "HUGGINGFACE_CO_URL_TEMPLATE",
        one.url + "/{repo_id}/resolve/{revision}/{filename}",
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    yield one
    one.server.shutdown()


def test_a_named_model_is_fetched_and_nothing_else_of_its_repository(
    served: Hub, model_folder: Path
) -> None:
    folder = find_model_folder("hf-hub:her/model")
    assert load_model_folder(folder)[1] == load_model_folder(model_folder)[1]
    fetched = {path.rsplit("/", 1)[-1] for path in served.asked if "/resolve/" in path}
    assert fetched == {"model.json", "model.safetensors"}
    assert sorted(path.name for path in folder.iterdir()) == ["model.json", "model.safetensors"]


def test_what_is_there_needs_no_hub(served: Hub) -> None:
    folder = local_copy(f"hf-hub:her/model@{COMMIT}")
    served.server.shutdown()
    served.server.server_close()
    assert local_copy(f"hf-hub:her/model@{COMMIT}") == folder


def test_a_path_asks_nobody(served: Hub, model_folder: Path) -> None:
    for name in (model_folder, str(model_folder), "her/model", "hub/her/model"):
        assert local_copy(name) == Path(name)
    assert served.asked == []


def test_what_the_hub_has_not_is_an_error(served: Hub) -> None:
    with pytest.raises(DxsegError, match="hf-hub:her/other: cannot be fetched"):
        local_copy("hf-hub:her/other")
    with pytest.raises(UsageError, match="hf-hub:OWNER/NAME"):
        local_copy("hf-hub:no such/name/at all")

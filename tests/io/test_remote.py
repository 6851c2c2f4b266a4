"""Files at addresses: read once into memory, within a limit, and never with credentials."""

from __future__ import annotations

import hashlib
import http.server
import pickle
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.registry import known_implementations

from dxseg.errors import DxsegError
from dxseg.io import remote
from dxseg.io.atomic import sha256_file
from dxseg.io.remote import RemotePath, address_fault, as_path, fetch, is_address, redact, versions


@pytest.fixture
def memory() -> Iterator[Any]:
    files = fsspec.filesystem("memory")
    files.pipe("/archive/x/a.png", b"pixels")
    yield files
    files.store.clear()


def test_a_file_is_read_and_named_by_its_address(memory: Any) -> None:
    path = as_path("memory://archive/x/a.png")
    assert isinstance(path, RemotePath)
    assert str(path) == f"{path}" == "memory://archive/x/a.png"
    assert (path.name, path.suffix, path.read_bytes()) == ("a.png", ".png", b"pixels")
    assert str(path.with_name("b.png")) == "memory://archive/x/b.png"
    assert str(as_path("memory://archive") / "x" / "a.png") == str(path)
    assert (path.is_file(), path.exists(), path.with_name("b.png").exists()) == (True, True, False)
    assert path.size() == 6
    assert pickle.loads(pickle.dumps(path)) == path  # noqa: S301 - our own, of this test
    assert sha256_file(path) == hashlib.sha256(b"pixels").hexdigest()


def test_a_fetched_file_opens_without_another_request(memory: Any) -> None:
    path = fetch(as_path("memory://archive/x/a.png"))
    memory.store.clear()
    for _ in range(2):
        with path.open("rb") as stream:
            assert stream.read() == b"pixels"
    assert isinstance(path, RemotePath)
    assert path.size() == 6
    assert path.is_file()


def test_file_addresses_are_local_paths(tmp_path: Path) -> None:
    path = as_path(f"file://{tmp_path}/a%20b.png")
    assert path == tmp_path / "a b.png"
    assert not isinstance(path, RemotePath)
    assert fetch(path) is path
    assert as_path("images/a.png") == Path("images/a.png")
    assert as_path(path) is path


def test_versions_change_with_the_file(memory: Any) -> None:
    memory.pipe("/archive/x/b.png", b"other")
    paths = [RemotePath(f"memory://archive/x/{name}.png") for name in "ab"]
    before = versions(paths)
    assert len(set(before)) == 2
    assert versions(paths) == before
    memory.pipe("/archive/x/a.png", b"changed")
    after = versions(paths)
    assert after[0] != before[0]
    assert after[1] == before[1]


def test_what_needs_a_local_file_is_refused_by_name(memory: Any) -> None:
    path = as_path("memory://archive/x/a.png")
    for attempt in (lambda: open(path), path.stat):  # noqa: PTH123, SIM115 - what libraries do
        with pytest.raises(DxsegError, match=r"memory://archive/x/a\.png: not on the local disk"):
            attempt()


def test_a_file_beyond_the_limit_is_refused(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "FETCH_LIMIT", 6)
    assert as_path("memory://archive/x/a.png").read_bytes() == b"pixels"
    monkeypatch.setattr(remote, "FETCH_LIMIT", 5)
    with pytest.raises(DxsegError, match=r"memory://archive/x/a\.png: larger than 5 bytes"):
        as_path("memory://archive/x/a.png").read_bytes()


def test_an_absent_file_is_named(memory: Any) -> None:
    with pytest.raises(DxsegError, match=r"memory://archive/none\.png: no such file.*roots"):
        as_path("memory://archive/none.png").read_bytes()
    with pytest.raises(DxsegError, match=r"memory://archive/none\.png: no such file"):
        versions([RemotePath("memory://archive/none.png")])


def test_a_missing_driver_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = {"class": "no_such_package.Files", "err": "Install no_such_package for it"}
    monkeypatch.setitem(known_implementations, "nosuch", spec)
    with pytest.raises(DxsegError, match=r"nosuch://b/a\.png: .*Install no_such_package for it"):
        as_path("nosuch://b/a.png").read_bytes()
    with pytest.raises(DxsegError, match=r"other://b/a\.png: unknown kind of address"):
        as_path("other://b/a.png").read_bytes()


def test_texts_of_drivers_are_not_repeated(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args: Any, **_options: Any) -> None:
        raise RuntimeError("key AKIA123 is wrong")

    monkeypatch.setattr(type(memory), "open", fail)
    with pytest.raises(DxsegError, match=r"cannot be read \(RuntimeError\)") as refused:
        as_path("memory://archive/x/a.png").read_bytes()
    assert "AKIA123" not in str(refused.value)


@pytest.mark.parametrize(
    ("address", "fault"),
    [
        ("s3://bucket/archive/a.png", ""),
        ("s3://bucket", ""),
        ("https://example.org/a/", ""),
        ("https://user:password@example.org/a.png", "credentials"),
        ("https://example.org/a.png?signature=1", "credentials"),
        ("s3://bucket/a/../b.png", "plain"),
        ("s3://bucket/a//b.png", "plain"),
        ("s3://bucket/a\\b.png", "plain"),
        ("https://example.org/%2E%2e/b.png", "plain"),
        ("simplecache::s3://bucket/b.png", "plain"),
        ("zip://a.png::s3://bucket/b.zip", "plain"),
        ("https://example.org/a.png#b", "plain"),
    ],
)
def test_addresses_are_plain_and_hold_no_credentials(address: str, fault: str) -> None:
    found = address_fault(address)
    assert found == "" if not fault else fault in found
    assert "password" not in found
    assert "signature" not in found


def test_credentials_are_not_shown() -> None:
    assert redact("https://u:p@h/x") == "https://***@h/x"
    assert redact("['s3://b/x', 'https://h/x?sig=1']") == "['s3://b/x', 'https://h/x?***']"
    assert redact("what? a path") == "what? a path"
    assert is_address("s3://b/x")
    assert not is_address("s3/b:x//y")


def test_a_web_server_is_read(tmp_path: Path) -> None:
    pytest.importorskip("aiohttp")
    (tmp_path / "a.png").write_bytes(b"pixels")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_args: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path))
    )
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        root = as_path(f"http://127.0.0.1:{server.server_port}")
        assert (root / "a.png").read_bytes() == b"pixels"
        with pytest.raises(DxsegError, match="no such file"):
            (root / "b.png").read_bytes()
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)

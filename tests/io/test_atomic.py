"""Atomic files: all or nothing, whatever fails, and digests that are the published ones."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dxseg.io.atomic import (
    atomic_path,
    sha256_file,
    sha256_json,
    write_bytes_atomic,
    write_json_atomic,
    write_text_atomic,
)


def test_writes_replace_content_and_leave_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "er" / "notes.txt"
    write_text_atomic(target, "first\r\n")
    write_text_atomic(target, "zweite Fassung: äöü\n")
    assert target.read_bytes() == "zweite Fassung: äöü\n".encode()
    assert list(target.parent.iterdir()) == [target]


def test_line_ends_are_not_translated(tmp_path: Path) -> None:
    write_text_atomic(tmp_path / "a.csv", "a\r\nb\n")
    assert (tmp_path / "a.csv").read_bytes() == b"a\r\nb\n"


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_failure_keeps_the_old_file_and_removes_the_temporary(
    tmp_path: Path, error: type[BaseException]
) -> None:
    target = tmp_path / "weights.bin"
    write_bytes_atomic(target, b"old")

    def fail_half_way() -> None:
        with atomic_path(target) as temporary:
            temporary.write_bytes(b"half of the ne")
            raise error

    with pytest.raises(error):
        fail_half_way()
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_reader_sees_the_old_content_until_the_end(tmp_path: Path) -> None:
    target = tmp_path / "x.png"
    write_bytes_atomic(target, b"old")
    with atomic_path(target) as temporary:
        assert temporary.suffix == ".png"
        assert temporary.parent == tmp_path
        temporary.write_bytes(b"new")
        assert target.read_bytes() == b"old"
    assert target.read_bytes() == b"new"


def test_block_that_writes_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "x"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_long_names_fit(tmp_path: Path) -> None:
    target = tmp_path / ("n" * 250 + ".txt")
    write_text_atomic(target, "x")
    assert target.read_text() == "x"


def test_json_refuses_nan_and_keeps_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "a.json"
    write_json_atomic(target, {"dice": 0.5, "name": "é"})
    with pytest.raises(ValueError, match="JSON"):
        write_json_atomic(target, {"dice": float("nan")})
    assert json.loads(target.read_text(encoding="utf-8")) == {"dice": 0.5, "name": "é"}


@given(st.binary(max_size=4096))
def test_file_digest_is_sha256(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    target = tmp_path_factory.mktemp("digest") / "x"
    write_bytes_atomic(target, data)
    assert sha256_file(target) == hashlib.sha256(data).hexdigest()


def test_file_digest_of_several_blocks(tmp_path: Path) -> None:
    data = bytes(range(256)) * 8193
    (tmp_path / "x").write_bytes(data)
    assert sha256_file(tmp_path / "x") == hashlib.sha256(data).hexdigest()


@given(st.dictionaries(st.text(), st.integers() | st.text() | st.booleans(), min_size=2))
def test_json_digest_ignores_key_order(obj: dict[str, object]) -> None:
    assert sha256_json(obj) == sha256_json(dict(reversed(obj.items())))


def test_json_digest_tells_types_apart() -> None:
    assert len({sha256_json(value) for value in (1, "1", [1], True, None, 1.5)}) == 6

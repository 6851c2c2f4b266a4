"""Records of files: kept through interruptions, gone when the file changes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dxseg.errors import DxsegError
from dxseg.io.sqlite_cache import SqliteCache, file_key


def test_records_come_back_in_the_order_asked_for(tmp_path: Path) -> None:
    keys = [f"k{number}" for number in range(1200)]
    with SqliteCache(tmp_path / "new" / "store") as store:
        for key in keys[::2]:
            store.put(key, key.encode())
        store.put("k0", b"newer")
    with SqliteCache(tmp_path / "new" / "store") as store:
        assert store.missing(keys) == list(range(1, 1200, 2))
        wanted = ["k1100", "k2", "k0"]
        assert list(store.read(wanted)) == [b"k1100", b"k2", b"newer"]
        with pytest.raises(KeyError, match="k1"):
            list(store.read(["k1"]))


def test_an_interruption_keeps_what_was_put(tmp_path: Path) -> None:
    def interrupted() -> None:
        with SqliteCache(tmp_path / "store") as store:
            store.put("a", b"1")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    with SqliteCache(tmp_path / "store") as store:
        assert list(store.read(["a"])) == [b"1"]


@pytest.mark.parametrize("content", [b"", b"no database at all" * 100, b"SQLite format 3\0" * 90])
def test_a_damaged_store_is_made_anew(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "store").write_bytes(content)
    with SqliteCache(tmp_path / "store") as store:
        assert store.missing(["a"]) == [0]
        store.put("a", b"1")
        assert store.missing(["a"]) == []


def test_a_store_that_cannot_be_written_is_told_and_kept(tmp_path: Path) -> None:
    """As on a full disk: what is there is not taken for damaged and removed."""
    path = tmp_path / "store"
    with SqliteCache(path) as store:
        store.put("a", b"1")

    def fill() -> None:
        with SqliteCache(path) as store:
            store._connection.execute("PRAGMA max_page_count = 4")
            store.put("b", bytes(100_000))

    with pytest.raises(DxsegError, match=r"store: .*full.*free some space"):
        fill()
    with SqliteCache(path) as store:
        assert list(store.read(["a"])) == [b"1"]
        assert store.missing(["b"]) == [0]


def test_a_store_that_breaks_while_it_is_read_is_told(tmp_path: Path) -> None:
    path = tmp_path / "store"
    with SqliteCache(path) as store:
        for number in range(200):
            store.put(str(number), bytes(200))
    content = bytearray(path.read_bytes())
    content[4096 * 2 :] = b"\xff" * (len(content) - 4096 * 2)
    path.write_bytes(content)
    keys = [str(number) for number in range(200)]
    with pytest.raises(DxsegError, match=r"store: .*remove it"), SqliteCache(path) as store:
        list(store.read(keys))


def test_a_clock_that_jumps_changes_no_more_than_the_key(tmp_path: Path) -> None:
    """Times are compared for equality alone: the future and the past are like any other."""
    file = tmp_path / "a.png"
    file.write_bytes(b"one")
    keys = set()
    for seconds in (4_102_444_800, 1, 1_700_000_000, -5):  # the year 2100, 1970, 2023, 1969
        os.utime(file, (seconds, seconds))
        assert file_key(file) == file_key(file)
        keys.add(file_key(file))
    assert len(keys) == 4


def test_a_temporary_store_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with SqliteCache(None) as store:
        store.put("a", b"1")
        assert list(store.read(["a"])) == [b"1"]
    assert list(tmp_path.iterdir()) == []


def test_a_changed_file_has_another_key(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(b"one")
    first = file_key(file, "kind")
    assert first == file_key(file, "kind") != file_key(file, "other")
    os.utime(file, ns=(1, 1))
    second = file_key(file, "kind")
    file.write_bytes(b"longer")
    os.utime(file, ns=(1, 1))
    assert len({first, second, file_key(file, "kind")}) == 3


def test_a_name_that_is_no_text_has_a_key(tmp_path: Path) -> None:
    file = tmp_path / os.fsdecode(b"\xff.png")
    file.write_bytes(b"x")
    with SqliteCache(None) as store:
        store.put(file_key(file), b"1")
        assert store.missing([file_key(file)]) == []

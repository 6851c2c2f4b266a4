from __future__ import annotations

import csv
from pathlib import Path

import pytest

from dxseg.errors import DxsegError
from dxseg.inference.files.table import PredictionTable

COLUMNS = ("name", "status", "error")


def row(name: str, status: str = "ok", error: str = "") -> dict[str, str]:
    return {"name": name, "status": status, "error": error}


def rows(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as stream:
        return list(csv.reader(stream))


def filled(path: Path, *names: str) -> Path:
    with PredictionTable(path, COLUMNS) as table:
        table.open(lambda _: True)
        for name in names:
            table.append(row(name))
    return path


def test_table_keeps_names_that_csv_finds_hard_and_escapes_what_is_no_text(tmp_path):
    names = ["a,b", 'quo"te', "two\nlines", "é", r"\udcff"]
    path = filled(tmp_path / "p.csv", *names[:-1], "\udcff")
    assert path.read_text(encoding="utf-8").count(r"\udcff") == 1
    seen: list[str] = []
    with PredictionTable(path, COLUMNS) as table:
        table.open(lambda found: not seen.append(found["name"]))
    assert seen == names
    assert [values[0] for values in rows(path)] == ["name", *names]


def test_every_byte_of_a_torn_last_row_is_dropped_and_the_rest_kept(tmp_path):
    path = filled(tmp_path / "p.csv", "one", 'tw"o\nlines')
    whole = path.read_bytes()
    first = whole.index(b"one,ok,\n") + len(b"one,ok,\n")
    for length in range(first, len(whole)):
        path.write_bytes(whole[:length])
        with PredictionTable(path, COLUMNS) as table:
            table.open(lambda _: True)
            table.append(row("three"))
        assert [values[0] for values in rows(path)] == ["name", "one", "three"], length


def test_rows_not_worth_keeping_go_and_rows_are_on_disk_at_once(tmp_path):
    path = filled(tmp_path / "p.csv", "one", "two")
    with PredictionTable(path, COLUMNS) as table:
        table.open(lambda found: found["name"] != "one")
        table.append(row("three", "failed", "why"))
        assert rows(path) == [list(COLUMNS), ["two", "ok", ""], ["three", "failed", "why"]]


def test_table_of_another_model_is_refused_and_left_alone(tmp_path):
    path = filled(tmp_path / "p.csv", "one")
    before = path.read_bytes()
    with pytest.raises(DxsegError, match="another output folder"):
        PredictionTable(path, ("name", "p_other")).open(lambda _: True)
    assert path.read_bytes() == before
    assert [found.name for found in tmp_path.iterdir()] == ["p.csv"]

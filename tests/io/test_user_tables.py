"""Tables as spreadsheets save them are read the same, whatever the program; others are refused."""

from __future__ import annotations

import sys
import zipfile
from datetime import date, datetime
from pathlib import Path
from typing import Any

import openpyxl
import pytest

from dxseg.errors import DxsegError
from dxseg.io.user_tables import read_user_table

ROWS = [["image", "diagnosis, final"], ["a.png", "x; y"], ["ä.png", ""]]
CONTENT = {"image": ["a.png", "ä.png"], "diagnosis, final": ["x; y", ""]}


def write_csv(path: Path, separator: str, encoding: str, first: str = "") -> Path:
    lines = [separator.join(f'"{cell}"' for cell in row) for row in ROWS]
    path.write_bytes((first + "\r\n".join(lines) + "\r\n").encode(encoding))
    return path


def write_xlsx(path: Path, *sheets: list[list[Any]]) -> Path:
    book = openpyxl.Workbook()
    for number, rows in enumerate(sheets):
        sheet = book.active if number == 0 else book.create_sheet(f"s{number}")
        assert sheet is not None
        for row in rows:
            sheet.append(row)
    book.save(path)
    return path


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_separators_and_encodings_of_spreadsheets(
    tmp_path: Path, separator: str, encoding: str
) -> None:
    table = read_user_table(write_csv(tmp_path / "t.csv", separator, encoding))
    assert table.to_dict("list") == CONTENT
    assert table.index.tolist() == [2, 3]


def test_the_separator_line_of_excel_is_obeyed_and_counted(tmp_path: Path) -> None:
    table = read_user_table(write_csv(tmp_path / "t.csv", ";", "utf-8-sig", "sep=;\r\n"))
    assert table.to_dict("list") == CONTENT
    assert table.index.tolist() == [3, 4]


def test_blanks_around_names_of_columns_are_removed(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(" image , label\na.png,x\n")
    assert list(read_user_table(tmp_path / "t.csv")) == ["image", "label"]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("t.csv", "image,label\nä.png,x\n".encode("latin-1"), "not UTF-8.*CSV UTF-8"),
        ("t.csv", b"\xff\xfea\0b", "not UTF-16"),
        ("t.csv", b"PK\x03\x04 a workbook under another name", r"\.xlsx"),
        ("t.csv", b"image, image\na,b\n", "several columns are named 'image'"),
        ("t.xls", b"", r"\.xls is not read; save it as \.xlsx"),
        ("t.xlsx", b"not a zip", "not a workbook"),
        ("absent.csv", None, "no such file"),
        ("absent.xlsx", None, "no such file"),
    ],
)
def test_other_files_are_refused_by_name(
    tmp_path: Path, name: str, content: bytes | None, words: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DxsegError, match=rf"{name}.*{words}"):
        read_user_table(tmp_path / name)


def test_cells_of_a_workbook_are_text_as_shown(tmp_path: Path) -> None:
    rows = [
        [" image", "patient", "score", "seen", "scanned", None],
        ["a.png", 101.0, 0.5, True, date(2020, 1, 2), None],
        [],
        ["b.png", 7, None, False, datetime(2020, 1, 2, 3, 4)],
        [],
    ]
    table = read_user_table(write_xlsx(tmp_path / "t.xlsx", rows, []))
    assert table.index.tolist() == [2, 4]
    assert table.to_dict("list") == {
        "image": ["a.png", "b.png"],
        "patient": ["101", "7"],
        "score": ["0.5", ""],
        "seen": ["TRUE", "FALSE"],
        "scanned": ["2020-01-02", "2020-01-02 03:04:00"],
    }


@pytest.mark.parametrize(
    ("sheets", "words"),
    [
        ([[["image"], ["a"]], [["image"], ["b"]]], "sheets 'Sheet', 's1' have values"),
        ([[]], "no sheet has values"),
        ([[["image"], ["a", "b"]]], "row 2 has 2 values, but the header 1"),
        ([[["image", "image"], ["a", "b"]]], "several columns are named"),
        ([[["a"], *[[]] * 3, ["b", *[None] * 40, "c"]]], "row 5 has 42 values"),
    ],
)
def test_workbooks_that_leave_a_question_are_refused(
    tmp_path: Path, sheets: list[list[list[Any]]], words: str
) -> None:
    with pytest.raises(DxsegError, match=rf"t\.xlsx.*{words}"):
        read_user_table(write_xlsx(tmp_path / "t.xlsx", *sheets))


def test_a_workbook_of_a_few_kilobytes_may_not_fill_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    book = openpyxl.Workbook()
    assert book.active is not None
    for row in range(1, 40):
        book.active.cell(row, 16384, "x")
    book.save(tmp_path / "wide.xlsx")
    monkeypatch.setattr("dxseg.io.workbooks._CELL_LIMIT", 100_000)
    with pytest.raises(DxsegError, match=r"wide\.xlsx.*more than 100000 cells"):
        read_user_table(tmp_path / "wide.xlsx")
    with zipfile.ZipFile(tmp_path / "bomb.xlsx", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/workbook.xml", bytes(2**20))
    monkeypatch.setattr("dxseg.io.workbooks._BYTE_LIMIT", 2**19)
    with pytest.raises(DxsegError, match=r"bomb\.xlsx.*larger than"):
        read_user_table(tmp_path / "bomb.xlsx")


def test_without_openpyxl_the_remedy_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(DxsegError, match=r"pip install 'dxseg\[excel\]'.*CSV UTF-8"):
        read_user_table(tmp_path / "t.xlsx")

"""Generated tables: none is imported with a word for nothing as a class or as one patient."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path

import openpyxl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from dxseg.data.importers.csv import ListedImages, TableRules, find_listed
from dxseg.data.importers.report import LeftOut
from dxseg.data.table.words import is_missing, spelling_key

COUNT = 8
NOTHING = ["", " ", "NA", "N/A", "n/a", "#N/A", "nan", "NaN", "None", "none", "NULL", "unknown"]
NOTHING += ["Unknown", "?", "??", "-", "missing", "<NA>", "nil", "NaT", "empty", "not available"]
NAMES = ["benign", "Benign ", "BENIGN", "1", "1.0", "0", "0.0", "mass, cystic", "malignant", "no"]
PATIENTS = ["P1", "p1", " P1", "7", "7.0", "P2", "nana", "Null, Ada"]

cells = st.tuples(
    st.sampled_from(NOTHING) | st.sampled_from(NAMES),
    st.sampled_from(NOTHING) | st.sampled_from(PATIENTS),
)
rows = st.lists(cells, min_size=COUNT, max_size=COUNT)
joined = st.lists(st.sampled_from(NOTHING) | st.sampled_from(["a", "B", "b ", "c"]), max_size=3)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("images")
    for number in range(COUNT):
        Image.new("L", (9, 8), 10 * number).save(root / f"{number}.png")
    return root


def write_table(
    folder: Path, header: list[str], rows: list[list[str]], separator: str, encoding: str
) -> Path:
    if encoding == "xlsx":
        book = openpyxl.Workbook()
        assert book.active is not None
        for row in [header, *rows]:
            book.active.append(row)
        book.save(folder / "t.xlsx")
        return folder / "t.xlsx"
    stream = io.StringIO()
    csv.writer(stream, delimiter=separator).writerows([header, *rows])
    (folder / "t.csv").write_bytes(stream.getvalue().encode(encoding))
    return folder / "t.csv"


def read(table: Path, root: Path, rules: TableRules) -> ListedImages:
    """What import csv writes, but for the files."""
    listed = find_listed(table, root, rules, {"name": "d"}, LeftOut())
    names = listed.fields["labels"]
    assert not any(is_missing(name) for name in names)
    assert len({spelling_key(name) for name in names}) == len(names)
    patients = {case.values.get("patient_id", "") for case in listed.cases} - {""}
    assert not any(is_missing(patient) for patient in patients)
    assert len({spelling_key(patient) for patient in patients}) == len(patients)
    return listed


@settings(max_examples=15)
@given(
    rows=rows,
    separator=st.sampled_from([",", ";", "\t", "|"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "xlsx"]),
)
def test_columns_of_labels_and_patients(
    images: Path,
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[str, str]],
    separator: str,
    encoding: str,
) -> None:
    folder = tmp_path_factory.mktemp("t")
    lines = [[f"{number}.png", *row] for number, row in enumerate(rows)]
    table = write_table(folder, ["image", "label", "patient"], lines, separator, encoding)
    columns = {"image": "image", "label": "label", "patient_id": "patient"}
    listed = read(table, images, TableRules(columns))
    for (label, patient), case in zip(rows, listed.cases, strict=True):
        for written, name in ((label, case.label), (patient, case.values["patient_id"])):
            assert (name == "") == is_missing(written)
            assert name == "" or spelling_key(name) == spelling_key(written)


@settings(max_examples=20)
@example(lists=[["a", "c"], ["N/A"], ["n/a", "a"], ["a", "#N/A", "B"], [], [], [], []], mark="/")
@given(
    lists=st.lists(joined, min_size=COUNT, max_size=COUNT),
    mark=st.sampled_from([";", "|", ",", "/", "\n"]),
)
def test_lists_of_labels(
    images: Path, tmp_path_factory: pytest.TempPathFactory, lists: list[list[str]], mark: str
) -> None:
    folder = tmp_path_factory.mktemp("t")
    lines = [[f"{number}.png", mark.join(row)] for number, row in enumerate(lists)]
    table = write_table(folder, ["image", "label"], lines, ",", "utf-8")
    rules = TableRules({"image": "image", "label": "label"}, multi_label=True)
    # "N/A" beside a name has a mark of its own.
    if mark != "/" and any("/" in text for row in lists for text in row):
        rules = replace(rules, separator=mark)
    listed = read(table, images, rules)
    for row, label in zip(lists, [case.label for case in listed.cases], strict=True):
        expected = {spelling_key(name) for name in row if not is_missing(name)}
        assert {spelling_key(name) for name in label.split(";") if name} == expected


@settings(max_examples=15)
@given(
    codes=st.lists(
        st.lists(st.sampled_from(["1", "0", "-1", "", "1.0", "0.0", "NA"]), min_size=3, max_size=3),
        min_size=COUNT,
        max_size=COUNT,
    ).filter(
        lambda codes: all(
            any(c not in ("", "NA") for c in column) for column in zip(*codes, strict=True)
        )
    )
)
def test_one_hot_columns(
    images: Path, tmp_path_factory: pytest.TempPathFactory, codes: list[list[str]]
) -> None:
    folder = tmp_path_factory.mktemp("t")
    names = ["mass", "cyst", "unknown"]
    lines = [[f"{number}.png", *row] for number, row in enumerate(codes)]
    table = write_table(folder, ["image", *names], lines, ",", "utf-8")
    listed = read(table, images, TableRules({"image": "image"}, one_hot=[]))
    for row, label in zip(codes, [case.label for case in listed.cases], strict=True):
        present = [name for name, code in zip(names[:2], row, strict=False) if code[:1] == "1"]
        assert label == ("" if "-1" in row else ";".join(present))

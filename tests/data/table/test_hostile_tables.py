"""Hostile tables and descriptions: one clear error, and no formula in what dxseg writes."""

from __future__ import annotations

import csv
import gzip
import os
import tracemalloc
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dxseg.commands.import_csv import import_csv
from dxseg.commands.imports import import_folder
from dxseg.data.splits.split_table import read_splits
from dxseg.data.table.dataset import Dataset, DatasetSpec
from dxseg.data.table.spec import read_spec
from dxseg.errors import DxsegError
from dxseg.inference.files.inputs import find_images
from dxseg.io.csv_io import escape_formula, is_formula, read_table

SPEC = DatasetSpec(name="d", labels=["benign", "normal"], lesion_free=["normal"])
YAML = b"name: d\nlabels: [benign, normal]\nlesion_free: [normal]\n"
TABLE = (
    b"case_id,image,label,patient_id,spacing_y,spacing_x\n"
    b'a,a.png,benign,P1,0.1,0.1\nb,"b, c.png",normal,"P ""2""",,\n'
)
SPLITS = b"case_id,group,split,fold,use_mask\na,0,train,0,True\nb,1,validation,1,False\n"


def table_of(**columns: Any) -> pd.DataFrame:
    return pd.DataFrame({"case_id": ["a"], "image": ["a.png"], **columns})


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("case_id,image\na,a.png\n".encode("utf-16"), ["not UTF-8", "save it as CSV UTF-8"]),
        ("case_id,image\na,a.png\n".encode("utf-16-le"), ["NUL", "save it as CSV UTF-8"]),
        ("case_id,image\nä,a.png\n".encode("cp1252"), ["not UTF-8"]),
        (b"case_id,image,image\na,a.png,b.png\n", ["several columns", "'image'"]),
        (b"case_id,image,\na,a.png,x\n", ["column 3", "no name"]),
        (b"case_id,image\na\0,a.png\n", ["row 2", "case_id", "control character"]),
        (b"case_id,image,spacing_y,spacing_x\na,a.png,NaN,1\n", ["row 2", "spacing_y", "'NaN'"]),
        (b"case_id,image,spacing_y,spacing_x\na,a.png,1e999,1\n", ["row 2", "'1e999'"]),
        (b"case_id,image,slice_index\na,a.png,1e300\n", ["row 2", "slice_index"]),
        (b'case_id,image\n"a,a.png\n', ["not a table"]),
        (b"case_id,image\na," + b"x" * 5000 + b"\n", ["row 2", "image", "4096"]),
        (b"case_id,image\na,a.png\n=1+1,b.png\n", ["row 3", "case_id", "formula"]),
        (b"case_id,image\na,=1+1.png\n", ["row 2", "image", "formula", "./"]),
        (b"case_id,image,patient_id\na,a.png,@SUM(A1)\n", ["patient_id", "formula"]),
        (b"case_id,image,volume_id\na,a.png,+cmd|' /C calc'!A0\n", ["volume_id", "formula"]),
        (b"\xef\xbb\xbf", ["not a table"]),
        (b"\n\n\n", ["not a table"]),
        (b"\0" * 100, ["cases.csv"]),
        (b"PK\x03\x04 an archive", ["cases.csv"]),
    ],
)
def test_tables_are_refused_with_a_place(tmp_path: Path, content: bytes, words: list[str]) -> None:
    (tmp_path / "dataset.yaml").write_bytes(YAML)
    (tmp_path / "cases.csv").write_bytes(content)
    with pytest.raises(DxsegError) as caught:
        Dataset.load(tmp_path)
    for word in ["cases.csv", *words]:
        assert word in str(caught.value)


def test_empty_columns_without_a_name_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"\xef\xbb\xbfa,,b,\r\n1,,2,\r\n")
    assert read_table(tmp_path / "t.csv").to_dict("list") == {"a": ["1"], "b": ["2"]}


def test_archives_and_what_is_no_file_are_not_opened(tmp_path: Path) -> None:
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(b"a,b\n1,2\n"))
    with pytest.raises(DxsegError, match="not UTF-8"):
        read_table(tmp_path / "t.csv.gz")
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(DxsegError, match="not a file"):
        read_table(tmp_path / "pipe.csv")


@pytest.mark.parametrize(
    "content",
    [
        b"name: " + b"[" * 1000,
        b"name: 2001-99-99",
        b"name: !!bool maybe",
        b"name: !!int ''",
        b"name: !!timestamp x",
        b"name: " + b"9" * 5000,
        b"\xff\xfen\0a\0",
        b"name: a\0b",
        b"? [a]\n: b",
        b"&a [*a]",
    ],
)
def test_odd_yaml_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "dataset.yaml").write_bytes(content)
    with pytest.raises(DxsegError, match=r"dataset\.yaml"):
        read_spec(tmp_path / "dataset.yaml")


def test_yaml_that_multiplies_itself_is_refused_in_little_memory(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    (tmp_path / "dataset.yaml").write_text("\n".join([*lines, "name: *a11", "labels: *a11"]))
    tracemalloc.start()
    with pytest.raises(DxsegError, match="field name"):
        read_spec(tmp_path / "dataset.yaml")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**24


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    content = bytearray(whole)
    for _ in range(draw(st.integers(1, 5))):
        at = draw(st.integers(0, len(content)))
        way = draw(st.sampled_from(["put", "cut", "remove", "double"]))
        if way == "put":
            odd = [b"\0", b'"', b",", b"\n", b"\r", b"=", b"-", b"\xff", b"1e999", b"&", b"!!"]
            content[at:at] = draw(st.sampled_from(odd) | st.binary(max_size=4))
        elif way == "cut":
            del content[at:]
        elif way == "remove":
            del content[at : at + draw(st.integers(0, 12))]
        else:
            content[at:at] = content[at : at + 30]
    return bytes(content)


@given(table=damaged(TABLE), yaml=st.just(YAML) | damaged(YAML))
@settings(max_examples=120)
def test_damaged_datasets_load_or_raise_our_error(
    tmp_path_factory: pytest.TempPathFactory, table: bytes, yaml: bytes
) -> None:
    folder = tmp_path_factory.getbasetemp() / "damaged"
    folder.mkdir(exist_ok=True)
    (folder / "dataset.yaml").write_bytes(yaml)
    (folder / "cases.csv").write_bytes(table)
    with suppress(DxsegError):
        dataset = Dataset.load(folder)
        # Whatever was understood is written and read back as the same.
        dataset.save()
        assert Dataset.load(folder).digest() == dataset.digest()


@given(content=damaged(SPLITS))
@settings(max_examples=60)
def test_damaged_splits_are_read_or_raise_our_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.csv"
    path.write_bytes(content)
    cases = pd.DataFrame({"case_id": ["a", "b"], "image": ["a.png", "b.png"]})
    with suppress(DxsegError):
        assert len(read_splits(path, Dataset(path.parent, SPEC, cases))) == 2


@pytest.mark.parametrize("group", ["1e300", "1.0000000001", "inf", "nan", "-1", "9007199254740993"])
def test_groups_that_are_no_whole_numbers_are_refused(tmp_path: Path, group: str) -> None:
    (tmp_path / "s.csv").write_bytes(SPLITS.replace(b"a,0", f"a,{group}".encode()))
    cases = pd.DataFrame({"case_id": ["a", "b"], "image": ["a.png", "b.png"]})
    with pytest.raises(DxsegError, match=r"case a: column group.*whole number"):
        read_splits(tmp_path / "s.csv", Dataset(tmp_path, SPEC, cases))


@pytest.mark.parametrize("text", ["=1", "@A1", "+1+1", "-A1", "-1.png", "＝1", "=", "@"])
def test_formulas_are_seen(text: str) -> None:
    assert is_formula(text)
    assert not is_formula(escape_formula(text))


@pytest.mark.parametrize("text", ["", "a=1", "-", "+", "-5", "+0.5", "P-1", " =1", "1-2"])
def test_other_text_is_no_formula(text: str) -> None:
    assert not is_formula(text)
    assert escape_formula(text) == text


def cells(path: Path) -> list[str]:
    with path.open(newline="", encoding="utf-8") as stream:
        return [cell for row in csv.reader(stream) for cell in row]


def test_names_of_files_become_no_formulas(tmp_path: Path) -> None:
    folder = tmp_path / "images" / "benign"
    folder.mkdir(parents=True)
    names = ["=cmd.png", "@x.png", "+1+1.png", "-1.png", "plain.png"]
    for number, name in enumerate(names):
        pixels = (np.arange(64).reshape(8, 8) * 4 + number).astype(np.uint8)
        Image.fromarray(pixels).save(folder / name)
        Image.fromarray(pixels).save(tmp_path / "images" / name)
    import_folder(tmp_path / "images", tmp_path / "out")
    (tmp_path / "list.csv").write_text("file\n" + "\n".join(names) + "\n")
    import_csv(
        tmp_path / "list.csv",
        tmp_path / "again",
        columns={"image": "file"},
        images_root=tmp_path / "images",
    )
    for made in ("out", "again"):
        dataset = Dataset.load(tmp_path / made)
        assert len(dataset) == len(names)
        assert not [cell for cell in cells(tmp_path / made / "cases.csv") if is_formula(cell)]
        for row in dataset.cases.itertuples():
            assert dataset.image_path(row).is_file()
    items = find_images([folder])
    assert len(items) == len(names)
    assert not [item.name for item in items if is_formula(item.name)]


@pytest.mark.parametrize("column", ["label", "case_id", "patient_id"])
def test_formulas_in_a_users_table_are_refused(tmp_path: Path, column: str) -> None:
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "list.csv").write_text(f"file,{column}\na.png,=HYPERLINK(1)\n")
    columns = {"image": "file", column: column}
    with pytest.raises(DxsegError, match="formula"):
        import_csv(tmp_path / "list.csv", tmp_path / "out", columns=columns)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("path", ["../x.png", "a/../../x.png", "/x.png", "C:\\x.png", "..\\x.png"])
def test_paths_that_lead_out_are_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(DxsegError, match="relative to the dataset's folder"):
        Dataset(tmp_path, SPEC, table_of(mask=[path]))

"""Names of cases are valid and unique on every file system; files are found by any form."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dxseg.data.importers.file_index import FileIndex
from dxseg.data.importers.names import fold_name, plain_name, unique_names
from dxseg.data.table.cases import validate_cases
from dxseg.data.table.spec import DatasetSpec
from dxseg.errors import DxsegError

SPEC = DatasetSpec(name="d", labels=[])


@settings(max_examples=30)
@given(st.lists(st.text(min_size=1, max_size=300) | st.sampled_from(["a", "A", "ä", "患" * 200])))
def test_any_names_become_distinct_case_ids_of_bounded_bytes(names: list[str]) -> None:
    ids = unique_names(plain_name(name) or "_" for name in names)
    assert len({fold_name(name) for name in ids}) == len(ids)
    assert all(len(os.fsencode(name)) <= 200 for name in ids)
    if ids:
        table = pd.DataFrame({"case_id": ids, "image": [f"{n}.png" for n in range(len(ids))]})
        assert validate_cases(table, SPEC, Path("cases.csv"))["case_id"].tolist() == ids


def test_the_end_of_a_long_name_is_kept() -> None:
    assert plain_name("患" * 160 + "7") == "患" * 63 + "7"
    assert plain_name("a" * 300) == "a" * 190
    assert plain_name("a/b\\c\nd") == "a_b_c_d"


def make(root: Path, *names: str) -> FileIndex:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return FileIndex(root)


def test_files_are_found_in_another_form_and_told(tmp_path: Path) -> None:
    decomposed = unicodedata.normalize("NFD", "Läsion")
    index = make(tmp_path, f"Über/{decomposed}.PNG", "b/plain.png", "b/scan.1.tif")
    found = {
        "b/plain.png": "b/plain.png",
        "b/plain": "b/plain.png",
        "b/scan.1": "b/scan.1.tif",
        "B/Plain.png": "b/plain.png",
        "über/läsion.png": f"Über/{decomposed}.PNG",
        "über/läsion": f"Über/{decomposed}.PNG",
        "b/absent.png": "b/absent.png",
        "../outside.png": "../outside.png",
    }
    assert {name: str(index.find(name).relative_to(tmp_path)) for name in found} == found
    assert sorted(index.renamed) == ["B/Plain.png", "über/läsion", "über/läsion.png"]
    assert "3 (" in index.notes()[0]


def test_names_that_may_be_two_files_are_refused(tmp_path: Path) -> None:
    index = make(tmp_path, "a.png", "A.png")
    assert index.find("a.png") == tmp_path / "a.png"
    index = make(tmp_path, "Ä.png", unicodedata.normalize("NFD", "Ä.png"))
    with pytest.raises(DxsegError, match=r"'ä\.png' may be"):
        index.find("ä.png")

"""YAML files that people write: what is read, and what is told of the others."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dxseg.errors import DxsegError, UsageError
from dxseg.io import yaml as yaml_files
from dxseg.io.yaml import parse_yaml, read_small_text


def test_a_byte_order_mark_is_not_part_of_the_text(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes("\ufefflabel: Läsion\n".encode())
    assert parse_yaml(read_small_text(path, "labels"), str(path)) == {"label": "Läsion"}


def test_what_cannot_be_read_is_told_with_what_was_expected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = tmp_path / "large.yaml"
    large.write_text("name: d\n")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match=r"cannot be read .*; expected labels, in UTF-8"):
        read_small_text(tmp_path, "labels", UsageError)
    monkeypatch.setattr(yaml_files, "BYTE_LIMIT", 7)
    for path, told in (
        (tmp_path / "absent.yaml", "absent.yaml: not found; expected labels"),
        (tmp_path / "bytes.yaml", "bytes.yaml: cannot be read .*; expected labels, in UTF-8"),
        (large, "large.yaml: larger than 7 bytes; expected labels"),
    ):
        with pytest.raises(UsageError, match=told):
            read_small_text(path, "labels", UsageError)


@given(st.text(max_size=40))
def test_whatever_the_text_is_it_is_yaml_or_told(text: str) -> None:
    told = ""
    try:
        parse_yaml(text, "a.yaml")
    except DxsegError as error:
        told = str(error)
    assert not told or told.startswith("a.yaml: not valid YAML; fix the place named here: ")


def test_no_python_object_is_made() -> None:
    with pytest.raises(DxsegError, match="could not determine a constructor"):
        parse_yaml("!!python/object/apply:os.system ['true']", "a.yaml")

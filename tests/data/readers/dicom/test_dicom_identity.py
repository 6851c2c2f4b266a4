"""Pseudonyms are the same for the same key, and say nothing without it."""

from __future__ import annotations

import os
import stat
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dxseg.data.readers.dicom.identity import Pseudonyms, open_key
from dxseg.errors import DxsegError, UsageError


def test_pseudonyms_are_hmac_sha256() -> None:
    # RFC 2104 by hand, of "patient\0P1" under a key of 32 bytes.
    key = bytes(range(32))
    inner = bytes(byte ^ 0x36 for byte in key + bytes(32))
    outer = bytes(byte ^ 0x5C for byte in key + bytes(32))
    digest = sha256(outer + sha256(inner + b"patient\0P1").digest()).hexdigest()
    assert Pseudonyms(key).name("patient", "P1") == f"patient-{digest[:16]}"


@settings(max_examples=30)
@given(st.text(max_size=20), st.text(max_size=20))
def test_another_key_kind_or_identifier_gives_another_name(one: str, other: str) -> None:
    names = Pseudonyms(bytes(32))
    name = names.name("patient", one)
    assert name == names.name("patient", one)
    assert name != Pseudonyms(bytes(31) + b"\1").name("patient", one)
    assert name.removeprefix("patient") != names.name("study", one).removeprefix("study")
    if one != other:
        assert name != names.name("patient", other)


def test_a_key_is_made_once_and_for_its_owner_only(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        key = open_key(tmp_path / "keys" / "a.key", tmp_path / "data")
    finally:
        os.umask(old)
    path = tmp_path / "keys" / "a.key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(key) == 32
    assert open_key(path, tmp_path / "data") == key
    assert open_key(tmp_path / "b.key", tmp_path / "data") != key
    assert [entry.name for entry in path.parent.iterdir()] == ["a.key"]


@pytest.mark.parametrize("content", ["", "secret-word", "00" * 31, "00" * 33, "zz" * 32, "é"])
def test_what_is_no_key_is_refused_and_not_shown(tmp_path: Path, content: str) -> None:
    path = tmp_path / "a.key"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DxsegError, match="expected 64 hexadecimal digits") as caught:
        open_key(path, tmp_path / "data")
    assert not content or content not in str(caught.value)
    assert path.read_text(encoding="utf-8") == content


def test_a_key_in_the_dataset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is in the dataset"):
        open_key(tmp_path / "data" / "a.key", tmp_path / "data")
    (tmp_path / "data").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "data")
    with pytest.raises(UsageError, match="is in the dataset"):
        open_key(tmp_path / "link" / "a.key", tmp_path / "data")
    assert list((tmp_path / "data").iterdir()) == []

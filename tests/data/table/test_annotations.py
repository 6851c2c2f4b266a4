"""Masks that people drew, in the dataset: file, table and record agree, whatever fails."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from dxseg.data.readers.masks import read_mask
from dxseg.data.table import annotations, records
from dxseg.data.table.annotations import (
    ChangedCaseError,
    UnknownCaseError,
    remove_leftovers,
    save_mask,
)
from dxseg.data.table.dataset import Dataset
from dxseg.data.table.records import ROLES
from dxseg.errors import DxsegError, UsageError
from dxseg.io.atomic import sha256_file
from dxseg.io.csv_io import read_table
from serving import squares


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return squares(tmp_path / "data").root


def drawn(value: int = 1) -> np.ndarray:
    mask = np.zeros((48, 64), np.uint8)
    mask[5:9, 7:20] = value
    return mask


def state(root: Path) -> dict[str, bytes]:
    """All files but the lock."""
    files = [path for path in root.rglob("*") if path.is_file() and path.suffix != ".lock"]
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


def test_a_mask_is_a_file_a_row_and_a_record(root: Path) -> None:
    (root / "dataset.yaml").write_text((root / "dataset.yaml").read_text() + "# a remark\n")
    before = state(root)
    done = save_mask(root, "case1", drawn(), "radiologist", model="abc", known="bright")
    dataset = Dataset.load(root)
    rows = dataset.cases.set_index("case_id")
    assert rows["mask"].to_dict() == {"case0": "", "case1": done.mask, "case2": "", "case3": ""}
    assert np.array_equal(read_mask(dataset.mask_path(dataset.cases.iloc[1]), 1), drawn())
    [record] = read_table(root / "annotations.csv").to_dict("records")
    assert record == vars(done)
    assert (record["role"], record["model"], record["known"]) == ("radiologist", "abc", "bright")
    assert record["mask_sha256"] == sha256_file(root / done.mask)
    assert record["time"].endswith("+00:00")
    after = state(root)
    assert set(after) - set(before) == {done.mask, "annotations.csv"}
    assert {name for name in before if before[name] != after[name]} == {"cases.csv"}


def test_a_mask_that_is_replaced_stays(root: Path) -> None:
    first = save_mask(root, "case0", drawn(), "trainee")
    second = save_mask(root, "case0", drawn(0), "radiologist", previous=first.mask)
    assert second.previous == first.mask
    assert read_mask(root / first.mask, 1).any()
    assert Dataset.load(root).cases["mask"][0] == second.mask
    assert len(read_table(root / "annotations.csv")) == 2


@pytest.mark.parametrize(
    ("case", "mask", "role", "previous", "error", "told"),
    [
        ("nobody", drawn(), "other", "", UnknownCaseError, "no case 'nobody'"),
        ("case0", drawn(), "Dr. Smith", "", UsageError, "radiologist"),
        ("case0", drawn(), "other", "masks/a.png", ChangedCaseError, "open the case again"),
        ("case0", drawn().T, "other", "", DxsegError, r"\(48, 64\)"),
        ("case0", drawn(2), "other", "", DxsegError, "value 2; expected 0 to 1"),
        ("case3", drawn(), "other", "", DxsegError, "means lesion-free"),
    ],
)
def test_what_does_not_fit_changes_nothing(
    root: Path, case: str, mask: np.ndarray, role: str, previous: str, error: type, told: str
) -> None:
    before = state(root)
    with pytest.raises(error, match=told):
        save_mask(root, case, mask, role, previous=previous)
    assert state(root) == before


@pytest.mark.parametrize("failing", ["write_mask", "write_bytes_atomic", "save_cases"])
@pytest.mark.parametrize("earlier", [False, True])
def test_a_failure_leaves_the_dataset_as_it_was(
    root: Path, monkeypatch: pytest.MonkeyPatch, failing: str, earlier: bool
) -> None:
    if earlier:
        save_mask(root, "case1", drawn(), "other")
    before = state(root)

    def full(*_arguments: object, **_more: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        where = {"write_mask": annotations, "write_bytes_atomic": records, "save_cases": Dataset}
        patch.setattr(where[failing], failing, full)
        with pytest.raises((DxsegError, OSError), match="No space left"):
            save_mask(root, "case0", drawn(), "other")
    assert state(root) == before
    assert save_mask(root, "case0", drawn(), "other").case_id == "case0"


def test_many_at_once_are_all_kept(root: Path) -> None:
    together = threading.Barrier(3)

    def save(number: int) -> str:
        together.wait()
        return save_mask(root, f"case{number}", drawn(), ROLES[number]).mask

    with ThreadPoolExecutor(3) as pool:
        names = list(pool.map(save, range(3)))
    assert Dataset.load(root).cases["mask"].tolist() == [*names, ""]
    assert len(read_table(root / "annotations.csv")) == 3


def test_of_two_for_one_case_the_second_is_told(root: Path) -> None:
    together = threading.Barrier(2)

    def save(role: str) -> str:
        together.wait()
        try:
            return save_mask(root, "case0", drawn(), role).mask
        except ChangedCaseError:
            return ""

    with ThreadPoolExecutor(2) as pool:
        names = set(pool.map(save, ROLES[:2]))
    assert names == {"", Dataset.load(root).cases["mask"][0]}


def test_a_log_that_leads_out_is_refused(root: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.csv").write_text("secret")
    (root / "annotations.csv").symlink_to(tmp_path / "secret.csv")
    before = state(root)
    with pytest.raises(DxsegError, match=r"annotations\.csv: leads out"):
        save_mask(root, "case0", drawn(), "other")
    assert state(root) == before


def test_what_killed_saves_left_is_removed_and_finished_masks_stay(root: Path) -> None:
    done = save_mask(root, "case0", drawn(), "other")
    (root / "masks/case1-0123456789ab.png").write_bytes(b"drawn, but not recorded")
    kept = state(root)
    (root / "masks/.case1-0123456789ab.0123456789ab.png").write_bytes(b"half")
    (root / ".annotations.0123456789ab.csv").write_bytes(b"half")
    assert remove_leftovers(root) == 2
    assert state(root) == kept
    assert done.mask in kept


def test_a_folder_of_masks_that_leads_out_is_refused(root: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (root / "masks").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DxsegError, match="leads out"):
        save_mask(root, "case0", drawn(), "other")
    assert list((tmp_path / "elsewhere").iterdir()) == []

"""`splits.csv`: written, read back, and refused when damaged."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from dxseg.data.splits.holdout import make_splits
from dxseg.data.splits.mask_budget import choose_masks
from dxseg.data.splits.split_table import read_splits, write_splits
from dxseg.data.table.dataset import Dataset
from dxseg.errors import DxsegError
from split_datasets import make_dataset


@pytest.fixture
def written(tmp_path: Path) -> tuple[Path, Dataset, pd.DataFrame]:
    dataset = make_dataset(["benign"] * 8 + ["normal"] * 4)
    splits = choose_masks(
        dataset, make_splits(dataset), train_masks=2, validation_masks=None, seed=0
    )
    path = tmp_path / "splits.csv"
    write_splits(path, splits)
    return path, dataset, splits


def test_written_splits_read_back(written: tuple[Path, Dataset, pd.DataFrame]) -> None:
    path, dataset, splits = written
    pd.testing.assert_frame_equal(read_splits(path, dataset), splits, check_dtype=False)
    reordered = pd.read_csv(path, dtype=str, na_filter=False).iloc[::-1]
    reordered.to_csv(path, index=False)
    again = read_splits(path, dataset)
    pd.testing.assert_frame_equal(again, splits, check_dtype=False)
    assert again["use_mask"].dtype == bool
    assert again["fold"].dtype == "Int64"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("c0,", "c1,", "case_id"),
        ("c0,", "stranger,", "are not in the dataset: stranger"),
        ("train", "training", "training"),
        ("True", "yes", "use_mask"),
        ("c1,1,", "c1,0,", "divided"),
        ("c1,1,", "c1,one,", "group"),
        ("case_id,", "case,", "columns"),
    ],
)
def test_damaged_splits_are_refused(
    written: tuple[Path, Dataset, pd.DataFrame], old: str, new: str, message: str
) -> None:
    path, dataset, splits = written
    if message == "divided":
        splits.loc[[0, 1], ["split", "fold"]] = [["train", 0], ["train", 1]]
        write_splits(path, splits)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(DxsegError, match=message):
        read_splits(path, dataset)


def test_missing_cases_are_named(written: tuple[Path, Dataset, pd.DataFrame]) -> None:
    path, dataset, _ = written
    path.write_text("\n".join(path.read_text().splitlines()[:-1]) + "\n")
    with pytest.raises(DxsegError, match=r"1 cases are missing: c11"):
        read_splits(path, dataset)

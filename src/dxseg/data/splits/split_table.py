"""The file splits.csv: one row per case, the same for both training stages."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from dxseg.data.splits.known_labels import HIDDEN_LEVELS
from dxseg.data.table.cases import SPLITS
from dxseg.data.table.dataset import Dataset
from dxseg.errors import DxsegError
from dxseg.io.atomic import write_text_atomic
from dxseg.io.csv_io import read_table

COLUMNS = ("case_id", "group", "split", "fold")
_OPTIONAL = ("use_mask", "label_level")


def write_splits(path: str | Path, splits: pd.DataFrame) -> None:
    """Write a table of splits atomically as CSV.

    Args:
        path: The file, replaced if it exists.
        splits: Columns case_id, group, split, fold and optionally use_mask and label_level.
    """
    write_text_atomic(path, splits.to_csv(index=False, lineterminator="\n"))


def without_masks(splits: pd.DataFrame) -> pd.DataFrame:
    """A copy without the choice of masks, which belongs to one split and one budget.

    Args:
        splits: As `read_splits` returns it.
    """
    return splits.drop(columns=list(_OPTIONAL), errors="ignore").copy()


def read_splits(path: str | Path, dataset: Dataset) -> pd.DataFrame:
    """Read a table of splits and check it against its dataset.

    Args:
        path: A file as `write_splits` writes it.
        dataset: The dataset; its cases and those of the file must be the same.

    Returns:
        The table in the order of the dataset: case_id, group int64, split, fold Int64, and, if the
        file has them, bool use_mask and label_level (see `choose_masks`).

    Raises:
        DxsegError: The file is absent or malformed, lists other cases, or divides a group.
    """
    result = parse_splits(path, dataset)
    check_groups(result, str(path))
    return result


def parse_splits(path: str | Path, dataset: Dataset) -> pd.DataFrame:
    """Read a table of splits as `read_splits` does, without checking whether it divides a group.

    Args:
        path: A file as `write_splits` writes it.
        dataset: The dataset; its cases and those of the file must be the same.

    Raises:
        DxsegError: The file is absent or malformed, or lists other cases.
    """
    table = read_table(Path(path)).reset_index(drop=True)
    columns = [*COLUMNS, *(name for name in _OPTIONAL if name in table)]
    if sorted(table.columns) != sorted(columns):
        raise DxsegError(
            f"{path}: columns {', '.join(map(str, table.columns))}; expected {', '.join(COLUMNS)} "
            f"and optionally {' and '.join(_OPTIONAL)}; write it again with `dxseg split`"
        )
    _check_cases(table["case_id"], dataset.cases["case_id"], str(path))
    _check_values(table, "split", SPLITS, str(path))
    result = pd.DataFrame({"case_id": table["case_id"], "split": table["split"]})
    result.insert(1, "group", _parse_integers(table, "group", str(path)).astype("int64"))
    result["fold"] = _parse_integers(table, "fold", str(path))
    if "use_mask" in table:
        _check_values(table, "use_mask", ("True", "False"), str(path))
        result["use_mask"] = table["use_mask"].eq("True").astype(bool)
    if "label_level" in table:
        _check_values(table, "label_level", ("", *HIDDEN_LEVELS), str(path))
        result["label_level"] = table["label_level"]
    return result.set_index("case_id").loc[dataset.cases["case_id"]].reset_index()


def check_groups(splits: pd.DataFrame, source: str) -> None:
    """Check that no group is divided between splits, or between folds.

    Dropped cases do not count: a contradiction may drop some images of a patient.

    Args:
        splits: Columns case_id, group, split, fold.
        source: File named in the error.

    Raises:
        DxsegError: A group is divided; the message has a case of each of up to ten such groups.
    """
    kept = splits[splits["split"] != "dropped"]
    for rows, column in ((kept, "split"), (kept[kept["split"] != "test"], "fold")):
        # Folds may cut across train and validation, never across a group.
        values = rows.groupby("group")[column].nunique(dropna=False)
        divided = values[values > 1].index
        if len(divided) == 0:
            continue
        first = rows[rows["group"].isin(divided)].drop_duplicates("group").head(10)
        raise DxsegError(
            f"{source}: column {column}: {len(divided)} groups of images that belong together (one "
            f"patient, volume or near-duplicates) are divided; cases {', '.join(first['case_id'])}"
            f" and others of their groups; give each group one {column}, or empty the column for a "
            "new split"
        )


def _check_cases(found: pd.Series[str], expected: pd.Series[str], source: str) -> None:
    repeated = found[found.duplicated()]
    unknown = found[~found.isin(expected)]
    missing = expected[~expected.isin(found)]
    for problem, values in (
        ("occur twice", repeated),
        ("are not in the dataset", unknown),
        ("are missing", missing),
    ):
        if len(values):
            raise DxsegError(
                f"{source}: column case_id: {len(values)} cases {problem}: "
                f"{', '.join(values.head(10))}; split the dataset again with `dxseg split`"
            )


def _check_values(table: pd.DataFrame, column: str, allowed: tuple[str, ...], source: str) -> None:
    wrong = table[~table[column].isin(allowed)]
    if len(wrong):
        raise DxsegError(
            f"{source}: case {wrong['case_id'].iloc[0]}: column {column}: "
            f"{wrong[column].iloc[0]!r} ({len(wrong)} such rows); expected {', '.join(allowed)}"
        )


def _parse_integers(table: pd.DataFrame, column: str, source: str) -> pd.Series[int]:
    """Parse a column of whole numbers from 0; only folds of test and dropped cases may be empty."""
    text = table[column]
    numbers = pd.to_numeric(text.where(text.ne("")), errors="coerce")
    optional = table["split"].isin(["test", "dropped"]) if column == "fold" else False
    whole = numbers.ge(0) & numbers.lt(2**53) & numbers.mod(1).eq(0)
    wrong = ~whole & ~(text.eq("") & optional)
    if wrong.any():
        row = table[wrong].iloc[0]
        raise DxsegError(
            f"{source}: case {row['case_id']}: column {column}: {row[column]!r} "
            f"({int(wrong.sum())} such rows); expected a whole number from 0"
        )
    return numbers.astype("Int64")

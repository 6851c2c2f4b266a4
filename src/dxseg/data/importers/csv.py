"""Images that a CSV file lists, with its columns mapped to those of dxseg."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from dxseg.data.importers.image_dataset import FoundCase
from dxseg.data.readers.images import READERS
from dxseg.data.table.cases import COLUMNS, validate_cases
from dxseg.data.table.spec import make_spec
from dxseg.errors import DxsegError
from dxseg.io.csv_io import escape_formula
from dxseg.io.user_tables import read_user_table

Skipped = list[tuple[str, str]]

_LISTED = 10


def read_mapped_table(csv: Path, root: Path, columns: Mapping[str, str]) -> pd.DataFrame:
    """Read the mapped columns of a table, with paths relative to a root.

    Args:
        csv: CSV file, UTF-8 with a header, separated by commas, semicolons or tabs.
        root: Folder that paths are relative to.
        columns: Column of the table for each field of `cases.csv`; image is required.

    Returns:
        The columns under their names in `cases.csv`; the index is the line of the file.

    Raises:
        DxsegError: The root or a column is missing, or rows of one image contradict each other.
    """
    if not root.is_dir():
        raise DxsegError(f"{root}: no such folder; expected the folder that paths are relative to")
    table = _read(csv, columns)
    _make_relative(table, root)
    _refuse_contradictions(table, csv)
    return table


def list_labels(table: pd.DataFrame, multi_label: bool) -> list[str]:
    """List the labels in a table, sorted.

    Args:
        table: As `read_mapped_table` returns it.
        multi_label: Labels are written "a;b".
    """
    if "label" not in table:
        return []
    texts = [str(text) for text in table["label"].unique()]
    parts = [
        part.strip() for text in texts for part in (text.split(";") if multi_label else [text])
    ]
    return sorted({part for part in parts if part})


def find_listed(
    table: pd.DataFrame, csv: Path, root: Path, fields: dict[str, Any], skipped: Skipped
) -> list[FoundCase]:
    """Find the images and masks of a table; rows of one image become one case.

    Args:
        table: As `read_mapped_table` returns it.
        csv: The file that it was read from, for errors.
        root: Folder that paths are relative to; one without a suffix gets that of the file that
            exists.
        fields: Fields of `DatasetSpec` that the values have to fit.
        skipped: List to which masks that do not exist are added.

    Raises:
        DxsegError: Values are wrong; they are reported by line.
    """
    _validate(table, fields, csv)
    return _gather(table, root, skipped)


def _read(csv: Path, columns: Mapping[str, str]) -> pd.DataFrame:
    """Read the mapped columns under their names in `cases.csv`."""
    unknown = [column for column in columns if column not in COLUMNS]
    if unknown or "image" not in columns:
        raise DxsegError(
            f"column mapping {dict(columns)}: expected image and any of {', '.join(COLUMNS)}"
            + (f"; unknown: {', '.join(unknown)}" if unknown else "")
        )
    table = read_user_table(csv)
    absent = sorted(set(columns.values()) - set(table.columns))
    if absent:
        raise DxsegError(
            f"{csv}: no column {', '.join(map(repr, absent))}; it has "
            f"{', '.join(str(column) for column in table.columns[:30])}; correct the mapping"
        )
    if table.empty:
        raise DxsegError(f"{csv}: no rows; expected one row per image")
    chosen = {column: table[given].str.strip() for column, given in columns.items()}
    return pd.DataFrame(chosen, index=table.index)


def _make_relative(table: pd.DataFrame, root: Path) -> None:
    """Make absolute paths below the root relative; others stay and are errors."""
    for column in ("image", "mask"):
        if column in table:
            prefix = f"{root.as_posix()}/"
            relative = table[column].str.removeprefix(prefix).str.removeprefix("./")
            table[column] = relative.map(escape_formula)


def _validate(table: pd.DataFrame, fields: dict[str, Any], csv: Path) -> None:
    """Check the values while lines are still those of the user's file."""
    checked = table.drop_duplicates("image")
    if "case_id" not in checked:
        checked = checked.assign(case_id=[f"row {line}" for line in checked.index])
    validate_cases(checked, make_spec(fields, str(csv)), csv)


def _gather(table: pd.DataFrame, root: Path, skipped: Skipped) -> list[FoundCase]:
    own = [column for column in table.columns if column not in ("image", "mask", "label")]
    cases: dict[str, FoundCase] = {}
    for row in table.to_dict("records"):
        key = str(row["image"])
        if key not in cases:
            values = {column: row[column] for column in own}
            label = str(row.get("label", ""))
            cases[key] = FoundCase(image=_existing(root / key), label=label, values=values)
        mask = _existing(root / str(row["mask"])) if row.get("mask") else None
        if mask is None or mask in cases[key].masks:
            continue
        if mask.is_file():
            cases[key].masks.append(mask)
        else:
            skipped.append((str(mask), "no such mask; its image is imported without it"))
    return list(cases.values())


def _refuse_contradictions(table: pd.DataFrame, csv: Path) -> None:
    rest = [column for column in table.columns if column not in ("image", "mask", "case_id")]
    several = table[table.duplicated("image", keep=False)]
    if not rest or several.empty:
        return
    # All images at once: one by one takes minutes for a million rows.
    differing = several.groupby("image", sort=False)[rest].nunique().gt(1).any(axis=1)
    several = several[several["image"].isin(differing.index[differing])]
    problems = []
    for image, rows in several.groupby("image", sort=False):
        for column in rest:
            if rows[column].nunique() > 1:
                lines = ", ".join(str(line) for line in rows.index[:5])
                values = " and ".join(repr(value) for value in rows[column].unique()[:5])
                problems.append(f"rows {lines}: image {image!r} has {column} {values}")
    if problems:
        shown = [*problems[:_LISTED]]
        if len(problems) > _LISTED:
            shown.append(f"... and {len(problems) - _LISTED} more")
        raise DxsegError(
            "\n  ".join([f"{csv}: rows of one image contradict each other; correct them", *shown])
        )


def _existing(path: Path) -> Path:
    """Complete a path without a known suffix, as in lists of identifiers."""
    if path.suffix.lower() in READERS or path.is_file():
        return path
    completed = (path.with_name(path.name + suffix) for suffix in READERS)
    return next((candidate for candidate in completed if candidate.is_file()), path)

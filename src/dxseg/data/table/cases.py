"""The table `cases.csv`: validation column by column, so that a million rows load."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from dxseg.data.geometry import Spacing
from dxseg.data.table.case_errors import CaseErrors, Flags
from dxseg.data.table.spec import DatasetSpec
from dxseg.data.table.volumes import GRID, check_levels, check_volumes
from dxseg.data.table.words import is_missing
from dxseg.errors import DxsegError
from dxseg.io.csv_io import is_formula
from dxseg.io.remote import address_fault, is_address

CASES_FILE = "cases.csv"
COLUMNS = (
    "case_id",
    "image",
    "mask",
    "label",
    "patient_id",
    "split",
    "fold",
    "spacing_y",
    "spacing_x",
    "spacing_z",
    "volume_id",
    "slice_index",
    "label_level",
    "group",
)
SPLITS = TRAIN, VALIDATION, TEST, DROPPED = ("train", "validation", "test", "dropped")
_REQUIRED = ("case_id", "image")
_TEXT = (
    *("case_id", "image", "mask", "label", "patient_id", "split", "volume_id"),
    *("label_level", "group"),
)
_WHOLE = ("fold", "slice_index")
_SPACING = ("spacing_y", "spacing_x")
_LENGTH = 4096
_SIGNS = tuple("=@+-＝＠＋－")
_CONTROL = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]")
# Case ids become names of files, of which file systems allow 255 bytes with what is added: one
# plain path component.
_CASE_ID = re.compile(r"[^\s./\\][^/\\]*")
_CASE_ID_BYTES = 200


def validate_cases(table: pd.DataFrame, spec: DatasetSpec, source: Path) -> pd.DataFrame:
    """Check every value of a table of cases and convert its columns to their types.

    Args:
        table: At least the columns case_id and image; values may be text or already typed. An
            index named "line" (as from `read_table`) has the line number of each row.
        spec: Labels and roots of the dataset.
        source: The file named in errors.

    Returns:
        A new table of all `COLUMNS` in order with a fresh index: text as str with "" for empty,
        spacing as float64 with NaN, fold and slice_index as Int64 with <NA>.

    Raises:
        DxsegError: Columns are missing or unknown, there are no rows, or values are wrong; names
            the row (its line in the CSV), column, value and remedy, at most 10 of them.
    """
    _check_columns(table, source)
    if table.empty:
        raise DxsegError(f"{source}: no rows; expected one row per image")
    # A table that was not read from a file counts lines as it would be written.
    has_lines = table.index.name == "line"
    lines = table.index.to_numpy() if has_lines else np.arange(2, len(table) + 2)
    table = table.reset_index(drop=True)
    problems = CaseErrors(source, table, lines)
    typed: dict[str, Any] = {}
    for column in COLUMNS:
        values = table[column] if column in table else pd.Series([""] * len(table))
        if column in _TEXT:
            typed[column] = values.where(values.notna(), "").astype(str)
        else:
            whole = column in _WHOLE
            numbers, wrong = _numbers(values, whole=whole)
            problems.add(wrong, column, _NUMBER_ADVICE[whole])
            typed[column] = pd.Series(numbers).astype("Int64") if whole else numbers
    cases = pd.DataFrame(typed, columns=list(COLUMNS))
    absent = {name: "" for name in GRID if name not in table}
    problems.table = table.assign(**{name: cases[name] for name in _TEXT}, **absent)
    _check_text(cases, problems)
    _check_paths(cases, spec, problems)
    _check_labels(cases, spec, problems)
    _check_spacing(cases, problems)
    check_volumes(cases, problems)
    check_levels(cases, spec.lesion_free, problems)
    problems.raise_if_any()
    return cases


_NUMBER_ADVICE = {
    True: "expected a whole number from 0, or nothing; correct or empty it",
    False: "expected a positive number such as 0.35, or nothing; correct or empty it",
}


def _check_columns(table: pd.DataFrame, source: Path) -> None:
    names = [str(name) for name in table.columns]
    missing = [name for name in _REQUIRED if name not in names]
    unknown = [name for name in names if name not in COLUMNS]
    if missing and len(names) == 1 and any(mark in names[0] for mark in ";\t"):
        raise DxsegError(f"{source}: the header {names[0]!r} is not separated by commas")
    if missing or unknown or len(set(names)) != len(names):
        raise DxsegError(
            f"{source}: header {names[:20]}: missing {missing}, unknown {unknown[:20]}; expected "
            f"distinct columns out of {', '.join(COLUMNS)}; rename or remove the others"
        )


def _flag(values: pd.Series[Any], wrong: Callable[[str], bool]) -> Flags:
    """Check each distinct value once: columns of labels or splits have only a few."""
    codes, distinct = pd.factorize(values.to_numpy(dtype=object))
    verdicts = np.fromiter((wrong(value) for value in distinct), np.bool_, len(distinct))
    return verdicts[codes]


def _numbers(values: pd.Series[Any], *, whole: bool) -> tuple[npt.NDArray[np.float64], Flags]:
    """Parse numbers, NaN where empty, and flag values that are no number in range."""
    codes, distinct = pd.factorize(values, use_na_sentinel=False)
    results = np.full(len(distinct), np.nan)
    wrong = np.zeros(len(distinct), dtype=np.bool_)
    for position, value in enumerate(distinct):
        if value is None or value is pd.NA or value == "" or value != value:
            continue
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = math.nan
        in_range = 0 <= number < 2**53 and number.is_integer() if whole else 0 < number < math.inf
        if in_range and "_" not in str(value):
            results[position] = number
        else:
            wrong[position] = True
    return results[codes], wrong[codes]


def _check_text(cases: pd.DataFrame, problems: CaseErrors) -> None:
    for column in _TEXT:
        if cases[column].eq("").all():
            continue
        wrong = _flag(cases[column], _unfit)
        problems.add(
            wrong,
            column,
            f"contains a line break or control character, or more than {_LENGTH} characters; "
            "correct it",
        )
        # A look at the first character spares a million rows the rest.
        signed = np.flatnonzero(cases[column].str.startswith(_SIGNS))
        formula = np.zeros(len(cases), np.bool_)
        formula[signed] = [is_formula(text) for text in cases[column].iloc[signed]]
        problems.add(
            formula & ~wrong,
            column,
            "a spreadsheet would run this as a formula; put a letter before it, or ./ if a path",
        )
    ids = cases["case_id"]
    wrong = _flag(ids, _no_file_name)
    problems.add(
        wrong,
        "case_id",
        "expected 1 to 200 bytes (in UTF-8) without / and \\ that start with neither a dot nor a "
        "blank",
    )
    twice = ids.duplicated(keep="first").to_numpy() & ~wrong
    problems.add(twice, "case_id", "occurs in an earlier row; give each image its own case_id")
    for column in ("patient_id", "group"):
        problems.add(
            _flag(cases[column], lambda text: bool(text) and is_missing(text)),
            column,
            "means missing, but its rows would belong together; empty it",
        )
    advice = f"expected nothing or one of {', '.join(SPLITS)}"
    problems.add(_flag(cases["split"], lambda text: text not in ("", *SPLITS)), "split", advice)


def _no_file_name(text: str) -> bool:
    too_long = len(text.encode(errors="replace")) > _CASE_ID_BYTES
    return too_long or _CASE_ID.fullmatch(text) is None


def _unfit(text: str) -> bool:
    return len(text) > _LENGTH or _CONTROL.search(text) is not None


def _check_paths(cases: pd.DataFrame, spec: DatasetSpec, problems: CaseErrors) -> None:
    roots = [f"{root.rstrip('/')}/" for root in spec.roots if is_address(root)]
    problems.add(cases["image"].eq("").to_numpy(), "image", "empty; expected the image's path")
    for column in ("image", "mask"):
        problems.add(
            _flag(cases[column], lambda path: not is_address(path) and _escapes_root(path)),
            column,
            "expected a path with / that is relative to the dataset's folder or one of its roots "
            "and has no '..'; add the files' folder to roots in dataset.yaml",
        )
        problems.add(
            _flag(cases[column], lambda path: is_address(path) and not _below(path, roots)),
            column,
            "expected a plain address without credentials, below one of the addresses that roots "
            "in dataset.yaml lists; correct it, or add its folder to roots",
        )
    same = cases["image"].eq(cases["mask"]) & cases["image"].ne("")
    problems.add(same.to_numpy(), "mask", "is the image itself; expected its mask or nothing")
    twice = cases.duplicated(["image", "slice_index"]) & cases["image"].ne("")
    problems.add(
        twice.to_numpy(),
        "image",
        "occurs in an earlier row; keep one row per image (or give each a slice_index)",
    )


def _escapes_root(path: str) -> bool:
    if path.startswith("/") or "\\" in path or path[1:2] == ":":
        return True
    return ".." in path and ".." in path.split("/")


def _below(address: str, roots: list[str]) -> bool:
    """Whether an address is well-formed and lies in one of the folders."""
    return not address_fault(address) and any(address.startswith(root) for root in roots)


def _check_labels(cases: pd.DataFrame, spec: DatasetSpec, problems: CaseErrors) -> None:
    known = set(spec.labels)

    def unknown(text: str) -> bool:
        return bool(text) and not known.issuperset(split_labels(text, spec))

    def contradicts(text: str) -> bool:
        names = set(split_labels(text, spec))
        return bool(names & set(spec.lesion_free)) and bool(names - set(spec.lesion_free))

    advice = (
        f"expected nothing or {'some' if spec.multi_label else 'one'} of "
        f"{', '.join(spec.labels[:20])}; correct it or add it to labels in dataset.yaml"
    )
    wrong = _flag(cases["label"], unknown)
    problems.add(wrong, "label", advice)
    problems.add(
        ~wrong & _flag(cases["label"], contradicts),
        "label",
        "a lesion-free label beside another one; keep one kind",
    )


def split_labels(text: str, spec: DatasetSpec) -> list[str]:
    """Split one value of the label column into label names.

    Args:
        text: The value; "" has no labels.
        spec: Specification, with `multi_label`: whether ";" separates labels.
    """
    if not text:
        return []
    return [part.strip() for part in text.split(";")] if spec.multi_label else [text]


def _check_spacing(cases: pd.DataFrame, problems: CaseErrors) -> None:
    for column, other in (_SPACING, _SPACING[::-1]):
        # A value that is no number is NaN here too, but has been reported already.
        empty = problems.table[column].astype(str).isin(["", "nan", "None", "<NA>"])
        alone = cases[column].isna() & cases[other].notna() & empty
        problems.add(alone.to_numpy(), column, f"empty although {other} is given; give both")


def value_of(row: Any, column: str) -> Any:
    """Read one value of a row, whatever pandas type the row has.

    Args:
        row: A `pd.Series`, a mapping, or a named tuple of `DataFrame.itertuples`.
        column: Name of the column.
    """
    # Attribute access would find the method `mask` of a Series.
    return row[column] if isinstance(row, (pd.Series, Mapping)) else getattr(row, column)


def spacing_of(row: Any, spec: DatasetSpec) -> Spacing | None:
    """Read the height and width of a pixel, in millimeters, of a row; None where it is unknown.

    Args:
        row: As in `value_of`.
        spec: Specification of the dataset.
    """
    height, width = (float(value_of(row, column)) for column in _SPACING)
    return None if spec.spacing_unit != "mm" or math.isnan(height) else (height, width)

"""Tables with one column a label, as of ISIC and CheXpert: 1 where an image has it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from dxseg.data.table.words import is_missing
from dxseg.errors import DxsegError

SEPARATOR = "\x1f"
"""Separates the labels of an image here; occurs in no name."""

_PRESENT = ("1", "1.0", "true", "yes")
_ABSENT = ("0", "0.0", "false", "no")
_UNCERTAIN = ("-1", "-1.0")


@dataclass(frozen=True)
class OneHotLabels:
    """The labels of a one-hot table.

    Attributes:
        labels: Labels of each row, with `SEPARATOR` between them; "" where they are unknown.
        names: The columns.
        several: Whether a row has several labels.
        notes: What was found, as lines for the report of an import.
    """

    labels: pd.Series[str]
    names: list[str]
    several: bool
    notes: list[str]


def read_one_hot(
    table: pd.DataFrame, names: Sequence[str], taken: Collection[str], csv: Path
) -> OneHotLabels:
    """Read the labels of a one-hot table.

    A row with an uncertain label (-1) is unlabeled, because the label is neither present nor
    absent; so is one without any 1. An empty cell beside others is absent: not mentioned.

    Args:
        table: The whole table as text.
        names: Columns that are labels; none: all that hold only 0, 1, -1 and nothing.
        taken: Columns that have another meaning.
        csv: The file, for errors.

    Raises:
        DxsegError: A column is missing or has other values, or there is none.
    """
    absent = [name for name in names if name not in table]
    if absent:
        raise DxsegError(
            f"{csv}: no column {absent[0]!r}; it has {', '.join(map(str, table.columns[:30]))}; "
            "correct --one-hot"
        )
    codes = {str(name): _codes(table[name]) for name in names or table.columns}
    if not names:
        codes = {
            name: values
            for name, values in codes.items()
            if name not in taken and not np.isnan(values).any() and np.isfinite(values).any()
        }
    if not codes:
        raise DxsegError(
            f"{csv}: no column holds only 0, 1, -1 and nothing; name the columns of labels after "
            "--one-hot"
        )
    for name, values in codes.items():
        if np.isnan(values).any():
            row = int(np.flatnonzero(np.isnan(values))[0])
            raise DxsegError(
                f"{csv}: row {table.index[row]}, column {name}, value {table[name].iloc[row]!r}: "
                "expected 1 (present), 0 (absent), -1 (uncertain) or nothing; correct it"
            )
    return _combine(pd.DataFrame(codes, index=table.index))


def _codes(column: pd.Series[str]) -> np.ndarray:
    """1, 0, -1; infinite where empty, NaN for other values."""
    codes, distinct = pd.factorize(column)
    values = np.array([_code(text.strip().casefold()) for text in distinct], dtype=np.float64)
    return values[codes]


def _code(text: str) -> float:
    for number, words in ((1, _PRESENT), (0, _ABSENT), (-1, _UNCERTAIN)):
        if text in words:
            return number
    return np.inf if is_missing(text) else np.nan


def _combine(codes: pd.DataFrame) -> OneHotLabels:
    values, names = codes.to_numpy(), [str(name) for name in codes.columns]
    uncertain = (values == -1).any(axis=1)
    present = (values == 1) & ~uncertain[:, None]
    patterns, rows = np.unique(present, axis=0, return_inverse=True)
    texts = [
        SEPARATOR.join(name for name, has in zip(names, pattern, strict=True) if has)
        for pattern in patterns
    ]
    labels = pd.Series([texts[row] for row in rows.ravel()], index=codes.index, dtype=str)
    none = int((labels.eq("") & ~uncertain).sum())
    notes = [f"columns read as labels: {', '.join(names)}"]
    if uncertain.any():
        notes.append(
            f"{int(uncertain.sum())} rows have an uncertain label (-1) and are unlabeled; write 0 "
            "or 1 to decide"
        )
    if none:
        notes.append(
            f"{none} rows have no label (no 1) and are unlabeled; if they are lesion-free, give "
            "them a column of their own, such as 'no finding'"
        )
    if empty := int(np.isinf(values[~uncertain & labels.ne("")]).sum()):
        notes.append(f"{empty} empty cells beside a label read as absent")
    return OneHotLabels(labels, names, bool((present.sum(axis=1) > 1).any()), notes)

"""Findings while they are still rows of the table."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dxseg.quality.finding_types import KINDS
from dxseg.quality.findings import LISTED, Finding

_DETAILS = 5


@dataclass(frozen=True)
class RowFinding:
    """Rows that have something in common.

    Attributes:
        code: One of `KINDS`.
        rows: Positions in the table, ascending.
        groups: A number for each of the rows, where they form groups.
        details: Examples in words.
    """

    code: str
    rows: NDArray[np.int64]
    groups: NDArray[np.int64] | None = None
    details: list[str] = field(default_factory=list)


def flag_rows(code: str, rows: Any, details: pd.Series[str] | None = None) -> list[RowFinding]:
    """Raise a finding for the rows of a condition, nothing where there are none.

    Args:
        code: One of `KINDS`.
        rows: (N,) of bool.
        details: One text a row of the table; the first few of the rows are kept.
    """
    found = np.flatnonzero(np.asarray(rows))
    if not len(found):
        return []
    told = [] if details is None else details.iloc[found[:_DETAILS]].tolist()
    return [RowFinding(code, found, details=told)]


def flag_groups(code: str, group: NDArray[np.int64], rows: Any) -> list[RowFinding]:
    """Raise a finding for rows that form groups, nothing where there are none.

    Args:
        code: One of `KINDS`.
        group: (N,) number of each row's group.
        rows: (N,) of bool.
    """
    found = np.flatnonzero(np.asarray(rows))
    return [RowFinding(code, found, groups=group[found])] if len(found) else []


def tell(raised: list[RowFinding], case_ids: pd.Series[str]) -> list[Finding]:
    """Turn rows into case ids, in the order of `KINDS`.

    Args:
        raised: What was found.
        case_ids: Of the whole table.
    """
    order = list(KINDS)
    return [_finding(one, case_ids) for one in sorted(raised, key=lambda r: order.index(r.code))]


def _finding(one: RowFinding, case_ids: pd.Series[str]) -> Finding:
    kind = KINDS[one.code]
    names = case_ids.iloc[one.rows[:LISTED]].tolist()
    groups: list[list[str]] = []
    if one.groups is not None:
        listed = pd.Series(names).groupby(one.groups[:LISTED], sort=False)
        groups = [members.tolist() for _, members in listed]
    return Finding(
        code=one.code,
        severity=kind.severity,
        title=kind.title,
        count=len(one.rows),
        group_count=0 if one.groups is None else len(np.unique(one.groups)),
        case_ids=names,
        groups=groups,
        details=one.details,
        remedy=kind.remedy,
    )

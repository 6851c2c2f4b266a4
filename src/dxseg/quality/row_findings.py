"""Findings as rows of the table, before they become case ids."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dxseg.quality.finding_types import FINDING_TYPES
from dxseg.quality.findings import LISTED, Finding

_DETAILS = 5


@dataclass(frozen=True)
class RowFinding:
    """Rows with the same problem.

    Attributes:
        code: One of `FINDING_TYPES`.
        rows: Positions in the table, ascending.
        groups: Group number of each of the rows, if they form groups.
        details: Examples as text.
    """

    code: str
    rows: NDArray[np.int64]
    groups: NDArray[np.int64] | None = None
    details: list[str] = field(default_factory=list)


def flag_rows(code: str, rows: Any, details: pd.Series[str] | None = None) -> list[RowFinding]:
    """Make a finding of the rows that meet a condition; none without such rows.

    Args:
        code: One of `FINDING_TYPES`.
        rows: (N,) booleans.
        details: One text per row of the table; the first few are kept.
    """
    positions = np.flatnonzero(np.asarray(rows))
    if not len(positions):
        return []
    examples = [] if details is None else details.iloc[positions[:_DETAILS]].tolist()
    return [RowFinding(code, positions, details=examples)]


def flag_groups(code: str, group: NDArray[np.int64], rows: Any) -> list[RowFinding]:
    """Make a finding of rows that form groups; none without such rows.

    Args:
        code: One of `FINDING_TYPES`.
        group: (N,) group number of each row.
        rows: (N,) booleans.
    """
    positions = np.flatnonzero(np.asarray(rows))
    return [RowFinding(code, positions, groups=group[positions])] if len(positions) else []


def to_findings(row_findings: list[RowFinding], case_ids: pd.Series[str]) -> list[Finding]:
    """Convert row findings to findings with case ids, in the order of `FINDING_TYPES`.

    Args:
        row_findings: The findings, in any order.
        case_ids: Case ids of the whole table.
    """
    order = list(FINDING_TYPES)
    return [
        _finding(one, case_ids) for one in sorted(row_findings, key=lambda r: order.index(r.code))
    ]


def _finding(one: RowFinding, case_ids: pd.Series[str]) -> Finding:
    kind = FINDING_TYPES[one.code]
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

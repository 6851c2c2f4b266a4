"""Cells of the tables of an experiment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from dxseg.evaluation.compare import signed_interval
from dxseg.reports.metric_columns import MISSING, format_number
from dxseg.reports.tables import Cell


def metric_cell(
    row: Mapping[Any, Any], name: str, best: Mapping[str, Any] | None = None, decimals: int = 3
) -> Cell:
    """Make the cell of a metric, with its interval.

    Args:
        row: Of curves.csv.
        name: The metric.
        best: The best value of each metric, set in bold.
        decimals: Number of decimals.
    """
    low, high = row.get(f"{name}_low"), row.get(f"{name}_high")
    interval = "" if low is None or pd.isna(low) else f"{low:.{decimals}f} to {high:.{decimals}f}"
    is_best = best is not None and name in best and row[name] == best[name]
    return Cell(format_number(row[name], decimals), interval, bool(is_best))


def difference_cell(row: Mapping[Any, Any] | None, *, with_p: bool = False) -> Cell:
    """Make the cell of a difference, with its interval.

    Args:
        row: Of differences.csv; None where there is none.
        with_p: Whether the p-value is in the cell.
    """
    if row is None or pd.isna(row["difference"]):
        return Cell(MISSING)
    p = f", p (Holm) {row['p_holm']:.4f}" if with_p and not pd.isna(row["p_holm"]) else ""
    return Cell(f"{row['difference']:+.3f}", f"{signed_interval(row)}{p}")

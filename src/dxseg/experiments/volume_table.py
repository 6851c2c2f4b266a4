"""The table of an experiment's volumes, measured in three dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from dxseg.experiments.cells import difference_cell, metric_cell
from dxseg.reports.metric_columns import VOLUME_METRICS
from dxseg.reports.tables import Cell, Table

_NOTE = (
    "Every slice of a volume is put back into it; lesions are components of voxels with 26 "
    "neighbors. Dice, HD95, NSD and lesions: volumes with a lesion; volume error: all volumes. "
    "Dice of all volumes as one: mean of the runs. Intervals: 95%, bootstrap as of the images."
)


def make_volume_table(
    curves: pd.DataFrame,
    differences: pd.DataFrame,
    masks: Sequence[Any],
    reference: str,
    unit: str,
) -> Table:
    """Make the table of volumes, of all budgets; without rows where images are no slices.

    Args:
        curves: curves.csv.
        differences: differences.csv.
        masks: Budgets in the order of the experiment.
        reference: The method that others are compared with.
        unit: What budgets count.
    """
    shown = [figure for figure in VOLUME_METRICS if figure.key in curves]
    curves = curves[curves["volume_dice_all"].notna()] if shown else curves.head(0)
    compared = differences[
        (differences["kind"] == "reference") & (differences["metric"] == "volume_dice")
    ]
    against = {(row["method"], row["masks"]): row for row in compared.to_dict("records")}
    rows = [
        [
            Cell(str(row["method"])),
            Cell(str(row["masks"])),
            *(metric_cell(row, figure.key, decimals=figure.decimals) for figure in shown),
            difference_cell(against.get((row["method"], row["masks"])), with_p=True),
        ]
        for budget in masks
        for row in curves[curves["masks"] == budget].to_dict("records")
    ]
    titles = [figure.title for figure in shown]
    columns = ("method", unit, *titles, f"Dice, volumes, minus {reference}")
    return Table("Volumes, in three dimensions", columns, rows, _NOTE)

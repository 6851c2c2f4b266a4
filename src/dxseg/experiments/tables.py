"""The tables of an experiment, built once for Markdown, LaTeX and HTML."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd

from dxseg.evaluation.summary import ENDPOINTS, PRIMARY_ENDPOINTS
from dxseg.experiments.aggregate import CURVE_COLUMNS, LOWER_IS_BETTER, select_complete
from dxseg.experiments.cells import difference_cell, metric_cell
from dxseg.experiments.experiment import Experiment
from dxseg.experiments.mask_savings import VOLUME_DICE
from dxseg.experiments.results import DONE, budget_unit
from dxseg.experiments.volume_table import make_volume_table
from dxseg.reports.metric_columns import MISSING, format_number
from dxseg.reports.tables import Cell, Table

_VALIDATION = "The test cases were left alone: these values are of the validation cases."


def make_tables(
    experiment: Experiment,
    results: pd.DataFrame,
    curves: pd.DataFrame,
    differences: pd.DataFrame,
    saved: pd.DataFrame,
    retraining: pd.DataFrame,
) -> list[Table]:
    """Make the tables that are not empty, the main one first.

    Args:
        experiment: The experiment.
        results: results.csv.
        curves: curves.csv.
        differences: differences.csv.
        saved: masks_saved.csv.
        retraining: retraining.csv.
    """
    # What results of earlier versions lack is a dash.
    curves, unit = curves.reindex(columns=list(CURVE_COLUMNS)), budget_unit(results)
    tables = [
        _main(experiment, results, curves, differences),
        make_volume_table(curves, differences, experiment.masks, experiment.reference, unit),
        _hypotheses(curves, differences),
        _retraining(experiment, retraining),
        *(_efficiency(experiment, curves, endpoint, unit) for endpoint in ENDPOINTS),
        _saved(experiment, saved, unit),
        _failures(results, unit),
    ]
    return [table for table in tables if table.rows]


def _main(
    experiment: Experiment, results: pd.DataFrame, curves: pd.DataFrame, differences: pd.DataFrame
) -> Table:
    masks = experiment.masks[0]
    rows = curves[curves["masks"] == masks]
    chosen = (differences["kind"] == "reference") & (differences["masks"] == masks)
    records = differences[chosen].to_dict("records")
    against = {(str(one["method"]), str(one["metric"])): one for one in records}
    compared = _compared_endpoints(against)
    columns = (
        "method",
        *(f"Dice, {way}" for way in ENDPOINTS.values()),
        "Dice, all images",
        "lesion-free images with a mask",
        "at 10%",
        "HD95",
        *(
            column
            for endpoint in compared
            for column in (f"{ENDPOINTS[endpoint]}, minus {experiment.reference}", "p (Holm)")
        ),
        "parameters (M)",
        "multiply-adds (G)",
        "ms per image",
    )
    complete = select_complete(rows)
    best = {
        name: (complete[name].min() if name in LOWER_IS_BETTER else complete[name].max())
        for name in (*ENDPOINTS, "dice_all", "false_positive_rate", "hd95_lesion")
        if len(complete) > 1
    }
    cells = [
        [
            Cell(_method_name(experiment, row) + _marks(row, rows)),
            *(metric_cell(row, endpoint, best) for endpoint in ENDPOINTS),
            metric_cell(row, "dice_all", best),
            metric_cell(row, "false_positive_rate", best),
            metric_cell(row, "false_positive_rate_fp10"),
            metric_cell(row, "hd95_lesion", best, 1),
            *(cell for endpoint in compared for cell in _paired(against, row["method"], endpoint)),
            Cell(format_number(row["parameters"] / 1e6, 1)),
            Cell(format_number(row["multiply_adds"] / 1e9, 2)),
            Cell(format_number(row["inference_ms"], 1)),
        ]
        for row in rows.to_dict("records")
    ]
    return Table(
        _title(experiment, results, masks), columns, cells, _main_note(experiment, results, rows)
    )


_Against = dict[tuple[str, str], dict[Any, Any]]
"""Rows of differences.csv by method and metric."""


def _compared_endpoints(against: _Against) -> list[str]:
    """The primary endpoints; of results of earlier versions, the one that they have."""
    known = {metric for (_, metric), row in against.items() if not pd.isna(row["difference"])}
    return [name for name in PRIMARY_ENDPOINTS if name in known] or ["dice_lesion"]


def _paired(against: _Against, method: str, endpoint: str) -> list[Cell]:
    """Difference from the reference, and its p-value."""
    row = against.get((method, endpoint))
    return [difference_cell(row), Cell(_p(row["p_holm"]) if row else MISSING)]


def _title(experiment: Experiment, results: pd.DataFrame, masks: Any) -> str:
    dataset = results["dataset"].iloc[0] if len(results) else ""
    return f"{experiment.name}: {dataset}, {masks} {budget_unit(results)}"


def _main_note(experiment: Experiment, results: pd.DataFrame, rows: pd.DataFrame) -> str:
    if not len(rows):
        return ""
    protocol = f"{len(experiment.seeds or ())} seeds on one split"
    if experiment.folds is not None:
        tested = results.loc[results["status"] == DONE, "fold"].nunique()
        part = "" if tested == experiment.folds else f", {tested} of the folds"
        protocol = f"{experiment.folds}-fold grouped cross-validation{part}"
    largest = rows.sort_values("images").iloc[-1]
    note = (
        f"{protocol}; {largest['images']} images in {largest['groups']} groups. Dice of lesion "
        "images in three ways (docs/evaluation.md): as used; with the diagnosis known; where at "
        "most 10% of the lesion-free validation images get a mask (at 10%: how many of the test "
        "images that were). Intervals: 95%, bootstrap of "
        f"{_resampled(rows)}. Bold: best of the column among methods on all images."
    )
    if (results["split"] != "test").any():
        note = f"{_VALIDATION} {note}"
    if experiment.primary is not None:
        note += f" Primary method, named beforehand: {experiment.primary}."
    return f"{note} {_legend(rows)}".rstrip()


def _resampled(rows: pd.DataFrame) -> str:
    if (rows["draws"] > 1).all():
        return "whole groups and of the draws of each fold"
    if (rows["draws"] > 1).any():
        return "whole groups, and of the draws of each fold for methods that have several"
    return "whole groups; other trainings are not covered"


def _hypotheses(curves: pd.DataFrame, differences: pd.DataFrame) -> Table:
    columns = ("hypothesis", "metric", "difference", "p (Holm)", "margin", "met")
    short = curves[curves["runs"] < curves["planned"]]
    incomplete = set(zip(short["method"], short["masks"].astype(str), strict=True))
    rows = [
        [
            Cell(f"{_at(row, 'method', 'masks')} − {_at(row, 'against', 'against_masks')}"),
            Cell(row["metric"]),
            difference_cell(row),
            Cell(_p(row["p_holm"])),
            Cell(f"{row['margin']:+.3f}"),
            _verdict(row, incomplete),
        ]
        for row in differences[differences["kind"] == "hypothesis"].to_dict("records")
    ]
    note = (
        "Stated in the experiment file before the runs. Met: the difference is at least the "
        "margin, its interval is above 0 and p (Holm) below 0.05; where the margin is negative, "
        "its interval is above that; reversed for metrics of which lower is better."
    )
    return Table("Hypotheses", columns, rows, note)


def _verdict(row: dict[Any, Any], incomplete: set[tuple[str, str]]) -> Cell:
    if pd.isna(row["difference"]):
        return Cell("not tested")
    sides = {(row["method"], str(row["masks"])), (row["against"], str(row["against_masks"]))}
    return Cell(
        "yes" if row["met"] else "no", "so far, runs are missing" * bool(sides & incomplete)
    )


def _retraining(experiment: Experiment, retraining: pd.DataFrame) -> Table:
    """Of the main budget: the method itself and its difference, each endpoint in a cell."""
    main = retraining[retraining["masks"] == experiment.masks[0]]
    rows = []
    for (method, against), own in main.groupby(["method", "against"], sort=False):
        found = {str(row["metric"]): row for row in own.to_dict("records")}
        # Without lesion-free validation images there is no threshold at 10% false positives.
        cells = [
            Cell(f"{found[metric]['sd']:.3f}", f"at most {found[metric]['largest']:.3f}")
            if metric in found
            else Cell(MISSING)
            for metric in ENDPOINTS
        ]
        name = f"{method} − {against}" if against else str(method)
        rows.append([Cell(name), Cell(str(own["trainings"].iloc[0])), *cells])
    columns = ("method", "trainings", *(f"Dice, {way}" for way in ENDPOINTS.values()))
    note = (
        "Standard deviation of one training around the mean of the draws of its fold, and the "
        "largest difference of two draws of a fold: other masks, another initialization, the same "
        "patients."
    )
    return Table("What a retraining moves", columns, rows, note)


def _efficiency(experiment: Experiment, curves: pd.DataFrame, endpoint: str, unit: str) -> Table:
    curves = curves[curves[endpoint].notna()]
    if len(experiment.masks) < 2:
        return Table("", (), [])
    shown = curves[curves["method"].duplicated(keep=False)]
    rows = [
        [
            Cell(method.name),
            *(
                _at_budget(shown, method.name, masks, endpoint)
                for masks in experiment.ascending_masks
            ),
        ]
        for method in experiment.methods
        if (shown["method"] == method.name).any()
    ]
    columns = ("method", *(f"{masks} {unit}" for masks in experiment.ascending_masks))
    title = f"Dice on lesion images, {ENDPOINTS[endpoint]}, over the number of training {unit}"
    return Table(title, columns, rows, _legend(shown))


def _at_budget(curves: pd.DataFrame, method: str, masks: Any, endpoint: str) -> Cell:
    for row in curves[(curves["method"] == method) & (curves["masks"] == masks)].to_dict("records"):
        cell = metric_cell(row, endpoint)
        return replace(cell, value=cell.value + _marks(row, curves))
    return Cell(MISSING)


def _saved(experiment: Experiment, saved: pd.DataFrame, unit: str) -> Table:
    order = [str(masks) for masks in experiment.ascending_masks]
    names = ENDPOINTS | {VOLUME_DICE: "of volumes"}
    rows = [
        [
            Cell(row["method"]),
            Cell(str(row["masks"])),
            Cell(names[row["metric"]]),
            Cell(format_number(row["value"], 3)),
            Cell(str(row["equal_at"]), f"{row['low']} to {row['high']}"),
        ]
        for row in sorted(saved.to_dict("records"), key=lambda row: order.index(str(row["masks"])))
    ]
    columns = ("method", unit, "Dice", "value", f"{unit} {experiment.reference} needs to equal it")
    note = (
        f"Where the curve of {experiment.reference}, linear in the logarithm of the number of "
        f"{unit}, first reaches the method's Dice."
    )
    return Table(f"{unit.capitalize()} saved", columns, rows, note)


def _failures(results: pd.DataFrame, unit: str) -> Table:
    """One row for runs that ended with the same error; their seeds in one cell."""
    keys = ["method", "masks", "status", "error"]
    rows = [
        [
            Cell(str(method)),
            Cell(str(masks)),
            Cell(", ".join(map(str, runs["seed"]))),
            Cell(str(status)),
            Cell(str(error or MISSING)),
        ]
        for (method, masks, status, error), runs in results[results["status"] != DONE].groupby(
            keys, sort=False
        )
    ]
    columns = ("method", unit, "seeds", "status", "error")
    return Table("Runs that failed or are missing", columns, rows)


def _method_name(experiment: Experiment, row: dict[Any, Any]) -> str:
    return f"{row['method']}{' (primary)' * (row['method'] == experiment.primary)}"


def _marks(row: dict[Any, Any], rows: pd.DataFrame) -> str:
    incomplete = row["runs"] < row["planned"]
    marks = {
        "†": incomplete,
        "§": not incomplete and row["images"] < rows["images"].max(),
        "‡": row["added_later"],
    }
    return "".join(mark for mark, holds in marks.items() if holds)


def _legend(rows: pd.DataFrame) -> str:
    """The meaning of the marks that occur in these rows."""
    every = "".join(_marks(row, rows) for row in rows.to_dict("records"))
    meanings = {
        "†": "some runs failed or are missing; values are of the others.",
        "§": "on fewer folds than others; only differences, on shared folds, are comparable.",
        "‡": "added after the experiment was registered.",
    }
    return " ".join(f"{mark}: {text}" for mark, text in meanings.items() if mark in every)


def _at(row: dict[Any, Any], method: str, masks: str) -> str:
    return f"{row[method]} at {row[masks]}"


def _p(value: Any) -> str:
    return MISSING if pd.isna(value) else f"{value:.4f}"

"""What an experiment writes when its runs have ended: tables, curves, the page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from rich.console import Console

from dxseg.data.table.dataset import Dataset
from dxseg.evaluation.runs import check_comparable, file_suffix
from dxseg.experiments.aggregate import Pool, curves, differences
from dxseg.experiments.experiment import Experiment
from dxseg.experiments.mask_savings import masks_saved
from dxseg.experiments.page import draw_curves, write_experiment_page
from dxseg.experiments.preregistration import Registration
from dxseg.experiments.results import RunResult, results_table
from dxseg.experiments.tables import experiment_tables
from dxseg.io.atomic import write_bytes_atomic, write_text_atomic
from dxseg.io.progress import reporting
from dxseg.reports.tables import to_latex, to_markdown


def write_results(results: Sequence[RunResult], output: Path, split: str) -> pd.DataFrame:
    """Write results.csv; gives the table."""
    table = results_table(results)
    _write_csv(table, output, "results", split)
    return table


def write_outputs(
    experiment: Experiment,
    dataset: Dataset,
    registration: Registration,
    results: Sequence[RunResult],
    output: Path,
    split: str,
    console: Console,
) -> str:
    """Write everything that follows from the runs.

    That is results.csv, curves.csv, curves.png, differences.csv, masks_saved.csv, table.md,
    table.tex and report.html; for another split than test their stems end in its name.

    Args:
        experiment: What was asked for.
        dataset: Its dataset.
        registration: What was registered.
        results: One a run.
        output: The experiment's folder.
        split: Which split was evaluated.
        console: Where progress is drawn.

    Returns:
        What table.md holds.

    Raises:
        DxsegError: The runs differ in cases, truth, groups, averaging or units.
    """
    table = write_results(results, output, split)
    pool = Pool(experiment, results)
    check_comparable(pool.runs)
    over_masks = curves(pool)
    with reporting(console, "Comparing") as report:
        paired = differences(pool, report)
    saved = masks_saved(pool)
    for name, frame in (
        ("curves", over_masks),
        ("differences", paired),
        ("masks_saved", saved),
    ):
        _write_csv(frame, output, name, split)
    plot = draw_curves(experiment, over_masks)
    suffix = file_suffix(split)
    if plot:
        write_bytes_atomic(output / f"curves{suffix}.png", plot)
    tables = experiment_tables(experiment, table, over_masks, paired, saved)
    markdown = to_markdown(tables)
    write_text_atomic(output / f"table{suffix}.md", markdown)
    write_text_atomic(output / f"table{suffix}.tex", to_latex(tables))
    page = output / f"report{suffix}.html"
    write_experiment_page(page, experiment, dataset, registration, tables, table, paired, plot)
    return markdown


def _write_csv(table: pd.DataFrame, output: Path, name: str, split: str) -> None:
    text = table.to_csv(index=False, lineterminator="\n")
    write_text_atomic(output / f"{name}{file_suffix(split)}.csv", text)

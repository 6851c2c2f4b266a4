"""What a study writes when its runs have ended: tables, curves, the page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from rich.console import Console

from dxseg.data.dataset import Dataset
from dxseg.data.files import write_bytes_atomic, write_text_atomic
from dxseg.evaluation.runs import check_comparable, file_suffix
from dxseg.progress import reporting
from dxseg.studies.markup import to_latex, to_markdown
from dxseg.studies.page import draw_curves, write_study_page
from dxseg.studies.pooled import Pool, curves, differences
from dxseg.studies.registration import Registration
from dxseg.studies.results import RunResult, results_table
from dxseg.studies.savings import masks_saved
from dxseg.studies.study import Study
from dxseg.studies.tables import study_tables


def write_results(results: Sequence[RunResult], output: Path, split: str) -> pd.DataFrame:
    """Write results.csv; gives the table."""
    table = results_table(results)
    _write_csv(table, output, "results", split)
    return table


def write_outputs(
    study: Study,
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
        study: What was asked for.
        dataset: Its dataset.
        registration: What was registered.
        results: One a run.
        output: The study's folder.
        split: Which split was evaluated.
        console: Where progress is drawn.

    Returns:
        What table.md holds.

    Raises:
        DxsegError: The runs differ in cases, truth, groups, averaging or units.
    """
    table = write_results(results, output, split)
    pool = Pool(study, results)
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
    plot = draw_curves(study, over_masks)
    suffix = file_suffix(split)
    if plot:
        write_bytes_atomic(output / f"curves{suffix}.png", plot)
    tables = study_tables(study, table, over_masks, paired, saved)
    markdown = to_markdown(tables)
    write_text_atomic(output / f"table{suffix}.md", markdown)
    write_text_atomic(output / f"table{suffix}.tex", to_latex(tables))
    page = output / f"report{suffix}.html"
    write_study_page(page, study, dataset, registration, tables, table, paired, plot)
    return markdown


def _write_csv(table: pd.DataFrame, output: Path, name: str, split: str) -> None:
    text = table.to_csv(index=False, lineterminator="\n")
    write_text_atomic(output / f"{name}{file_suffix(split)}.csv", text)

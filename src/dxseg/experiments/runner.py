"""Run a registered experiment: train, evaluate, write the results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from dxseg.data.table.dataset import Dataset
from dxseg.evaluation.runs import check_comparable, file_suffix, is_evaluated
from dxseg.experiments.aggregate import PooledRuns, compute_curves
from dxseg.experiments.cost import COST_FILE, measure_costs
from dxseg.experiments.differences import compute_differences
from dxseg.experiments.experiment import Experiment
from dxseg.experiments.mask_savings import compute_masks_saved
from dxseg.experiments.page import draw_curves, write_experiment_page
from dxseg.experiments.plan import Job
from dxseg.experiments.preregistration import Registration
from dxseg.experiments.process_pool import run_jobs
from dxseg.experiments.results import (
    ExperimentContext,
    RunResult,
    budget_unit,
    collect_results,
    make_results_table,
)
from dxseg.experiments.retraining import compute_retraining
from dxseg.experiments.tables import make_tables
from dxseg.experiments.worker import JobSpec
from dxseg.io.atomic import write_bytes_atomic, write_text_atomic
from dxseg.io.progress import console, reporting
from dxseg.reports.tables import to_latex, to_markdown


@dataclass(frozen=True)
class ExperimentOutcome:
    """How an experiment ended.

    Attributes:
        results: The table of results.csv.
        failures: Reasons of failed runs and stages, by name.
        markdown: The content of table.md.
        report: Path of the HTML page.
    """

    results: pd.DataFrame
    failures: dict[str, str]
    markdown: str
    report: Path

    @property
    def failed(self) -> list[tuple[str, str]]:
        """Name and reason of each job that failed."""
        return list(self.failures.items())

    def __str__(self) -> str:
        return f"{self.markdown}\nReport: {self.report}"


def run_planned(
    experiment: Experiment,
    planned: list[Job],
    registration: Registration,
    context: ExperimentContext,
    jobs: int,
) -> ExperimentOutcome:
    """Train and evaluate the runs that are not finished, and write everything that follows.

    Args:
        experiment: The experiment.
        planned: All of its jobs.
        registration: What was registered.
        context: Its folders, its dataset, and the split to evaluate on.
        jobs: Number of parallel processes; 0 trains nothing.
    """
    output = context.runs.parent
    needs = {job.name: list(job.inputs.values()) for job in planned}
    specs = _pending_jobs([_job_spec(job, context, jobs) for job in planned], needs)

    def note(failures: dict[str, str]) -> None:
        results = collect_results(experiment, planned, context, failures, {})
        write_results(results, output, context.split)

    failures = run_jobs(specs, needs, jobs=jobs, ended=note) if jobs else {}
    models = {
        job.method: context.runs / job.name / "model"
        for job in reversed(planned)
        if job.method is not None
        and is_evaluated(context.runs / job.name, context.split)
        and (context.runs / job.name / "model").is_dir()
    }
    with reporting(console, "Measuring the cost") as report:
        costs = measure_costs(models, output / COST_FILE, report)
    results = collect_results(experiment, planned, context, failures, costs)
    failures = {one.job.name: one.error for one in results if one.error} | failures
    markdown = write_outputs(
        experiment, context.dataset, registration, results, output, context.split
    )
    page = output / f"report{file_suffix(context.split)}.html"
    return ExperimentOutcome(make_results_table(results), failures, markdown, page)


def write_results(results: Sequence[RunResult], output: Path, split: str) -> pd.DataFrame:
    """Write results.csv and return its table.

    Args:
        results: One per run.
        output: Folder of the experiment.
        split: The split that was evaluated.
    """
    table = make_results_table(results)
    _write_csv(table, output, "results", split)
    return table


def write_outputs(
    experiment: Experiment,
    dataset: Dataset,
    registration: Registration,
    results: Sequence[RunResult],
    output: Path,
    split: str,
) -> str:
    """Write everything that follows from the runs.

    That is results.csv, curves.csv, curves.png, differences.csv, masks_saved.csv, retraining.csv,
    table.md, table.tex and report.html; for a split other than test their names end in its name.

    Args:
        experiment: The experiment.
        dataset: Its dataset.
        registration: What was registered.
        results: One per run.
        output: Folder of the experiment.
        split: The split that was evaluated.

    Returns:
        The content of table.md.

    Raises:
        DxsegError: The runs differ in cases, truth, groups, averaging or units.
    """
    table = write_results(results, output, split)
    pooled = PooledRuns(experiment, results)
    check_comparable(pooled.runs)
    curves = compute_curves(pooled)
    with reporting(console, "Comparing") as report:
        differences = compute_differences(pooled, report)
    saved, retraining = compute_masks_saved(pooled), compute_retraining(pooled)
    frames = {
        "curves": curves,
        "differences": differences,
        "masks_saved": saved,
        "retraining": retraining,
    }
    for name, frame in frames.items():
        _write_csv(frame, output, name, split)
    plot = draw_curves(experiment, curves, budget_unit(table))
    suffix = file_suffix(split)
    if plot:
        write_bytes_atomic(output / f"curves{suffix}.png", plot)
    tables = make_tables(experiment, table, curves, differences, saved, retraining)
    markdown = to_markdown(tables)
    write_text_atomic(output / f"table{suffix}.md", markdown)
    write_text_atomic(output / f"table{suffix}.tex", to_latex(tables))
    page = output / f"report{suffix}.html"
    write_experiment_page(page, experiment, dataset, registration, tables, table, differences, plot)
    return markdown


def _pending_jobs(specs: list[JobSpec], needs: Mapping[str, list[str]]) -> list[JobSpec]:
    """Leave out the stages 1 that only finished runs need: their folders may be gone."""
    needed = {name for spec in specs if not spec.done for name in needs[spec.name]}
    return [spec for spec in specs if spec.split is not None or spec.name in needed]


def _job_spec(job: Job, context: ExperimentContext, jobs: int) -> JobSpec:
    output = context.runs.parent
    return JobSpec(
        name=job.name,
        dataset=context.dataset.root,
        splits=output / "splits" / job.fold.splits,
        output=context.runs / job.name,
        config=job.config,
        split=None if job.is_stage1 else context.split,
        inputs={argument: context.runs / name for argument, name in job.inputs.items()},
        log=output / "logs" / f"{job.name.replace('/', '_')}.log",
        jobs=jobs,
    )


def _write_csv(table: pd.DataFrame, output: Path, name: str, split: str) -> None:
    text = table.to_csv(index=False, lineterminator="\n")
    write_text_atomic(output / f"{name}{file_suffix(split)}.csv", text)

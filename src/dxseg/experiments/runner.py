"""Run an experiment from its file: register, split, train, evaluate, write the results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from rich.console import Console

from dxseg.data.table.dataset import Dataset
from dxseg.errors import UsageError
from dxseg.evaluation.runs import file_suffix, is_evaluated
from dxseg.experiments.cost import COST_FILE, measure_costs
from dxseg.experiments.experiment import Experiment, parse_experiment, read_experiment_text
from dxseg.experiments.outputs import write_outputs, write_results
from dxseg.experiments.plan import Job, plan
from dxseg.experiments.preregistration import Registration, register
from dxseg.experiments.process_pool import run_orders
from dxseg.experiments.results import Where, collect, results_table
from dxseg.experiments.splits import check_budgets, divide, write_division
from dxseg.experiments.worker import Order
from dxseg.io.file_lock import exclusive_lock
from dxseg.io.progress import reporting


@dataclass(frozen=True)
class ExperimentOutcome:
    """How an experiment ended.

    Attributes:
        results: results.csv.
        failures: Why runs and stages failed, by name.
        markdown: The tables to read.
        report: The page to open.
    """

    results: pd.DataFrame
    failures: dict[str, str]
    markdown: str
    report: Path


def run_experiment(
    path: str | Path,
    output: str | Path,
    *,
    jobs: int = 1,
    validation_only: bool = False,
    console: Console | None = None,
) -> ExperimentOutcome:
    """Train and evaluate what an experiment file asks for; what is done already is kept.

    The file is registered in the folder at the first call. A run that fails is a row with its
    error; it is tried again by the next call.

    Args:
        path: The experiment file.
        output: The experiment's folder, made if absent.
        jobs: Processes at a time, which share the cores; 0 trains nothing and writes the tables of
            what is done.
        validation_only: Evaluate on the validation cases and leave the test cases alone.
        console: Where progress is drawn; standard error if absent.

    Returns:
        The results and what failed.

    Raises:
        UsageError: The experiment file is wrong, or a budget cannot be met.
        DxsegError: The experiment or its dataset has changed since it was registered, or another
            process works in the folder.
        KeyboardInterrupt: The user stopped the experiment; the same call continues it.
    """
    if jobs < 0:
        raise UsageError(f"{jobs} jobs: expected 1 or more, or 0 for the tables of what is done")
    path, output = Path(path), Path(output).resolve()
    console = console or Console(stderr=True)
    text = read_experiment_text(path)
    experiment = parse_experiment(text, str(path))
    planned = plan(experiment)
    dataset = Dataset.load(path.parent / experiment.dataset)
    with exclusive_lock(output, "experiment"):
        splits = divide(experiment, path.parent, dataset, output / "splits", console)
        check_budgets(dataset, planned, splits)
        registration = register(experiment, text, dataset, output)
        write_division(output / "splits", splits)
        split = "validation" if validation_only else "test"
        where = Where(output / "runs", dataset, split, registration.sha256, registration.added)
        return _run(experiment, planned, registration, where, jobs, console)


def _run(
    experiment: Experiment,
    planned: list[Job],
    registration: Registration,
    where: Where,
    jobs: int,
    console: Console,
) -> ExperimentOutcome:
    output = where.runs.parent
    needs = {job.name: list(job.inputs.values()) for job in planned}
    orders = _pending_jobs([_order(job, where, jobs) for job in planned], needs)

    def note(failures: dict[str, str]) -> None:
        write_results(collect(experiment, planned, where, failures, {}), output, where.split)

    failures = run_orders(orders, needs, jobs=jobs, console=console, ended=note) if jobs else {}
    models = {
        job.method: where.runs / job.name / "model"
        for job in reversed(planned)
        if job.method is not None
        and is_evaluated(where.runs / job.name, where.split)
        and (where.runs / job.name / "model").is_dir()
    }
    with reporting(console, "Measuring the cost") as report:
        costs = measure_costs(models, output / COST_FILE, report)
    results = collect(experiment, planned, where, failures, costs)
    markdown = write_outputs(
        experiment, where.dataset, registration, results, output, where.split, console
    )
    page = output / f"report{file_suffix(where.split)}.html"
    return ExperimentOutcome(results_table(results), failures, markdown, page)


def _pending_jobs(orders: list[Order], needs: Mapping[str, list[str]]) -> list[Order]:
    """Leave out the stages 1 that only runs need that are done: their folders may be gone."""
    needed = {name for order in orders if not order.done for name in needs[order.name]}
    return [order for order in orders if order.split is not None or order.name in needed]


def _order(job: Job, where: Where, jobs: int) -> Order:
    output = where.runs.parent
    return Order(
        name=job.name,
        dataset=where.dataset.root,
        splits=output / "splits" / job.part.splits,
        output=where.runs / job.name,
        config=job.config,
        split=None if job.is_stage1 else where.split,
        inputs={argument: where.runs / name for argument, name in job.inputs.items()},
        log=output / "logs" / f"{job.name.replace('/', '_')}.log",
        jobs=jobs,
    )

"""Run a study from its file: register, divide, train and evaluate every arm, write the results."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from filelock import FileLock, Timeout
from rich.console import Console

from dxseg.data.dataset import Dataset
from dxseg.data.files import write_text_atomic
from dxseg.errors import DxsegError, UsageError
from dxseg.evaluation.evaluate import file_suffix
from dxseg.studies.division import check_budgets, divide, write_division
from dxseg.studies.plan import Job, plan
from dxseg.studies.processes import run_orders
from dxseg.studies.registration import register
from dxseg.studies.results import RunResult, Where, collect, results_table
from dxseg.studies.study import Study, parse_study, read_study_text
from dxseg.studies.work import Order


@dataclass(frozen=True)
class StudyOutcome:
    """How a study ended.

    Attributes:
        results: results.csv.
        failures: Why runs and stages failed, by name.
        output: The study's folder.
    """

    results: pd.DataFrame
    failures: dict[str, str]
    output: Path


def run_study(
    path: str | Path,
    output: str | Path,
    *,
    jobs: int = 1,
    validation_only: bool = False,
    console: Console | None = None,
) -> StudyOutcome:
    """Train and evaluate what a study file asks for; what is done already is kept.

    The file is registered in the folder at the first call. A run that fails is a row with its
    error; it is tried again by the next call.

    Args:
        path: The study file.
        output: The study's folder, made if absent.
        jobs: Processes at a time; they share the cores.
        validation_only: Evaluate on the validation cases and leave the test cases alone.
        console: Where progress is drawn; standard error if absent.

    Returns:
        The results and what failed.

    Raises:
        UsageError: The study file is wrong, or a budget cannot be met.
        DxsegError: The study or its dataset has changed since it was registered, or another
            process works in the folder.
        KeyboardInterrupt: The user stopped the study; the same call continues it.
    """
    if jobs < 1:
        raise UsageError(f"{jobs} jobs: expected 1 or more")
    path, output = Path(path), Path(output).resolve()
    console = console or Console(stderr=True)
    text = read_study_text(path)
    study = parse_study(text, str(path))
    planned = plan(study)
    dataset = Dataset.load(path.parent / study.dataset)
    with _alone(output):
        splits = divide(study, path.parent, dataset, output / "splits", console)
        check_budgets(dataset, planned, splits)
        registration = register(study, text, dataset, output)
        write_division(output / "splits", splits)
        split = "validation" if validation_only else "test"
        where = Where(output / "runs", dataset, split, registration.sha256, registration.added)
        return _run(study, planned, where, output, jobs, console)


def _run(
    study: Study, planned: list[Job], where: Where, output: Path, jobs: int, console: Console
) -> StudyOutcome:
    orders = [_order(job, where, output, jobs) for job in planned]
    needs = {job.name: list(job.inputs.values()) for job in planned}

    def note() -> None:
        _write_results(collect(study, planned, where, {}, {}), output, where.split)

    failures = run_orders(orders, needs, jobs=jobs, console=console, ended=note)
    results = _write_results(collect(study, planned, where, failures, {}), output, where.split)
    return StudyOutcome(results, failures, output)


@contextmanager
def _alone(output: Path) -> Iterator[None]:
    """Keep a second process out of the folder; the lock lies beside it and is left there."""
    output.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(output.with_name(f".{output.name}.lock"), timeout=0):
            yield
    except Timeout as error:
        raise DxsegError(
            f"{output}: another process works on this study; wait for it, or end it"
        ) from error


def _order(job: Job, where: Where, output: Path, jobs: int) -> Order:
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


def _write_results(results: Sequence[RunResult], output: Path, split: str) -> pd.DataFrame:
    table = results_table(results)
    write_text_atomic(output / f"results{file_suffix(split)}.csv", table.to_csv(index=False))
    return table

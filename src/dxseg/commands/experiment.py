"""The command that trains and evaluates many methods under one protocol."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from dxseg.commands.options import OutputPath, StrPath
from dxseg.errors import UsageError

if TYPE_CHECKING:
    from dxseg.experiments.runner import ExperimentOutcome
else:
    ExperimentOutcome = Any


def experiment(
    file: StrPath,
    *,
    output: OutputPath,
    jobs: int = 1,
    validation_only: bool = False,
) -> ExperimentOutcome:
    """Train and evaluate the methods of an experiment file; the same command continues it.

    The file is registered in the folder first. A run that fails is a row with its error and is
    tried again the next time.

    Args:
        file: The experiment file, such as `experiment.yaml`.
        output: Folder of the experiment.
        jobs: Parallel jobs, which share the cores; 0 rebuilds the tables without training.
        validation_only: Evaluate on the validation cases only.

    Returns:
        The results and the failures.

    Raises:
        UsageError: The experiment file is wrong, or a budget exceeds the masks of the dataset.
        DxsegError: The file or its dataset has changed since it was registered, or another process
            uses the folder.
    """
    from dxseg.data.table.dataset import Dataset
    from dxseg.experiments.experiment import parse_experiment, read_experiment_text
    from dxseg.experiments.plan import plan
    from dxseg.experiments.preregistration import register
    from dxseg.experiments.results import ExperimentContext
    from dxseg.experiments.runner import run_planned
    from dxseg.experiments.splits import check_budgets, prepare_splits, write_missing_splits
    from dxseg.io.file_lock import exclusive_lock

    if jobs < 0:
        raise UsageError(
            f"{jobs} jobs: expected 1 or more, or 0 for the tables of the finished runs"
        )
    path, folder = Path(file), Path(output).resolve()
    text = read_experiment_text(path)
    parsed = parse_experiment(text, str(path))
    planned = plan(parsed)
    dataset = Dataset.load(path.parent / parsed.dataset)
    with exclusive_lock(folder, "experiment"):
        splits = prepare_splits(parsed, path.parent, dataset, folder / "splits")
        check_budgets(dataset, planned, splits)
        registration = register(parsed, text, dataset, folder)
        write_missing_splits(folder / "splits", splits)
        split = "validation" if validation_only else "test"
        context = ExperimentContext(
            folder / "runs", dataset, split, registration.sha256, registration.added
        )
        return run_planned(parsed, planned, registration, context, jobs)

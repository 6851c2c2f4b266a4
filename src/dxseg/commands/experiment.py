"""The command that trains and evaluates many methods under one protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dxseg.commands.options import OutputPath, StrPath

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
    from dxseg.experiments.runner import run_experiment

    return run_experiment(file, output, jobs=jobs, validation_only=validation_only)

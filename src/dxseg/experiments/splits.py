"""The splits of an experiment: drawn once, written down, the same for every method."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from rich.console import Console

from dxseg.data.splits.cross_validation import cross_validation_splits
from dxseg.data.splits.holdout import make_splits
from dxseg.data.splits.mask_budget import choose_masks
from dxseg.data.splits.split_table import read_splits, write_splits
from dxseg.data.table.dataset import Dataset
from dxseg.errors import UsageError
from dxseg.experiments.experiment import Experiment
from dxseg.experiments.plan import Job, parts, runs
from dxseg.io.progress import reporting


def divide(
    experiment: Experiment, base: Path, dataset: Dataset, folder: Path, console: Console
) -> dict[str, pd.DataFrame]:
    """Read the splits of an experiment, or draw them; nothing is written.

    Args:
        experiment: What to do.
        base: Folder of the experiment file.
        dataset: Its dataset.
        folder: Where splits are that have been written before.
        console: Where progress is drawn.

    Returns:
        By file name, a table each as `make_splits` gives it, without use_mask.

    Raises:
        DxsegError: A file does not fit the dataset, or the split cannot be drawn.
    """
    names = list(dict.fromkeys(part.splits for part in parts(experiment)))
    if all((folder / name).is_file() for name in names):
        return {name: read_splits(folder / name, dataset) for name in names}
    if experiment.splits is not None:
        given = read_splits(base / experiment.splits, dataset)
        return {names[0]: given.drop(columns="use_mask", errors="ignore")}
    cache = _cache(folder)
    with reporting(console, "Looking for near-duplicates") as progress:
        if experiment.folds is not None:
            tables = cross_validation_splits(
                dataset,
                folds=experiment.folds,
                validation_share=experiment.validation_share,
                seed=experiment.split_seed,
                cache=cache,
                progress=progress,
            )
        else:
            config = experiment.config(experiment.methods[0], experiment.masks[0], 0)
            fractions = config.split.fractions
            tables = [
                make_splits(
                    dataset,
                    fractions=fractions,
                    seed=experiment.split_seed,
                    cache=cache,
                    progress=progress,
                )
            ]
    return dict(zip(names, tables, strict=True))


def check_budgets(dataset: Dataset, jobs: Sequence[Job], splits: dict[str, pd.DataFrame]) -> None:
    """Refuse budgets that cannot be met, before hours of training.

    Args:
        dataset: Of the experiment.
        jobs: All of its jobs.
        splits: By file name.

    Raises:
        UsageError: A part has fewer training masks than a budget asks for, or no test case.
    """
    for part in {job.part.name: job.part for job in jobs}.values():
        if not splits[part.splits]["split"].eq("test").any():
            raise UsageError(f"{part.splits}: no case is tested; expected some in split test")
        for masks in dict.fromkeys(job.masks for job in runs(jobs) if job.part == part):
            budget = None if masks == "all" else masks
            try:
                choose_masks(
                    dataset,
                    splits[part.splits],
                    train_masks=budget,
                    validation_masks=None,
                    seed=part.seed,
                )
            except UsageError as error:
                raise UsageError(f"{part.name}: {error}") from error


def write_division(folder: Path, splits: dict[str, pd.DataFrame]) -> None:
    """Write the splits that are not there yet."""
    for name, table in splits.items():
        if not (folder / name).is_file():
            write_splits(folder / name, table)
    _cache(folder).unlink(missing_ok=True)


def _cache(folder: Path) -> Path:
    """What was found out about images, until the splits are written.

    It lies beside the experiment's folder, which stays empty until the experiment is known to be
    possible.
    """
    return folder.parent.with_name(f".{folder.parent.name}.unfinished")

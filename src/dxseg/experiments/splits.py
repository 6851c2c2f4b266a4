"""The splits of an experiment: made once, written to files, the same for every method."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from dxseg.data.splits.cross_validation import cross_validation_splits
from dxseg.data.splits.holdout import make_splits
from dxseg.data.splits.mask_budget import choose_masks
from dxseg.data.splits.split_table import read_splits, without_masks, write_splits
from dxseg.data.table.dataset import Dataset
from dxseg.data.table.volumes import MASK_LEVELS
from dxseg.errors import UsageError
from dxseg.experiments.experiment import Experiment
from dxseg.experiments.plan import Job, list_folds, select_runs
from dxseg.io.progress import console, reporting


def prepare_splits(
    experiment: Experiment, base: Path, dataset: Dataset, folder: Path
) -> dict[str, pd.DataFrame]:
    """Read the splits of an experiment, or make them; nothing is written.

    Args:
        experiment: The experiment.
        base: Folder of the experiment file.
        dataset: Its dataset.
        folder: Folder of splits that were written before.

    Returns:
        File name to table, as `make_splits` returns it, without use_mask.

    Raises:
        DxsegError: A file does not match the dataset, or the split cannot be made.
    """
    names = list(dict.fromkeys(fold.splits for fold in list_folds(experiment)))
    if all((folder / name).is_file() for name in names):
        return {name: read_splits(folder / name, dataset) for name in names}
    if experiment.splits is not None:
        given = read_splits(base / experiment.splits, dataset)
        return {names[0]: without_masks(given)}
    cache = _cache(folder)
    with reporting(console, "Looking for near-duplicates") as progress:
        if experiment.folds is not None:
            tables = cross_validation_splits(
                dataset,
                folds=experiment.folds,
                validation_fraction=experiment.validation_fraction,
                seed=experiment.split_seed,
                cache=cache,
                progress=progress,
            )
        else:
            config = experiment.run_config(experiment.methods[0], experiment.masks[0], 0)
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
    """Check that every fold has enough masks for its budgets, before hours of training.

    Args:
        dataset: Dataset of the experiment.
        jobs: All of its jobs.
        splits: File name to table.

    Raises:
        UsageError: A fold has fewer training masks than a budget, or no test case; or labels follow
            from masks, and the experiment leaves open what is known where these are hidden.
    """
    runs = select_runs(jobs)
    derived = dataset.cases["label_level"].isin(MASK_LEVELS).any()
    if derived and any(job.config.split.label_unit is None for job in runs):
        raise UsageError(
            f"{dataset.root}: labels of slices follow from masks; say what is known where masks "
            "are hidden, for example set: {split: {label_unit: volume}} (or slab, or slice)"
        )
    for fold in {job.fold.name: job.fold for job in jobs}.values():
        if not splits[fold.splits]["split"].eq("test").any():
            raise UsageError(f"{fold.splits}: no test case; expected some with split test")
        of_fold = [job.config.split for job in runs if job.fold == fold]
        for config in {split.model_dump_json(): split for split in of_fold}.values():
            try:
                choose_masks(
                    dataset,
                    splits[fold.splits],
                    train_masks=config.masks,
                    validation_masks=None,
                    seed=fold.seed,
                    budget_unit=config.budget_unit,
                    label_unit=config.label_unit,
                )
            except UsageError as error:
                raise UsageError(f"{fold.name}: {error}") from error


def write_missing_splits(folder: Path, splits: dict[str, pd.DataFrame]) -> None:
    """Write the splits whose files do not exist yet.

    Args:
        folder: Folder of the splits.
        splits: File name to table.
    """
    for name, table in splits.items():
        if not (folder / name).is_file():
            write_splits(folder / name, table)
    _cache(folder).unlink(missing_ok=True)


def _cache(folder: Path) -> Path:
    """The cache of image comparisons, until the splits are written.

    It is next to the experiment's folder, which stays empty until the experiment is accepted.
    """
    return folder.parent.with_name(f".{folder.parent.name}.unfinished")

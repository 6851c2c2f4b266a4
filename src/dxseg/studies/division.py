"""The splits of a study: drawn once, written down, the same for every arm."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from rich.console import Console

from dxseg.data.cross_validation import cross_validation_splits
from dxseg.data.dataset import Dataset
from dxseg.data.splits import choose_masks, make_splits, read_splits, write_splits
from dxseg.errors import UsageError
from dxseg.progress import reporting
from dxseg.studies.plan import Job, parts, runs
from dxseg.studies.study import Study


def divide(
    study: Study, base: Path, dataset: Dataset, folder: Path, console: Console
) -> dict[str, pd.DataFrame]:
    """Read the splits of a study, or draw them; nothing is written.

    Args:
        study: What to do.
        base: Folder of the study file.
        dataset: Its dataset.
        folder: Where splits are that have been written before.
        console: Where progress is drawn.

    Returns:
        By file name, a table each as `make_splits` gives it, without use_mask.

    Raises:
        DxsegError: A file does not fit the dataset, or the split cannot be drawn.
    """
    names = list(dict.fromkeys(part.splits for part in parts(study)))
    if all((folder / name).is_file() for name in names):
        return {name: read_splits(folder / name, dataset) for name in names}
    if study.splits is not None:
        given = read_splits(base / study.splits, dataset)
        return {names[0]: given.drop(columns="use_mask", errors="ignore")}
    cache = _cache(folder)
    with reporting(console, "Looking for near-duplicates") as progress:
        if study.folds is not None:
            tables = cross_validation_splits(
                dataset,
                folds=study.folds,
                validation_share=study.validation_share,
                seed=study.split_seed,
                cache=cache,
                progress=progress,
            )
        else:
            config = study.config(study.arms[0], study.masks[0], 0)
            fractions = config.split.fractions
            tables = [
                make_splits(
                    dataset,
                    fractions=fractions,
                    seed=study.split_seed,
                    cache=cache,
                    progress=progress,
                )
            ]
    return dict(zip(names, tables, strict=True))


def check_budgets(dataset: Dataset, jobs: Sequence[Job], splits: dict[str, pd.DataFrame]) -> None:
    """Refuse budgets that cannot be met, before hours of training.

    Args:
        dataset: Of the study.
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

    It lies beside the study's folder, which stays empty until the study is known to be possible.
    """
    return folder.parent.with_name(f".{folder.parent.name}.unfinished")

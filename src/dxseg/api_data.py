"""The verbs that look at a dataset, as functions."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from rich.console import Console

from dxseg.data.splits.holdout import make_splits, select_fold
from dxseg.data.splits.mask_budget import choose_masks
from dxseg.data.splits.split_table import write_splits
from dxseg.data.table.dataset import Dataset
from dxseg.io.progress import reporting
from dxseg.quality.check import check_dataset
from dxseg.quality.findings import CheckReport

PathLike = str | Path


def check(
    dataset: PathLike,
    *,
    splits: PathLike | None = None,
    output: PathLike | None = None,
    fix: PathLike | None = None,
    workers: int | None = None,
    console: Console | None = None,
) -> CheckReport:
    """Examine a dataset's files, masks, duplicates and splits; probe it for shortcuts.

    Writes check.json and check.html; called again, it reads only the files that have changed.

    Args:
        dataset: folder of the dataset.
        splits: a splits.csv to check; else the column split, if it is filled.
        output: folder of the report; ``check`` in the dataset's if absent.
        fix: folder for a repaired copy; the dataset itself is never changed.
        workers: processes; one a core if absent.
        console: where progress is drawn.

    Returns:
        What check.json holds; ``valid`` is False where results would be invalid.

    Raises:
        DxsegError: dataset.yaml, cases.csv or the splits cannot be read, or ``fix`` holds
            something else.
    """
    return check_dataset(
        dataset, splits=splits, output=output, fix=fix, workers=workers, console=console
    )


def split(
    dataset: PathLike,
    output: PathLike,
    *,
    masks: int | float | None = None,
    validation_masks: int | None = None,
    fractions: tuple[float, float, float] = (0.7, 0.1, 0.2),
    folds: int = 5,
    fold: int | None = None,
    split_seed: int = 0,
    seed: int = 0,
    console: Console | None = None,
) -> pd.DataFrame:
    """Write a splits.csv: who is trained on, validated on, tested on; whose mask may be used.

    Args:
        dataset: folder of the dataset.
        output: the file to write.
        masks: training masks that may be used, a count or a share; all if absent.
        validation_masks: validation masks that may be used; all if absent.
        fractions: of training, validation and test.
        folds: for cross-validation over what is not test.
        fold: the fold that validates while the others train; the drawn validation if absent.
        split_seed: draws the split.
        seed: draws the masks.
        console: where progress is drawn.

    Returns:
        The table: case_id, group, split, fold and, where a budget was given, use_mask.

    Raises:
        DxsegError: the dataset is wrong, or a budget exceeds the masks there are.
    """
    loaded = Dataset.load(dataset)
    with reporting(console or Console(stderr=True), "Looking for near-duplicates") as progress:
        cache = Path(output).with_name(f".{Path(output).stem}.unfinished")
        table = make_splits(
            loaded,
            fractions=fractions,
            folds=folds,
            seed=split_seed,
            cache=cache,
            progress=progress,
        )
    if fold is not None:
        table = select_fold(table, fold)
    if masks is not None or validation_masks is not None:
        table = choose_masks(
            loaded, table, train_masks=masks, validation_masks=validation_masks, seed=seed
        )
    write_splits(output, table)
    cache.unlink(missing_ok=True)
    return table

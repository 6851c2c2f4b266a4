"""Grouped cross-validation: every case is tested once, and no group is divided."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from dxseg.data.splits.groups import group_cases, label_sets
from dxseg.data.splits.split_table import check_groups
from dxseg.data.splits.stratified_split import StratifiedSplitter
from dxseg.data.table.cases import DROPPED, TEST, TRAIN, VALIDATION
from dxseg.data.table.dataset import Dataset
from dxseg.errors import UsageError

_FOLDS, _VALIDATION = 3, 4  # purposes of random generators, distinct from those of holdout.py


def cross_validation_splits(
    dataset: Dataset,
    *,
    folds: int = 5,
    validation_fraction: float = 0.125,
    seed: int = 0,
    groups: pd.Series[int] | None = None,
    cache: Path | None = None,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[pd.DataFrame]:
    """Split the cases once per fold: the fold is the test split, the rest training and validation.

    Groups, near-duplicates, dropped cases and strata are those of `make_splits`. The columns split
    and fold of cases.csv are not used, except that a case which is dropped there stays dropped.

    Args:
        dataset: The table of cases.
        folds: Number of folds, at least 2.
        validation_fraction: Fraction of the other cases used for validation; 0 to below 1.
        seed: Random seed; same seed, same table: same folds.
        groups: Near-duplicate group of each case, indexed by case_id, if known.
        cache: File for hashes of images, so that an interrupted job can continue.
        workers: Processes that read images; default: number of cores.
        progress: Called with (done, total) while images are read for near-duplicates.

    Returns:
        One table per fold, as from `make_splits`: case_id, group, split, fold. A case that is not
        dropped is in the test split of exactly one table; the column fold has the number of that
        table, and <NA> for cases that are in the test split or dropped.

    Raises:
        UsageError: Folds or fraction are invalid, or there are fewer groups than folds.
        DxsegError: An image is unreadable.
    """
    if folds < 2:
        raise UsageError(f"folds {folds}: expected at least 2")
    if not 0 <= validation_fraction < 1:
        raise UsageError(f"validation fraction {validation_fraction}: expected 0 to below 1")
    group, contradictory = group_cases(
        dataset, groups=groups, cache=cache, workers=workers, progress=progress
    )
    used = ~contradictory & dataset.cases["split"].ne(DROPPED).to_numpy()
    available = len(np.unique(group[used]))
    if available < folds:
        raise UsageError(
            f"{dataset.root / 'cases.csv'}: {available} groups of cases (patients, volumes or "
            f"near-duplicates) for {folds} folds; use at most as many folds as there are groups"
        )
    splitter = StratifiedSplitter(dataset, label_sets(dataset, dataset.cases["label"]))
    fold_of = splitter.split(group, used, [1 / folds] * folds, [seed, _FOLDS])
    tables = []
    for fold in range(folds):
        rest = used & (fold_of != fold)
        fractions = [1 - validation_fraction, validation_fraction]
        part = splitter.split(group, rest, fractions, [seed, _VALIDATION, fold])
        split = np.where(rest, np.array([TRAIN, VALIDATION], object)[part], TEST)
        table = pd.DataFrame(
            {
                "case_id": dataset.cases["case_id"].to_numpy(),
                "group": group,
                "split": np.where(used, split, DROPPED),
            }
        )
        table["fold"] = pd.Series(fold_of).astype("Int64").mask(~rest)
        check_groups(table, str(dataset.root / "cases.csv"))
        tables.append(table)
    return tables

"""Hold-out splits that keep a patient on one side: training, validation, test, and folds.

Images that belong together (one patient, one volume, near-duplicates) form a *group*; a group is
never divided. Splitting is stratified by label and by whether there is a lesion mask, because a
dataset with many labels and few masks needs some of those few in validation and test.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from dxseg.data.splits.groups import group_cases, label_sets
from dxseg.data.splits.split_table import check_groups
from dxseg.data.splits.stratified_split import StratifiedSplitter
from dxseg.data.table.cases import DROPPED, TEST, TRAIN, VALIDATION
from dxseg.data.table.dataset import Dataset
from dxseg.errors import DxsegError, UsageError


def make_splits(
    dataset: Dataset,
    *,
    fractions: tuple[float, float, float] = (0.7, 0.1, 0.2),
    folds: int = 5,
    seed: int = 0,
    groups: pd.Series[int] | None = None,
    cache: Path | None = None,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> pd.DataFrame:
    """Divide the cases into training, validation and test, and the first two into folds.

    A group is everything linked by patient, volume, the column group, image file or
    near-duplication. Near-duplicates are looked for only where some case has neither patient,
    volume nor group and ``groups`` is not given; images of one of them are not compared.
    Near-duplicates with contradicting labels are dropped whole: which label is wrong is unknown.
    Different labels of one patient are no contradiction; such a patient is stratified by its
    combination of labels, or, if fewer than ten groups share it, by its rarest label, lesions
    before lesion-free. Multi-label cases are treated alike. A study-level label stratifies too, but
    contradicts nothing. Every stratum of at least three groups
    reaches all three splits; a smaller one goes to training first.

    If every row of cases.csv names a split, that split is kept (so are the folds, if every
    training and validation row names one), no image is compared and nothing more is dropped.

    Args:
        dataset: The table of cases.
        fractions: Shares of the cases for training, validation, test; they sum to 1.
        folds: Number of folds; where there are fewer groups, the last folds stay empty.
        seed: Same seed, same table: same splits.
        groups: Near-duplicate group of each case, indexed by case_id, if known already.
        cache: A file that keeps what was found out about images, for a job that is interrupted.
        workers: Processes that read images; by default one for each core.
        progress: Called as ``progress(done, total)`` while images are read for near-duplicates.

    Returns:
        One row a case, in the order of the table: case_id, group (0, 1, ...), split (train,
        validation, test, dropped), fold (0..folds-1; <NA> for test and dropped).

    Raises:
        UsageError: If fractions, folds or groups are unusable.
        DxsegError: If the given split divides a group, is incomplete, or an image is unreadable.
    """
    _check_request(fractions, folds)
    given = _given_split(dataset)
    group, dropped = group_cases(
        dataset,
        groups=groups,
        look=not given,
        cache=cache,
        workers=workers,
        progress=progress,
    )
    result = pd.DataFrame({"case_id": dataset.cases["case_id"].to_numpy(), "group": group})
    splitter = StratifiedSplitter(dataset, label_sets(dataset, dataset.cases["label"]))
    if given:
        result["split"] = dataset.cases["split"].to_numpy()
    else:
        part = splitter.split(group, ~dropped, fractions, [seed, 0])
        result["split"] = np.array([TRAIN, VALIDATION, TEST, DROPPED], object)[part]
    used = result["split"].isin([TRAIN, VALIDATION]).to_numpy()
    if given and dataset.cases["fold"][used].notna().all():
        fold = dataset.cases["fold"]
    else:
        part = splitter.split(group, used, [1 / folds] * folds, [seed, 1])
        fold = pd.Series(part).astype("Int64")
    result["fold"] = fold.where(used, pd.NA)
    check_groups(result, str(dataset.root / "cases.csv"))
    return result


def select_fold(splits: pd.DataFrame, fold: int) -> pd.DataFrame:
    """Turn a table of splits into that of one fold: the fold is validation, the others training.

    Args:
        splits: What `make_splits` returned.
        fold: Which fold validates.

    Returns:
        A copy without use_mask, because the choice of masks belongs to one division.

    Raises:
        UsageError: If no case is in that fold.
    """
    chosen = splits["fold"].eq(fold).fillna(False).to_numpy(dtype=np.bool_)
    if not chosen.any():
        present = sorted({int(value) for value in splits["fold"].dropna()})
        raise UsageError(f"fold {fold}: no case is in it; the table has the folds {present}")
    result = splits.drop(columns="use_mask", errors="ignore").copy()
    result.loc[result["split"].isin([TRAIN, VALIDATION]), "split"] = TRAIN
    result.loc[chosen, "split"] = VALIDATION
    return result


def _check_request(fractions: tuple[float, float, float], folds: int) -> None:
    usable = len(fractions) == 3 and all(math.isfinite(f) and f >= 0 for f in fractions)
    if not usable or abs(sum(fractions) - 1) > 1e-6 or fractions[0] == 0:
        raise UsageError(
            f"fractions {tuple(fractions)}: expected three numbers from 0 that sum to 1 (training, "
            "validation, test), training above 0, such as 0.7 0.1 0.2"
        )
    if folds < 2:
        raise UsageError(f"folds {folds}: expected at least 2")


def _given_split(dataset: Dataset) -> bool:
    """Say whether cases.csv decides the split, refusing a column that is filled in part."""
    empty = dataset.cases["split"].eq("")
    if empty.any() and not empty.all():
        named = ", ".join(dataset.cases["case_id"][empty].head(5))
        raise DxsegError(
            f"{dataset.root / 'cases.csv'}: column split is empty in {int(empty.sum())} of "
            f"{len(empty)} rows (cases {named}, ...); fill it in every row, or empty it in every "
            "row to have the split made"
        )
    return not empty.any()

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
from dxseg.data.splits.split_table import check_groups, without_masks
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
    """Split the cases into training, validation and test, and the first two into folds.

    A group is everything linked by patient, volume, the column group, image file or
    near-duplication. Near-duplicates are searched only if some case has neither patient, volume nor
    group and `groups` is not given; images of the same patient, volume or group are not compared.
    Groups of near-duplicates with contradicting labels are dropped: it is unknown which label is
    wrong. Different labels of one patient are no contradiction; such a patient is stratified by its
    combination of labels, or, if fewer than ten groups have that combination, by its rarest label,
    lesions before lesion-free. The same holds for multi-label cases. Study-level labels stratify
    too, but contradict nothing. Every stratum of at least three groups is in all three splits; a
    smaller one goes to training first.

    If every row of cases.csv has a split, that split is kept (and the folds, if every training and
    validation row has one), no image is compared and nothing more is dropped.

    Args:
        dataset: The table of cases.
        fractions: Fractions of the cases for training, validation and test; they sum to 1.
        folds: Number of folds; if there are fewer groups, the last folds stay empty.
        seed: Random seed; same seed, same table: same splits.
        groups: Near-duplicate group of each case, indexed by case_id, if known.
        cache: File for hashes of images, so that an interrupted job can continue.
        workers: Processes that read images; default: number of cores.
        progress: Called with (done, total) while images are read for near-duplicates.

    Returns:
        One row per case, in the order of the table: case_id, group (0, 1, ...), split (train,
        validation, test, dropped), fold (0..folds-1; <NA> for test and dropped).

    Raises:
        UsageError: Fractions, folds or groups are invalid.
        DxsegError: The given split divides a group or is incomplete, or an image is unreadable.
    """
    _check_request(fractions, folds)
    given = _given_split(dataset)
    group, dropped = group_cases(
        dataset,
        groups=groups,
        search=not given,
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
    """Use one fold for validation and the others for training.

    Args:
        splits: Table from `make_splits`.
        fold: Fold used for validation.

    Returns:
        A copy without use_mask, because a choice of masks belongs to one split.

    Raises:
        UsageError: No case is in that fold.
    """
    chosen = splits["fold"].eq(fold).fillna(False).to_numpy(dtype=np.bool_)
    if not chosen.any():
        present = sorted({int(value) for value in splits["fold"].dropna()})
        raise UsageError(f"fold {fold}: no case is in this fold; the table has the folds {present}")
    result = without_masks(splits)
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
    """Whether cases.csv has the split; a column that is filled in part is an error."""
    empty = dataset.cases["split"].eq("")
    if empty.any() and not empty.all():
        named = ", ".join(dataset.cases["case_id"][empty].head(5))
        raise DxsegError(
            f"{dataset.root / 'cases.csv'}: column split is empty in {int(empty.sum())} of "
            f"{len(empty)} rows (cases {named}, ...); fill it in every row, or empty it in every "
            "row for a new split"
        )
    return not empty.any()

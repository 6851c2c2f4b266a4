"""Mask budgets: the choice of the few masks that may be used, as a stratified random sample."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dxseg.data.splits.stratified_split import members_by_stratum
from dxseg.data.table.cases import DROPPED, TEST, TRAIN, VALIDATION
from dxseg.data.table.dataset import Dataset
from dxseg.errors import UsageError


def choose_masks(
    dataset: Dataset,
    splits: pd.DataFrame,
    *,
    train_masks: int | float | None,
    validation_masks: int | None,
    seed: int,
) -> pd.DataFrame:
    """Choose the cases whose mask may be used; the budget counts masks of lesions only.

    Lesion-free cases are free: their mask is known to be empty. For one seed a larger budget
    contains every smaller one, each stratified by label and spread over groups.

    Args:
        dataset: The table of cases.
        splits: One row per case in the same order, as `make_splits` returns.
        train_masks: Number of training masks, or a fraction of those there are (a float in 0..1);
            None: all.
        validation_masks: Number of validation masks; None: all.
        seed: Random seed of the choice.

    Returns:
        A copy of `splits` with the bool column use_mask. In the test split it is True wherever
        there is a mask, for evaluation only.

    Raises:
        UsageError: A budget is out of range or exceeds the number of masks.
    """
    if list(splits["case_id"]) != list(dataset.cases["case_id"]):
        raise UsageError("splits: other cases, or another order, than the dataset; split it again")
    known = dataset.has_mask.to_numpy()
    free = dataset.lesion_free.to_numpy()
    split = splits["split"].to_numpy()
    use = known & (free | (split == TEST)) & (split != DROPPED)
    for number, (name, budget) in enumerate(((TRAIN, train_masks), (VALIDATION, validation_masks))):
        lesions = np.flatnonzero(known & ~free & (split == name))
        order = nested_order(
            dataset.cases["label"].iloc[lesions].tolist(),
            splits["group"].to_numpy()[lesions],
            np.random.default_rng([seed, 2, number]),
        )
        use[lesions[order[: _budget(budget, len(lesions), name)]]] = True
    result = splits.copy()
    result["use_mask"] = use
    return result


def _budget(budget: int | float | None, available: int, split: str) -> int:
    """Resolve a budget to a number of masks; one that cannot be met is an error."""
    if budget is None:
        return available
    if isinstance(budget, float):
        if not 0 <= budget <= 1:
            raise UsageError(
                f"fraction of {split} masks {budget}: expected 0 to 1, or a whole number"
            )
        # A fraction above 0 is at least one mask.
        return min(available, max(math.ceil(budget), round(budget * available)))
    if not 0 <= budget <= available:
        raise UsageError(
            f"{budget} masks for {split}: expected 0 to {available}, the lesion masks that the "
            f"{split} cases have; use fewer, or leave the number out for all"
        )
    return budget


def nested_order(
    strata: Sequence[str], groups: NDArray[Any], rng: np.random.Generator
) -> NDArray[np.int64]:
    """Order cases so that every prefix of the order is a stratified random sample.

    The first N cases have each stratum in its proportion (to within one case or so), and a larger
    N only adds cases. Within a stratum every group contributes one case before any contributes a
    second: a budget of masks is better spent on another patient than on the same one again.

    Args:
        strata: Stratum of each case.
        groups: Group of each case, shape (N,).
        rng: Source of the random order.

    Returns:
        Indices of the cases, shape (N,).
    """
    position = np.zeros(len(strata))
    for members in members_by_stratum(strata):
        shuffled = rng.permutation(members)
        turn = _occurrence(groups[shuffled])
        ordered = shuffled[np.argsort(turn, kind="stable")]
        # The middles of equal intervals: Webster's method as an order.
        position[ordered] = (np.arange(len(ordered)) + 0.5) / len(ordered)
    tie = rng.permutation(len(strata))
    return np.lexsort((tie, position))


def _occurrence(values: NDArray[Any]) -> NDArray[np.int64]:
    """Number the occurrences of each value in order: a a b a -> 0 1 0 2."""
    _, inverse = np.unique(values, return_inverse=True)
    order = np.argsort(inverse, kind="stable")
    starts = np.r_[0, np.flatnonzero(np.diff(inverse[order])) + 1] if len(values) else np.zeros(0)
    counts = np.diff(np.r_[starts, len(values)]).astype(np.int64)
    result = np.empty(len(values), np.int64)
    result[order] = np.arange(len(values)) - np.repeat(starts, counts).astype(np.int64)
    return result

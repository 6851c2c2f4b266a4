"""Mask budgets: the choice of the few masks that may be used, as a stratified random sample.

A budget counts images or, where the table has volumes, volumes: the masks of all their slices.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dxseg.data.splits.known_labels import LabelUnit, coarsen_labels, hidden_levels
from dxseg.data.splits.stratified_split import members_by_stratum
from dxseg.data.table.cases import CASES_FILE, DROPPED, TEST, TRAIN, VALIDATION
from dxseg.data.table.dataset import Dataset
from dxseg.errors import UsageError

BudgetUnit = Literal["volume", "slice"]


def choose_masks(
    dataset: Dataset,
    splits: pd.DataFrame,
    *,
    train_masks: int | float | None,
    validation_masks: int | None,
    seed: int,
    budget_unit: BudgetUnit | None = None,
    label_unit: LabelUnit | None = None,
) -> pd.DataFrame:
    """Choose the cases whose mask may be used; the budget counts masks of lesions only.

    Cases whose label means lesion-free are free: their mask is known to be empty. A label of a
    slice that follows from its mask counts only where the mask may be used; see
    `dxseg.data.splits.known_labels`. For one seed a larger budget contains every smaller one, each
    stratified by label and spread over groups.

    Args:
        dataset: The table of cases.
        splits: One row per case in the same order, as `make_splits` returns.
        train_masks: Number of training masks or volumes, or a fraction of those there are (a float
            in 0..1); None: all.
        validation_masks: Number of validation masks or volumes; None: all.
        seed: Random seed of the choice.
        budget_unit: What a budget counts: volumes with a lesion mask, all of whose masks may then
            be used, or slices; None: volumes where the table has some.
        label_unit: What labels are known of where masks are hidden; None: as the table says.

    Returns:
        A copy of `splits` with the bool column use_mask. In the test split it is True wherever
        there is a mask, for evaluation only. Where labels are hidden, also with label_level:
        `study` or `slab` where the label of the case may be used only as that, `unknown` where it
        may not be used, else "".

    Raises:
        UsageError: A budget is out of range or exceeds the number of masks.
    """
    if list(splits["case_id"]) != list(dataset.cases["case_id"]):
        raise UsageError("splits: other cases, or another order, than the dataset; split it again")
    counted = resolve_budget_unit(dataset, budget_unit)
    unit = budget_units(dataset, counted)
    known = dataset.has_mask.to_numpy()
    split = splits["split"].to_numpy()
    levels = hidden_levels(dataset, label_unit)
    free = coarsen_labels(dataset, levels).lesion_free.to_numpy()
    use = known & (free | (split == TEST)) & (split != DROPPED)
    for number, (name, budget) in enumerate(((TRAIN, train_masks), (VALIDATION, validation_masks))):
        lesions = lesion_cases(dataset, splits, name, unit)
        order = nested_order(
            dataset.cases["label"].iloc[lesions].tolist(),
            splits["group"].to_numpy()[lesions],
            np.random.default_rng([seed, 2, number]),
        )
        chosen = lesions[order[: _budget(budget, len(lesions), name, counted)]]
        use |= known & (split == name) & np.isin(unit, unit[chosen])
    result = splits.copy()
    result["use_mask"] = use
    levels[use] = ""
    if (levels != "").any():
        result["label_level"] = levels
    return result


def resolve_budget_unit(dataset: Dataset, unit: BudgetUnit | None) -> BudgetUnit:
    """What budgets of a dataset count: what is asked for, else volumes where there are some.

    Raises:
        UsageError: Volumes are asked for, and the table has none.
    """
    volumes = bool(dataset.cases["volume_id"].ne("").any())
    if unit == "volume" and not volumes:
        raise UsageError(
            f"{dataset.root / CASES_FILE}: a budget of volumes, but no case has a volume_id; fill "
            "it in, or leave the unit out"
        )
    return unit or ("volume" if volumes else "slice")


def budget_units(dataset: Dataset, unit: BudgetUnit | None) -> NDArray[np.int64]:
    """Number the units that a budget counts, (N,): a volume, or an image of none.

    Args:
        dataset: The table of cases.
        unit: See `resolve_budget_unit`.
    """
    cases = dataset.cases
    if resolve_budget_unit(dataset, unit) == "slice":
        return np.arange(len(cases))
    named = cases["volume_id"].ne("")
    names = ("volume\n" + cases["volume_id"]).where(named, cases["case_id"])
    return np.asarray(pd.factorize(names)[0], dtype=np.int64)


def lesion_cases(
    dataset: Dataset, splits: pd.DataFrame, split: str, unit: NDArray[np.int64]
) -> NDArray[np.int64]:
    """The first case with a lesion mask of each unit of a split.

    Args:
        dataset: The table of cases.
        splits: One row per case in the same order.
        split: Name of the split.
        unit: From `budget_units`.
    """
    with_lesion = (dataset.has_mask & ~dataset.lesion_free).to_numpy()
    lesions = np.flatnonzero(with_lesion & splits["split"].eq(split).to_numpy())
    _, first = np.unique(unit[lesions], return_index=True)
    return lesions[np.sort(first)]


def _budget(budget: int | float | None, available: int, split: str, unit: BudgetUnit) -> int:
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
        what = "lesion masks" if unit == "slice" else "volumes with a lesion mask"
        raise UsageError(
            f"{budget} {'masks' if unit == 'slice' else 'volumes'} for {split}: expected 0 to "
            f"{available}, the {what} that the {split} cases have; use fewer, or leave the number "
            "out for all"
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

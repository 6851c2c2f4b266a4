"""Masks saved: the number of masks with which the reference equals a method.

Where budgets count volumes, so do these numbers, and the Dice of volumes is an endpoint too.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dxseg.evaluation.summary import CONFIDENCE, ENDPOINTS, weighting
from dxseg.experiments.aggregate import PooledRuns, count_draws
from dxseg.experiments.plan import Fold
from dxseg.experiments.results import budget_unit, make_results_table
from dxseg.metrics.statistics import keep_shared, mean_by, resampled_means

VOLUME_DICE = "volume_dice"
"""The endpoint beside `ENDPOINTS` where budgets count volumes."""
COLUMNS = (
    *("experiment", "dataset", "method", "masks", "reference", "metric", "value"),
    "reference_value",
    *("equal_at", "low", "high", "folds", "added_later"),
)


def masks_needed(
    masks: NDArray[np.float64], curve: NDArray[np.float64], target: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Find the smallest number of masks at which a curve reaches a value.

    The curve is linear in the logarithm of the number of masks between its points. Where it falls
    with more masks, the first crossing counts, which favors the method least.

    Args:
        masks: (B,) numbers of masks, ascending, positive.
        curve: (R, B) values of the curve, one row per resample.
        target: (R,) the values to reach.

    Returns:
        (R,) numbers of masks; 0 where the first point is at or above the target, infinity where
        no point reaches it.
    """
    best = np.maximum.accumulate(curve, axis=1)
    reached = best >= target[:, None]
    needed = np.full(len(target), np.inf)
    needed[reached[:, 0]] = 0.0
    between = np.flatnonzero(reached.any(axis=1) & ~reached[:, 0])
    upper = reached[between].argmax(axis=1)
    before, after = best[between, upper - 1], best[between, upper]
    fraction = (target[between] - before) / (after - before)
    logs = np.log(masks)
    needed[between] = np.exp(logs[upper - 1] + fraction * (logs[upper] - logs[upper - 1]))
    return needed


def compute_masks_saved(pooled: PooledRuns) -> pd.DataFrame:
    """Compute for every other method, budget and endpoint where the reference equals it.

    Args:
        pooled: The runs.

    Returns:
        `COLUMNS`. equal_at, low and high are strings: an integer, or `<15`, `>560` beyond the
        smallest and the largest budget of the reference. Cases count where all budgets of the
        reference have a value too. For the interval, method and reference are resampled together,
        by group and draw. No row where the reference has fewer than two budgets, or where runs of
        earlier versions lack the endpoint.
    """
    reference = pooled.experiment.reference
    budgets = [cell for cell in pooled.cells if cell[0] == reference]
    by_volume = budget_unit(make_results_table(pooled.results)) == "volumes"
    endpoints = (VOLUME_DICE, *ENDPOINTS) if by_volume and pooled.has_volumes else (*ENDPOINTS,)
    rows: list[dict[str, Any]] = []
    for cell in pooled.cells:
        folds = pooled.folds(cell, *budgets) if len(budgets) > 1 else []
        if cell[0] == reference or not folds:
            continue
        for metric in endpoints:
            rows += _rows(pooled, cell, budgets, folds, metric)
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _rows(
    pooled: PooledRuns,
    cell: tuple[str, Any],
    budgets: list[tuple[str, Any]],
    folds: list[Fold],
    metric: str,
) -> list[dict[str, Any]]:
    """The row of an endpoint; none where no case has a value in all of the cells."""
    train_masks = np.array([_train_masks(pooled, budget, folds) for budget in budgets])
    ascending = np.argsort(train_masks)
    chosen = [cell, *(budgets[index] for index in ascending)]
    cases = [pooled.cases(one, metric, folds) for one in chosen]
    values = keep_shared(*(one.values for one in cases))
    if np.isnan(values).all():
        return []
    groups = cases[0].groups
    weigh = weighting(pooled.runs[0].averaged_by)
    draws = resampled_means(
        np.moveaxis(values, 0, 1),
        groups,
        folds=cases[0].folds,
        weighting=weigh,
        resamples=pooled.experiment.resamples,
    )
    point = np.array([[mean_by(one, groups, weighting=weigh) for one in values]])
    masks = train_masks[ascending]
    equal_at = masks_needed(masks, point[:, 1:], point[:, 0])
    spread = masks_needed(masks, draws[:, 1:], draws[:, 0])
    tails = [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]
    # A quantile that is one of the resamples: no interpolation between a number and infinity.
    low, high = (
        np.quantile(spread, tails, method="inverted_cdf") if len(spread) else (np.nan, np.nan)
    )
    main = [m for one, m in zip(chosen[1:], point[0, 1:], strict=True) if one[1] == cell[1]]
    row = {
        "experiment": pooled.experiment.name,
        "dataset": pooled.results[0].row["dataset"],
        "method": cell[0],
        "masks": cell[1],
        "reference": pooled.experiment.reference,
        "metric": metric,
        "value": point[0, 0],
        "reference_value": main[0] if main else np.nan,
        "equal_at": _format_masks(equal_at[0], masks),
        "low": _format_masks(low, masks),
        "high": _format_masks(high, masks),
        "folds": count_draws(folds)[0],
        "added_later": pooled.added_later(cell),
    }
    return [row]


def _train_masks(pooled: PooledRuns, cell: tuple[str, Any], folds: list[Fold]) -> float:
    """Mean number of training masks, or of volumes, of the runs of a cell."""
    counts = [
        result.row["cases_train_volumes"] or result.row["cases_train_masks"]
        for result in pooled.results
        if (result.job.method, result.job.masks) == cell and result.job.fold in folds
    ]
    return float(np.mean(counts))


def _format_masks(masks: float, budgets: NDArray[np.float64]) -> str:
    if np.isnan(masks):
        return ""
    if masks == 0:
        return f"<{budgets[0]:.0f}"
    return f">{budgets[-1]:.0f}" if np.isinf(masks) else f"{masks:.0f}"

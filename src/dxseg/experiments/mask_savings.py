"""Masks saved: how many masks the reference needs to equal a method."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dxseg.evaluation.summary import CONFIDENCE, weighting
from dxseg.experiments.aggregate import Pool
from dxseg.metrics.statistics import Weighting, mean_by, resampled_means

METRIC = "dice_lesion"
COLUMNS = (
    *(
        "experiment",
        "dataset",
        "method",
        "masks",
        "reference",
        "metric",
        "value",
        "reference_value",
    ),
    *("equal_at", "low", "high", "parts", "added_later"),
)


def masks_needed(
    masks: NDArray[np.float64], curve: NDArray[np.float64], target: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The fewest masks at which a curve reaches a value.

    The curve is linear in the logarithm of the number of masks between its points. Where it falls
    with more masks, its first arrival counts: that is the answer least in favour of the method.

    Args:
        masks: (B,) numbers of masks, rising, positive.
        curve: (R, B) values of the curve, one row a resample.
        target: (R,) the values to reach.

    Returns:
        (R,) numbers of masks; 0 where the first point lies at or above the target, infinity where
        no point reaches it.
    """
    best = np.maximum.accumulate(curve, axis=1)
    reached = best >= target[:, None]
    needed = np.full(len(target), np.inf)
    needed[reached[:, 0]] = 0.0
    between = np.flatnonzero(reached.any(axis=1) & ~reached[:, 0])
    upper = reached[between].argmax(axis=1)
    before, after = best[between, upper - 1], best[between, upper]
    share = (target[between] - before) / (after - before)
    logs = np.log(masks)
    needed[between] = np.exp(logs[upper - 1] + share * (logs[upper] - logs[upper - 1]))
    return needed


def masks_saved(pool: Pool) -> pd.DataFrame:
    """For every other method and budget: at how many masks the reference equals it.

    Args:
        pool: The runs.

    Returns:
        `COLUMNS`. equal_at, low and high are texts: a whole number, or `<15`, `>560` beyond the
        smallest and the largest budget of the reference. The interval comes from resampling groups,
        method and reference together. No row where the reference has fewer than two budgets.
    """
    reference = pool.experiment.reference
    budgets = [cell for cell in pool.cells if cell[0] == reference]
    rows: list[dict[str, Any]] = []
    for cell in pool.cells:
        parts = pool.parts(cell, *budgets) if len(budgets) > 1 else []
        if cell[0] == reference or not parts:
            continue
        rows.append(_row(pool, cell, budgets, parts))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _row(
    pool: Pool, cell: tuple[str, Any], budgets: list[tuple[str, Any]], parts: list[str]
) -> dict[str, Any]:
    given = np.array([_train_masks(pool, budget, parts) for budget in budgets])
    rising = np.argsort(given)
    chosen = [cell, *(budgets[index] for index in rising)]
    cases = [pool.cases(one, METRIC, parts) for one in chosen]
    values = np.stack([table["value"].to_numpy() for table in cases], axis=1)
    groups = cases[0]["group"].to_numpy()
    weigh = weighting(pool.runs[0].averaged_by)
    draws = resampled_means(values, groups, weighting=weigh, resamples=pool.experiment.resamples)
    whole = np.array([[_mean(table, weigh) for table in cases]])
    masks = given[rising]
    point = masks_needed(masks, whole[:, 1:], whole[:, 0])
    spread = masks_needed(masks, draws[:, 1:], draws[:, 0])
    tails = [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]
    # A quantile that is one of the draws: there is no middle between a number and infinity.
    low, high = (
        np.quantile(spread, tails, method="inverted_cdf") if len(spread) else (np.nan, np.nan)
    )
    main = [m for one, m in zip(chosen[1:], whole[0, 1:], strict=True) if one[1] == cell[1]]
    return {
        "experiment": pool.experiment.name,
        "dataset": pool.results[0].row["dataset"],
        "method": cell[0],
        "masks": cell[1],
        "reference": pool.experiment.reference,
        "metric": METRIC,
        "value": whole[0, 0],
        "reference_value": main[0] if main else np.nan,
        "equal_at": _shown(point[0], masks),
        "low": _shown(low, masks),
        "high": _shown(high, masks),
        "parts": len(parts),
        "added_later": pool.added_later(cell),
    }


def _mean(table: pd.DataFrame, weigh: Weighting) -> float:
    return mean_by(table["value"], table["group"], weighting=weigh)


def _train_masks(pool: Pool, cell: tuple[str, Any], parts: list[str]) -> float:
    """Mean number of training masks that the runs of a cell were given."""
    counts = [
        result.row["cases_train_masks"]
        for result in pool.results
        if (result.job.method, result.job.masks) == cell and result.job.part.name in parts
    ]
    return float(np.mean(counts))


def _shown(masks: float, budgets: NDArray[np.float64]) -> str:
    if np.isnan(masks):
        return ""
    if masks == 0:
        return f"<{budgets[0]:.0f}"
    return f">{budgets[-1]:.0f}" if np.isinf(masks) else f"{masks:.0f}"

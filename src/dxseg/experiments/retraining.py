"""What a retraining moves: how far draws of masks and seeds of the same fold differ."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import pandas as pd

from dxseg.evaluation.summary import ENDPOINTS, weighting
from dxseg.experiments.aggregate import PooledRuns
from dxseg.experiments.experiment import Budget
from dxseg.metrics.statistics import mean_by

COLUMNS = (
    *("experiment", "dataset", "method", "masks", "against", "metric"),
    *("folds", "trainings", "sd", "largest", "added_later"),
)
Cell = tuple[str, Budget]


def compute_retraining(pooled: PooledRuns) -> pd.DataFrame:
    """Compute how far a method, and its difference from the reference, moves between draws.

    Args:
        pooled: The runs.

    Returns:
        `COLUMNS`; against is "" for the method itself. sd is the standard deviation of a training
        around the mean of its fold, pooled over the folds with at least two draws; largest is the
        largest difference of two draws of a fold; trainings is the number of their runs.
    """
    rows = []
    for cell in pooled.cells:
        reference = (pooled.experiment.reference, cell[1])
        for against in (None, reference):
            for metric in ENDPOINTS if against != cell else ():
                rows += _row(pooled, cell, against, metric)
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _row(pooled: PooledRuns, cell: Cell, against: Cell | None, metric: str) -> list[dict[str, Any]]:
    """One row; none without a fold that has two draws."""
    cells = [cell] if against is None else [cell, against]
    by_fold: defaultdict[int | None, list[float]] = defaultdict(list)
    for fold in pooled.folds(*cells):
        means = [_mean(pooled, pooled.values(one, fold, metric)) for one in cells]
        by_fold[fold.number].append(means[0] - sum(means[1:]))
    trained = [np.array(values) for values in by_fold.values() if len(values) > 1]
    if not trained or np.isnan(np.concatenate(trained)).any():
        return []
    squares = sum(float(((values - values.mean()) ** 2).sum()) for values in trained)
    count = sum(len(values) for values in trained)
    return [
        {
            "experiment": pooled.experiment.name,
            "dataset": pooled.results[0].row["dataset"],
            "method": cell[0],
            "masks": cell[1],
            "against": "" if against is None else against[0],
            "metric": metric,
            "folds": len(trained),
            "trainings": count,
            "sd": (squares / (count - len(trained))) ** 0.5,
            "largest": max(float(np.ptp(values)) for values in trained),
            "added_later": pooled.added_later(*cells),
        }
    ]


def _mean(pooled: PooledRuns, values: pd.DataFrame) -> float:
    weigh = weighting(pooled.runs[0].averaged_by)
    return mean_by(values["value"], values["group"], weighting=weigh)

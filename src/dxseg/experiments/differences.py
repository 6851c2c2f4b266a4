"""Paired differences of the methods of an experiment, and its hypotheses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from dxseg.evaluation.compare import TESTED
from dxseg.evaluation.volume_summary import VOLUME_TESTED
from dxseg.experiments.aggregate import LOWER_IS_BETTER, PooledRuns, count_draws
from dxseg.experiments.experiment import Budget, Experiment, Hypothesis
from dxseg.io.progress import Report
from dxseg.metrics.statistics import holm

SIGNIFICANCE = 0.05
"""Largest adjusted p-value of a hypothesis that is met."""

DIFFERENCE_COLUMNS = (
    *("experiment", "dataset", "kind", "method", "masks", "against", "against_masks", "metric"),
    *("difference", "low", "high", "p_value", "p_holm", "images", "groups", "folds", "draws"),
    *("margin", "met", "added_later"),
)


def compute_differences(pooled: PooledRuns, report: Report) -> pd.DataFrame:
    """Compare every method with the reference at the same budget, then test the hypotheses.

    Holm's adjustment is over the methods for each budget and metric separately, and over all
    hypotheses together, those that cannot be tested included.

    Args:
        pooled: The runs.
        report: Called with the number of comparisons done and their total.

    Returns:
        `DIFFERENCE_COLUMNS`; margin and met (`is_met`) for hypotheses only.
        A hypothesis without runs has no difference and is not met.
    """
    reference = pooled.experiment.reference
    pairs = [
        (cell, (reference, cell[1]))
        for cell in pooled.cells
        if cell[0] != reference and pooled.folds(cell, (reference, cell[1]))
    ]
    tested = (*TESTED, *(VOLUME_TESTED if pooled.has_volumes else ()))
    total = len(pairs) * len(tested) + len(pooled.experiment.hypotheses)
    rows: list[dict[str, Any]] = []
    for masks in pooled.experiment.masks:
        for metric in tested:
            family = [_row(pooled, "reference", *p, metric) for p in pairs if p[0][1] == masks]
            rows += _adjust_p_values(family)
            report(len(rows), total)
    tests = []
    for hypothesis in pooled.experiment.hypotheses:
        first, second = _hypothesis_cells(pooled.experiment, hypothesis)
        row = _row(pooled, "hypothesis", first, second, hypothesis.metric)
        tests.append(row | {"margin": hypothesis.margin})
    tests = _adjust_p_values(tests, family=len(tests))
    rows += [row | {"met": is_met(row)} for row in tests]
    report(total, total)
    return pd.DataFrame(rows, columns=list(DIFFERENCE_COLUMNS))


def _hypothesis_cells(
    experiment: Experiment, hypothesis: Hypothesis
) -> tuple[tuple[str, Budget], tuple[str, Budget]]:
    masks = experiment.masks[0] if hypothesis.masks is None else hypothesis.masks
    against = masks if hypothesis.against_masks is None else hypothesis.against_masks
    return (hypothesis.method, masks), (hypothesis.against, against)


def _row(
    pooled: PooledRuns,
    kind: str,
    first: tuple[str, Budget],
    second: tuple[str, Budget],
    metric: str,
) -> dict[str, Any]:
    difference = pooled.difference(first, second, metric)
    return {
        "experiment": pooled.experiment.name,
        "dataset": pooled.results[0].row["dataset"],
        "kind": kind,
        "method": first[0],
        "masks": first[1],
        "against": second[0],
        "against_masks": second[1],
        "metric": metric,
        "difference": difference.mean,
        "low": difference.low,
        "high": difference.high,
        "p_value": difference.p_value,
        "images": difference.images,
        "groups": difference.groups,
        **dict(zip(("folds", "draws"), count_draws(pooled.folds(first, second)), strict=True)),
        "added_later": pooled.added_later(first, second),
    }


def _adjust_p_values(rows: list[dict[str, Any]], family: int | None = None) -> list[dict[str, Any]]:
    adjusted = holm([row["p_value"] for row in rows], family=family)
    return [row | {"p_holm": float(p)} for row, p in zip(rows, adjusted, strict=True)]


def is_met(row: Mapping[str, Any]) -> bool:
    """Whether a hypothesis holds; signs are reversed where lower is better.

    The difference is at least the margin. Its interval is above 0, and its p-value below 0.05
    after the adjustment; with a negative margin, which claims no gain, its interval is above that.

    Args:
        row: Of a hypothesis, with its margin and adjusted p-value.
    """
    gain, low, margin = row["difference"], row["low"], row["margin"]
    if row["metric"] in LOWER_IS_BETTER:
        gain, low = -gain, -row["high"]
    if margin < 0:
        return bool(gain >= margin and low > margin)
    return bool(gain >= margin and low > 0 and row["p_holm"] < SIGNIFICANCE)

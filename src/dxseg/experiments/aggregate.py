"""The runs of a method pooled over folds or seeds: metrics and paired differences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from dxseg.evaluation.compare import TESTED
from dxseg.evaluation.runs import EvaluatedRun
from dxseg.evaluation.summary import CONFIDENCE, INTERVALS, MEANS, values_of, weighting
from dxseg.experiments.experiment import Budget, Experiment, Hypothesis
from dxseg.experiments.results import COST, METRICS, RunResult
from dxseg.io.progress import Report
from dxseg.metrics.statistics import (
    PairedDifference,
    bootstrap_mean,
    holm,
    mean_by,
    paired_bootstrap,
)

LOWER_IS_BETTER = (
    "hd95_lesion",
    "false_positive_rate",
    "false_positive_area",
    "false_positive_area_fraction",
    "ece_pixel",
    "ece_label",
)
DIFFERENCE_COLUMNS = (
    *("experiment", "dataset", "kind", "method", "masks", "against", "against_masks", "metric"),
    *("difference", "low", "high", "p_value", "p_holm", "images", "groups", "folds"),
    *("margin", "met", "added_later"),
)

CURVE_COLUMNS = (
    *("experiment", "dataset", "method", "masks", "train_masks", "runs", "planned", "added_later"),
    *("images", "groups", *METRICS),
    *(f"{metric}_{end}" for metric in INTERVALS for end in ("low", "high")),
    *("dice_lesion_sd", *COST),
)


class PooledRuns:
    """The finished runs of an experiment, by method and budget.

    Attributes:
        experiment: The experiment.
        results: One per run, finished or not.
    """

    def __init__(self, experiment: Experiment, results: Sequence[RunResult]) -> None:
        self.experiment = experiment
        self.results = list(results)
        self._cells: dict[tuple[str, Budget], dict[str, EvaluatedRun]] = {}
        for result in results:
            if result.evaluated is not None:
                runs = self._cells.setdefault(_cell(result), {})
                runs[result.job.fold.name] = result.evaluated

    @property
    def runs(self) -> list[EvaluatedRun]:
        """All finished runs."""
        return [run for runs in self._cells.values() for run in runs.values()]

    @property
    def cells(self) -> list[tuple[str, Budget]]:
        """Method and budget of every finished run, in the experiment's order."""
        methods = [method.name for method in self.experiment.methods]
        order = self.experiment.masks
        return sorted(self._cells, key=lambda cell: (order.index(cell[1]), methods.index(cell[0])))

    def folds(self, *cells: tuple[str, Budget]) -> list[str]:
        """Names of the folds or seeds that are finished in all of these cells."""
        first = self._cells.get(cells[0], {})
        return [name for name in first if all(name in self._cells.get(c, {}) for c in cells)]

    def cases(self, cell: tuple[str, Budget], metric: str, folds: Sequence[str]) -> pd.DataFrame:
        """Average the value of each case over the runs that tested it.

        Args:
            cell: Method and budget.
            metric: A key of `MEANS`.
            folds: Names of the folds or seeds.

        Returns:
            Indexed by case_id, sorted: value (NaN where the metric leaves a case out), group.
        """
        tables = [self._cells[cell][name].table for name in folds]
        stacked = pd.concat(
            [t[["case_id", "group"]].assign(value=values_of(t, metric)) for t in tables]
        )
        by_case = stacked.groupby("case_id")
        return pd.DataFrame({"value": by_case["value"].mean(), "group": by_case["group"].first()})

    def difference(
        self, first: tuple[str, Budget], second: tuple[str, Budget], metric: str
    ) -> PairedDifference:
        """Compare first minus second over the cases of the folds or seeds that both have."""
        folds = self.folds(first, second)
        one, other = (self.cases(cell, metric, folds) for cell in (first, second))
        return paired_bootstrap(
            one["value"],
            other["value"],
            one["group"],
            weighting=weighting(self.runs[0].averaged_by),
            confidence=CONFIDENCE,
            resamples=self.experiment.resamples,
        )

    def added_later(self, *cells: tuple[str, Budget]) -> bool:
        """Whether some run of these cells was added after the registration."""
        return any(r.row["added_later"] for r in self.results if _cell(r) in cells)


def compute_curves(pooled: PooledRuns) -> pd.DataFrame:
    """Compute the metrics of every method and budget, over the cases of all folds or seeds.

    Means are over cases, intervals from a bootstrap of groups; AUROC and calibration errors are
    means over runs, because scores of different networks do not rank together.

    Args:
        pooled: The runs.

    Returns:
        `CURVE_COLUMNS`, one row per method and budget; train_masks is the mean number of training
        masks.
    """
    rows = []
    for cell in pooled.cells:
        results = [result for result in pooled.results if _cell(result) == cell]
        done = pd.DataFrame([result.row for result in results if result.evaluated is not None])
        folds = pooled.folds(cell)
        weigh = weighting(pooled.runs[0].averaged_by)
        row: dict[str, Any] = {
            **{name: results[0].row[name] for name in ("experiment", "dataset", "method", "masks")},
            "train_masks": done["cases_train_masks"].mean(),
            "runs": len(done),
            "planned": len(results),
            "added_later": pooled.added_later(cell),
        }
        every = pooled.cases(cell, "dice_all", folds)
        row |= {"images": len(every), "groups": every["group"].nunique()}
        for metric in METRICS:
            if metric in MEANS:
                cases = pooled.cases(cell, metric, folds)
                row[metric] = mean_by(cases["value"], cases["group"], weighting=weigh)
            else:
                row[metric] = pd.to_numeric(done[metric]).mean()
        for metric in INTERVALS:
            cases = pooled.cases(cell, metric, folds)
            interval = bootstrap_mean(
                cases["value"],
                cases["group"],
                weighting=weigh,
                confidence=CONFIDENCE,
                resamples=pooled.experiment.resamples,
            )
            row |= {f"{metric}_low": interval.low, f"{metric}_high": interval.high}
        row["dice_lesion_sd"] = pd.to_numeric(done["dice_lesion"]).std()
        row |= {name: pd.to_numeric(done[name]).mean() for name in COST}
        rows.append(row)
    return pd.DataFrame(rows, columns=list(CURVE_COLUMNS))


def select_complete(table: pd.DataFrame) -> pd.DataFrame:
    """Select the rows of curves.csv on the largest number of images, which are comparable.

    Folds can differ by more than methods do, so a row on fewer folds compares by differences only.

    Args:
        table: Result of `compute_curves`, or some of its rows.
    """
    complete: pd.DataFrame = table[table["images"] == table["images"].max()]
    return complete


def compute_differences(pooled: PooledRuns, report: Report) -> pd.DataFrame:
    """Compare every method with the reference at the same budget, then test the hypotheses.

    Holm's adjustment is over the methods for each budget and metric separately, and over all
    hypotheses together.

    Args:
        pooled: The runs.
        report: Called with the number of comparisons done and their total.

    Returns:
        `DIFFERENCE_COLUMNS`; margin and met (difference at least the margin and the interval above
        0, or above a negative margin; signs reversed where lower is better) for hypotheses only.
    """
    reference = pooled.experiment.reference
    pairs = [
        (cell, (reference, cell[1]))
        for cell in pooled.cells
        if cell[0] != reference and pooled.folds(cell, (reference, cell[1]))
    ]
    total = len(pairs) * len(TESTED) + len(pooled.experiment.hypotheses)
    rows: list[dict[str, Any]] = []
    for masks in pooled.experiment.masks:
        for metric in TESTED:
            family = [_row(pooled, "reference", *p, metric) for p in pairs if p[0][1] == masks]
            rows += _adjust_p_values(family)
            report(len(rows), total)
    tests = []
    for hypothesis in pooled.experiment.hypotheses:
        first, second = _hypothesis_cells(pooled.experiment, hypothesis)
        if pooled.folds(first, second):
            row = _row(pooled, "hypothesis", first, second, hypothesis.metric)
            tests.append(row | {"margin": hypothesis.margin} | _test_hypothesis(row, hypothesis))
    rows += _adjust_p_values(tests)
    report(total, total)
    return pd.DataFrame(rows, columns=list(DIFFERENCE_COLUMNS))


def _cell(result: RunResult) -> tuple[str, Budget]:
    assert result.job.method is not None
    assert result.job.masks is not None
    return result.job.method, result.job.masks


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
        "folds": len(pooled.folds(first, second)),
        "added_later": pooled.added_later(first, second),
    }


def _adjust_p_values(family: list[dict[str, Any]]) -> list[dict[str, Any]]:
    adjusted = holm([row["p_value"] for row in family])
    return [row | {"p_holm": float(p)} for row, p in zip(family, adjusted, strict=True)]


def _test_hypothesis(row: dict[str, Any], hypothesis: Hypothesis) -> dict[str, bool]:
    gain, low = row["difference"], row["low"]
    if hypothesis.metric in LOWER_IS_BETTER:
        gain, low = -gain, -row["high"]
    return {"met": bool(gain >= hypothesis.margin and low > min(0.0, hypothesis.margin))}

"""The runs of a method pooled over folds or seeds: figures, and paired differences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from dxseg.evaluation.compare import TESTED
from dxseg.evaluation.runs import EvaluatedRun
from dxseg.evaluation.summary import CONFIDENCE, INTERVALS, MEANS, values_of, weighting
from dxseg.experiments.experiment import Budget, Experiment, Hypothesis
from dxseg.experiments.results import COST, FIGURES, RunResult
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
    *("difference", "low", "high", "p_value", "p_holm", "images", "groups", "parts"),
    *("margin", "met", "added_later"),
)

CURVE_COLUMNS = (
    *("experiment", "dataset", "method", "masks", "train_masks", "runs", "planned", "added_later"),
    *("images", "groups", *FIGURES),
    *(f"{figure}_{end}" for figure in INTERVALS for end in ("low", "high")),
    *("dice_lesion_sd", *COST),
)


class Pool:
    """The finished runs of an experiment, by method and budget.

    Attributes:
        experiment: What was asked for.
        results: One a run, finished or not.
    """

    def __init__(self, experiment: Experiment, results: Sequence[RunResult]) -> None:
        self.experiment = experiment
        self.results = list(results)
        self._cells: dict[tuple[str, Budget], dict[str, EvaluatedRun]] = {}
        for result in results:
            if result.evaluated is not None:
                runs = self._cells.setdefault(_cell(result), {})
                runs[result.job.part.name] = result.evaluated

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

    def parts(self, *cells: tuple[str, Budget]) -> list[str]:
        """Names of the folds or seeds that are finished in all of these cells."""
        first = self._cells.get(cells[0], {})
        return [name for name in first if all(name in self._cells.get(c, {}) for c in cells)]

    def cases(self, cell: tuple[str, Budget], metric: str, parts: Sequence[str]) -> pd.DataFrame:
        """The value of each case, averaged over the runs that tested it.

        Args:
            cell: Method and budget.
            metric: A key of `MEANS`.
            parts: Which folds or seeds.

        Returns:
            Indexed by case_id, sorted: value (NaN where the metric leaves a case out), group.
        """
        tables = [self._cells[cell][name].table for name in parts]
        stacked = pd.concat(
            [t[["case_id", "group"]].assign(value=values_of(t, metric)) for t in tables]
        )
        by_case = stacked.groupby("case_id")
        return pd.DataFrame({"value": by_case["value"].mean(), "group": by_case["group"].first()})

    def difference(
        self, first: tuple[str, Budget], second: tuple[str, Budget], metric: str
    ) -> PairedDifference:
        """First minus second over the cases of the folds or seeds that both have."""
        parts = self.parts(first, second)
        mine, theirs = (self.cases(cell, metric, parts) for cell in (first, second))
        return paired_bootstrap(
            mine["value"],
            theirs["value"],
            mine["group"],
            weighting=weighting(self.runs[0].averaged_by),
            confidence=CONFIDENCE,
            resamples=self.experiment.resamples,
        )

    def added_later(self, *cells: tuple[str, Budget]) -> bool:
        """Whether some run of these cells was added after the registration."""
        return any(r.row["added_later"] for r in self.results if _cell(r) in cells)


def curves(pool: Pool) -> pd.DataFrame:
    """Figures of every method at every budget, over the cases of all its folds or seeds.

    Means are over cases, intervals from a bootstrap of groups; AUROC and calibration errors are
    means over runs, because scores of different networks do not rank together.

    Args:
        pool: The runs.

    Returns:
        `CURVE_COLUMNS`, one row a method and budget; train_masks is the mean number given.
    """
    rows = []
    for cell in pool.cells:
        own = [result for result in pool.results if _cell(result) == cell]
        done = pd.DataFrame([result.row for result in own if result.evaluated is not None])
        parts = pool.parts(cell)
        weigh = weighting(pool.runs[0].averaged_by)
        row: dict[str, Any] = {
            **{name: own[0].row[name] for name in ("experiment", "dataset", "method", "masks")},
            "train_masks": done["cases_train_masks"].mean(),
            "runs": len(done),
            "planned": len(own),
            "added_later": pool.added_later(cell),
        }
        every = pool.cases(cell, "dice_all", parts)
        row |= {"images": len(every), "groups": every["group"].nunique()}
        for figure in FIGURES:
            if figure in MEANS:
                cases = pool.cases(cell, figure, parts)
                row[figure] = mean_by(cases["value"], cases["group"], weighting=weigh)
            else:
                row[figure] = pd.to_numeric(done[figure]).mean()
        for figure in INTERVALS:
            cases = pool.cases(cell, figure, parts)
            interval = bootstrap_mean(
                cases["value"],
                cases["group"],
                weighting=weigh,
                confidence=CONFIDENCE,
                resamples=pool.experiment.resamples,
            )
            row |= {f"{figure}_low": interval.low, f"{figure}_high": interval.high}
        row["dice_lesion_sd"] = pd.to_numeric(done["dice_lesion"]).std()
        row |= {name: pd.to_numeric(done[name]).mean() for name in COST}
        rows.append(row)
    return pd.DataFrame(rows, columns=list(CURVE_COLUMNS))


def on_all_images(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of curves.csv on as many images as any of them: figures that compare as they are.

    Folds can differ by more than methods do, so a row on fewer folds compares by differences only.

    Args:
        table: Of :func:`curves`, or some of its rows.
    """
    whole: pd.DataFrame = table[table["images"] == table["images"].max()]
    return whole


def differences(pool: Pool, report: Report) -> pd.DataFrame:
    """Every method minus the reference at the same budget, then the hypotheses.

    Holm's adjustment is over the methods for each budget and metric by itself, and over all
    hypotheses together.

    Args:
        pool: The runs.
        report: Called with how many comparisons are done and how many there are.

    Returns:
        `DIFFERENCE_COLUMNS`; margin and met (difference at least the margin and the interval above
        0, or above a negative margin; signs turned where lower is better) for hypotheses only.
    """
    reference = pool.experiment.reference
    pairs = [
        (cell, (reference, cell[1]))
        for cell in pool.cells
        if cell[0] != reference and pool.parts(cell, (reference, cell[1]))
    ]
    total = len(pairs) * len(TESTED) + len(pool.experiment.hypotheses)
    rows: list[dict[str, Any]] = []
    for masks in pool.experiment.masks:
        for metric in TESTED:
            family = [_row(pool, "reference", *p, metric) for p in pairs if p[0][1] == masks]
            rows += _adjusted(family)
            report(len(rows), total)
    stated = []
    for hypothesis in pool.experiment.hypotheses:
        first, second = _sides(pool.experiment, hypothesis)
        if pool.parts(first, second):
            row = _row(pool, "hypothesis", first, second, hypothesis.metric)
            stated.append(row | {"margin": hypothesis.margin} | _verdict(row, hypothesis))
    rows += _adjusted(stated)
    report(total, total)
    return pd.DataFrame(rows, columns=list(DIFFERENCE_COLUMNS))


def _cell(result: RunResult) -> tuple[str, Budget]:
    assert result.job.method is not None
    assert result.job.masks is not None
    return result.job.method, result.job.masks


def _sides(
    experiment: Experiment, hypothesis: Hypothesis
) -> tuple[tuple[str, Budget], tuple[str, Budget]]:
    masks = experiment.masks[0] if hypothesis.masks is None else hypothesis.masks
    against = masks if hypothesis.against_masks is None else hypothesis.against_masks
    return (hypothesis.method, masks), (hypothesis.against, against)


def _row(
    pool: Pool, kind: str, first: tuple[str, Budget], second: tuple[str, Budget], metric: str
) -> dict[str, Any]:
    found = pool.difference(first, second, metric)
    return {
        "experiment": pool.experiment.name,
        "dataset": pool.results[0].row["dataset"],
        "kind": kind,
        "method": first[0],
        "masks": first[1],
        "against": second[0],
        "against_masks": second[1],
        "metric": metric,
        "difference": found.mean,
        "low": found.low,
        "high": found.high,
        "p_value": found.p_value,
        "images": found.images,
        "groups": found.groups,
        "parts": len(pool.parts(first, second)),
        "added_later": pool.added_later(first, second),
    }


def _adjusted(family: list[dict[str, Any]]) -> list[dict[str, Any]]:
    adjusted = holm([row["p_value"] for row in family])
    return [row | {"p_holm": float(p)} for row, p in zip(family, adjusted, strict=True)]


def _verdict(row: dict[str, Any], hypothesis: Hypothesis) -> dict[str, bool]:
    gain, low = row["difference"], row["low"]
    if hypothesis.metric in LOWER_IS_BETTER:
        gain, low = -gain, -row["high"]
    return {"met": bool(gain >= hypothesis.margin and low > min(0.0, hypothesis.margin))}

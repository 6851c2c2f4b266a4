"""The runs of a method pooled over folds, draws or seeds: the values of cases, and metrics."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dxseg.evaluation.runs import EvaluatedRun
from dxseg.evaluation.summary import CONFIDENCE, INTERVALS, MEANS, weighting
from dxseg.evaluation.volume_summary import VOLUME_MEANS, VOLUME_TESTED
from dxseg.experiments.experiment import Budget, Experiment
from dxseg.experiments.plan import Fold
from dxseg.experiments.results import COST, METRICS, RunResult
from dxseg.metrics.statistics import (
    PairedDifference,
    bootstrap_mean,
    keep_shared,
    mean_by,
    paired_bootstrap,
)

LOWER_IS_BETTER = (
    "hd95_lesion",
    "false_positive_rate",
    "false_positive_rate_fp10",
    "false_positive_area",
    "false_positive_area_fraction",
    "ece_pixel",
    "ece_label",
    "volume_hd95",
    "volume_absolute_error_ml",
    "volume_false_positive_rate",
)
CURVE_COLUMNS = (
    *("experiment", "dataset", "method", "masks", "train_masks", "runs", "planned", "added_later"),
    *("images", "groups", "draws", *METRICS),
    *(f"{metric}_{end}" for metric in (*INTERVALS, *VOLUME_TESTED) for end in ("low", "high")),
    *("dice_lesion_sd", *COST),
)


@dataclass(frozen=True)
class CaseValues:
    """The values of test cases, images or volumes, in the runs of a method.

    Attributes:
        values: (N, D) of each case under each draw of its fold; NaN where the metric leaves a case
            out, and in draws that its fold does not have.
        groups: (N,) patient or group.
        folds: (N,) number of its fold; 0 on a fixed split.
    """

    values: NDArray[np.float64]
    groups: NDArray[Any]
    folds: NDArray[np.int64]


class PooledRuns:
    """The finished runs of an experiment, by method and budget.

    Attributes:
        experiment: The experiment.
        results: One per run, finished or not.
    """

    def __init__(self, experiment: Experiment, results: Sequence[RunResult]) -> None:
        self.experiment = experiment
        self.results = list(results)
        self._cells: dict[tuple[str, Budget], dict[Fold, EvaluatedRun]] = {}
        self._stacked: dict[tuple[tuple[str, Budget], str, tuple[Fold, ...]], CaseValues] = {}
        for result in results:
            if result.evaluated is not None:
                runs = self._cells.setdefault(_cell(result), {})
                runs[result.job.fold] = result.evaluated

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

    def folds(self, *cells: tuple[str, Budget]) -> list[Fold]:
        """Draws of folds, or seeds, that are finished in all of these cells."""
        first = self._cells.get(cells[0], {})
        return [fold for fold in first if all(fold in self._cells.get(c, {}) for c in cells)]

    def values(self, cell: tuple[str, Budget], fold: Fold, metric: str) -> pd.DataFrame:
        """The values of a run, one row per test case."""
        return self._cells[cell][fold].values(metric)

    @property
    def has_volumes(self) -> bool:
        """Whether the test images are slices of volumes that were measured."""
        return any(len(run.volumes) for run in self.runs)

    def cases(self, cell: tuple[str, Budget], metric: str, folds: Sequence[Fold]) -> CaseValues:
        """The values of all cases that some draws of folds tested, sorted by case_id.

        Args:
            cell: Method and budget.
            metric: A key of `MEANS` or `VOLUME_MEANS`.
            folds: The draws of folds, or the seeds.
        """
        # Every table asks for the same ones again.
        key = (cell, metric, tuple(folds))
        if key not in self._stacked:
            self._stacked[key] = self._stack(*key)
        return self._stacked[key]

    def _stack(self, cell: tuple[str, Budget], metric: str, folds: tuple[Fold, ...]) -> CaseValues:
        tables = [self.values(cell, fold, metric) for fold in folds]
        cases = pd.Index(sorted({case for table in tables for case in table["case_id"]}))
        draws = sorted({fold.draw for fold in folds})
        values = np.full((len(cases), len(draws)), np.nan)
        groups, numbers = np.empty(len(cases), object), np.empty(len(cases), np.int64)
        for fold, table in zip(folds, tables, strict=True):
            rows = cases.get_indexer(table["case_id"])
            values[rows, draws.index(fold.draw)] = table["value"]
            groups[rows], numbers[rows] = table["group"], fold.number or 0
        return CaseValues(values, groups, numbers)

    def difference(
        self, first: tuple[str, Budget], second: tuple[str, Budget], metric: str
    ) -> PairedDifference:
        """Compare first minus second over the cases of the folds or seeds that both have.

        Cases without a value in one of both count in neither. NaN where nothing is shared.
        """
        folds = self.folds(first, second)
        if not folds:
            return PairedDifference(math.nan, math.nan, math.nan, 0, 0, 0, math.nan)
        one, other = (self.cases(cell, metric, folds) for cell in (first, second))
        values, reference = keep_shared(one.values, other.values)
        return paired_bootstrap(
            values,
            reference,
            one.groups,
            folds=one.folds,
            weighting=weighting(self.runs[0].averaged_by),
            confidence=CONFIDENCE,
            resamples=self.experiment.resamples,
        )

    def added_later(self, *cells: tuple[str, Budget]) -> bool:
        """Whether some run of these cells was added after the registration."""
        return any(r.row["added_later"] for r in self.results if _cell(r) in cells)


def compute_curves(pooled: PooledRuns) -> pd.DataFrame:
    """Compute the metrics of every method and budget, over the cases of all folds or seeds.

    Means are over images, those of `VOLUME_MEANS` over volumes; intervals are from a bootstrap of
    groups and of the draws of each fold, but precision has none, which is undefined where a method
    finds nothing; AUROC, calibration errors and the Dice of all volumes as
    one are means over runs, because scores of different networks do not rank together.

    Args:
        pooled: The runs.

    Returns:
        `CURVE_COLUMNS`, one row per method and budget; train_masks is the mean number of training
        masks, or of volumes where budgets count these.
    """
    rows = []
    for cell in pooled.cells:
        results = [result for result in pooled.results if _cell(result) == cell]
        done = pd.DataFrame([result.row for result in results if result.evaluated is not None])
        folds = pooled.folds(cell)
        weigh = weighting(pooled.runs[0].averaged_by)
        row: dict[str, Any] = {
            **{name: results[0].row[name] for name in ("experiment", "dataset", "method", "masks")},
            "train_masks": done["cases_train_volumes"]
            .where(done["cases_train_volumes"] > 0, done["cases_train_masks"])
            .mean(),
            "runs": len(done),
            "planned": len(results),
            "added_later": pooled.added_later(cell),
        }
        every = pooled.cases(cell, "dice_all", folds)
        row |= {"images": len(every.values), "groups": len(set(every.groups))}
        means = (*MEANS, *(VOLUME_MEANS if pooled.has_volumes else ()))
        for metric in METRICS:
            if metric in means:
                cases = pooled.cases(cell, metric, folds)
                row[metric] = mean_by(cases.values, cases.groups, weighting=weigh)
            else:
                row[metric] = pd.to_numeric(done[metric]).mean()
        for metric in (*INTERVALS, *(VOLUME_TESTED if pooled.has_volumes else ())):
            cases = pooled.cases(cell, metric, folds)
            interval = bootstrap_mean(
                cases.values,
                cases.groups,
                folds=cases.folds,
                weighting=weigh,
                confidence=CONFIDENCE,
                resamples=pooled.experiment.resamples,
            )
            row |= {f"{metric}_low": interval.low, f"{metric}_high": interval.high}
        row["draws"] = count_draws(folds)[1]
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


def count_draws(folds: Sequence[Fold]) -> tuple[int, int]:
    """Number of folds, and the smallest number of draws of one; each seed is a draw of one fold."""
    draws = Counter(fold.number for fold in folds)
    return len(draws), min(draws.values(), default=0)


def _cell(result: RunResult) -> tuple[str, Budget]:
    assert result.job.method is not None
    assert result.job.masks is not None
    return result.job.method, result.job.masks

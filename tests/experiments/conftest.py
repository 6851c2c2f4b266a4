"""Experiments in memory: what an experiment would have found, without training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from dxseg.evaluation.cases import COLUMNS as CASE_COLUMNS
from dxseg.evaluation.cases import EQUAL_RULES_COLUMNS
from dxseg.evaluation.runs import EvaluatedRun
from dxseg.experiments.experiment import Experiment, parse_experiment
from dxseg.experiments.plan import Job, plan, select_runs
from dxseg.experiments.results import COLUMNS, DONE, FAILED, RunResult

CASES = 40
"""Of each fold: 30 with a lesion, two a group."""

BASE: dict[str, Any] = {
    "name": "trial",
    "dataset": "data",
    "masks": [15, 60],
    "folds": 3,
    "methods": ["unet", "unet-stage1", "sks-evidence"],
    "reference": "unet",
    "resamples": 500,
}


@pytest.fixture(scope="session")
def make_experiment() -> Callable[..., Experiment]:
    """An experiment file with some keys changed; None removes a key."""

    def make(**changes: Any) -> Experiment:
        content = {key: value for key, value in (BASE | changes).items() if value is not None}
        return parse_experiment(yaml.safe_dump(content), "experiment.yaml")

    return make


def case_table(fold: int, dice: float, noise: float, seed: int) -> pd.DataFrame:
    """Rows per image whose lesion Dice is `dice`, a difficulty of the case and some noise."""
    number = np.arange(CASES)
    lesion = number < 30
    hard = np.random.default_rng(fold).normal(0, 0.05, CASES)
    own = np.random.default_rng([fold, seed]).normal(0, noise, CASES) if noise else 0.0
    return pd.DataFrame(
        {
            **dict.fromkeys((*CASE_COLUMNS, *EQUAL_RULES_COLUMNS), 0.5),
            "case_id": [f"{fold}-{n:02d}" for n in number],
            "group": [f"{fold}-{n // 2}" for n in number],
            "label": np.where(lesion, "benign", "normal"),
            "lesion_free": ~lesion,
            "dice": np.where(lesion, dice + hard + own, 1.0),
            "dice_known": np.where(lesion, dice + hard + own + 0.02, np.nan),
            "dice_fp10": np.where(lesion, dice + hard + own - 0.01, np.nan),
            "true_area": np.where(lesion, 100.0, 0.0),
            "predicted_area": np.where(lesion, 90.0, 0.0),
            "false_positive": False,
        }
    )


@pytest.fixture(scope="session")
def make_results() -> Callable[..., list[RunResult]]:
    """Runs of an experiment: `dice(method, masks)` is the mean of a run, None if it failed."""

    def make(
        experiment: Experiment, dice: Callable[[str, Any], float | None], noise: float = 0.02
    ) -> list[RunResult]:
        return [
            result(experiment, job, dice(str(job.method), job.masks), noise)
            for job in select_runs(plan(experiment))
        ]

    def result(experiment: Experiment, job: Job, value: float | None, noise: float) -> RunResult:
        row: dict[str, Any] = dict.fromkeys(COLUMNS) | {
            "experiment": experiment.name,
            "dataset": "data",
            "method": job.method,
            "masks": job.masks,
            "fold": job.fold.number,
            "draw": job.fold.draw,
            "seed": job.fold.seed,
            "split": "test",
            "added_later": False,
        }
        if value is None:
            return RunResult(job, "diverged", None, row | {"status": FAILED, "error": "diverged"})
        fold = 0 if job.fold.number is None else job.fold.number
        # Draws of a fold differ by what a retraining moves.
        value += 0.1 * job.fold.draw
        table = case_table(fold, value, noise, sum(job.name.encode()))
        masks = 240 if job.masks == "all" else job.masks
        row |= {"status": DONE, "error": "", "cases_train_masks": masks, "parameters": 3_000_000}
        row |= {"dice_lesion": table.loc[table["true_area"] > 0, "dice"].mean()}
        run = EvaluatedRun(
            Path(job.name), str(job.method), job.fold.seed, "image", {"distance": "px"}, table, {}
        )
        return RunResult(job, "", run, row)

    return make

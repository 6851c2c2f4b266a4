"""Masks saved, against closed forms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dxseg.evaluation.summary import ENDPOINTS
from dxseg.experiments.aggregate import PooledRuns
from dxseg.experiments.experiment import Experiment
from dxseg.experiments.mask_savings import compute_masks_saved, masks_needed
from dxseg.experiments.results import RunResult

MASKS = np.array([15.0, 35.0, 70.0, 140.0])


def needed(curve: list[float], target: float) -> float:
    [found] = masks_needed(MASKS, np.array([curve]), np.array([target]))
    return float(found)


@given(st.floats(0.01, 0.5), st.floats(16, 139))
def test_a_line_in_the_logarithm_is_inverted_exactly(slope: float, masks: float) -> None:
    curve = [float(slope * np.log(value)) for value in MASKS]
    assert needed(curve, slope * float(np.log(masks))) == pytest.approx(masks)


def test_points_beyond_the_curve_are_open() -> None:
    curve = [0.5, 0.6, 0.65, 0.7]
    assert needed(curve, 0.71) == np.inf
    assert needed(curve, 0.5) == 0
    assert needed(curve, 0.4) == 0
    assert needed(curve, 0.7) == pytest.approx(140)
    assert needed(curve, 0.6) == pytest.approx(35)


def test_where_the_curve_falls_its_first_arrival_counts() -> None:
    assert needed([0.5, 0.7, 0.4, 0.8], 0.6) == pytest.approx(np.sqrt(15 * 35))
    assert 70 < needed([0.5, 0.7, 0.4, 0.8], 0.75) < 140
    assert needed([0.5, 0.5, 0.5, 0.5], 0.6) == np.inf


def test_each_resample_has_an_answer_of_its_own() -> None:
    curves = np.array([[0.5, 0.6, 0.7, 0.8], [0.7, 0.7, 0.7, 0.7], [0.1, 0.2, 0.3, 0.4]])
    found = masks_needed(MASKS, curves, np.array([0.7, 0.7, 0.7]))
    assert found.tolist() == [pytest.approx(70), 0, np.inf]


def test_a_method_that_equals_the_reference_at_60_masks_saves_45(
    make_experiment: Callable[..., Experiment], make_results: Callable[..., list[RunResult]]
) -> None:
    experiment = make_experiment(masks=[15, 60, "all"])
    value = {15: 0.4, 60: 0.5, "all": 0.55}

    def dice(method: str, masks: Any) -> float:
        gain = {"unet": 0.0, "unet-stage1": 0.1, "sks-evidence": 0.2}
        return value[masks] + gain[method]

    table = compute_masks_saved(PooledRuns(experiment, make_results(experiment, dice, noise=0.0)))
    assert table["metric"].tolist() == [*ENDPOINTS] * 6
    rows = table[table["metric"] == "dice_lesion_known"].set_index(["method", "masks"])
    # Without noise every resample has the same gain, so the interval is a point.
    assert rows.loc[("unet-stage1", 15), ["equal_at", "low", "high"]].tolist() == ["60"] * 3
    assert rows.loc[("sks-evidence", 15), "equal_at"] == ">240"
    assert rows.loc[("unet-stage1", "all"), "equal_at"] == ">240"
    assert rows.loc[("unet-stage1", 15), "value"] - rows.loc[
        ("unet-stage1", 15), "reference_value"
    ] == pytest.approx(0.1)


def test_where_budgets_count_volumes_so_do_masks_saved(
    make_experiment: Callable[..., Experiment], make_results: Callable[..., list[RunResult]]
) -> None:
    """Ten slices of each volume have a mask; a method that equals 6 volumes saves 3, not 30."""
    experiment = make_experiment(masks=[3, 6, 12])
    value = {3: 0.4, 6: 0.5, 12: 0.55}
    gain = {"unet": 0.0, "unet-stage1": 0.1, "sks-evidence": 0.2}
    results = make_results(experiment, lambda method, n: value[n] + gain[method], noise=0.0)
    for result in results:
        masks = result.job.masks
        result.row.update(cases_train_masks=10 * masks, cases_train_volumes=masks)
    table = compute_masks_saved(PooledRuns(experiment, results))
    rows = table[table["metric"] == "dice_lesion_known"].set_index(["method", "masks"])
    assert rows.loc[("unet-stage1", 3), "equal_at"] == "6"
    assert rows.loc[("sks-evidence", 3), "equal_at"] == ">12"


def test_an_endpoint_that_runs_lack_ends_nothing(
    make_experiment: Callable[..., Experiment], make_results: Callable[..., list[RunResult]]
) -> None:
    """Evaluations of earlier versions have no Dice at 10% false positives."""
    experiment = make_experiment()

    def saved(*lacking: int) -> list[str]:
        results = make_results(experiment, lambda _, masks: 0.4 + masks / 1000, noise=0.0)
        for result in results:
            if result.job.method == "unet" and result.job.fold.number in lacking:
                assert result.evaluated is not None
                result.evaluated.table["dice_fp10"] = np.nan
        return list(compute_masks_saved(PooledRuns(experiment, results))["metric"])

    others = [name for name in ENDPOINTS if name != "dice_lesion_fp10"]
    assert saved(0, 1, 2) == others * 4
    assert saved(1) == [*ENDPOINTS] * 4, "the other folds count"


def test_one_budget_has_no_curve_to_read(
    make_experiment: Callable[..., Experiment], make_results: Callable[..., list[RunResult]]
) -> None:
    experiment = make_experiment(masks=[15])
    assert (
        len(compute_masks_saved(PooledRuns(experiment, make_results(experiment, lambda *_: 0.5))))
        == 0
    )

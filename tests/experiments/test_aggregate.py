"""What an experiment finds when its runs are pooled, against effects that were put in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from dxseg.evaluation.runs import check_comparable
from dxseg.experiments.aggregate import PooledRuns, compute_curves
from dxseg.experiments.differences import compute_differences, is_met
from dxseg.experiments.experiment import Experiment
from dxseg.experiments.results import RunResult
from dxseg.metrics.statistics import holm, paired_bootstrap, resampled_means

Make = Callable[..., Experiment]
MakeResults = Callable[..., list[RunResult]]

GAIN = {"unet": 0.0, "unet-stage1": 0.03, "sks-evidence": 0.08}


def quiet(done: int, total: int) -> None:
    assert done <= total


def dice(method: str, masks: Any) -> float:
    return 0.4 + GAIN.get(method, 0.0) + (0.1 if masks == 60 else 0.0)


def test_figures_are_means_over_the_cases_of_all_folds(
    make_experiment: Make, make_results: MakeResults
) -> None:
    results = make_results(make_experiment(), dice)
    pool = PooledRuns(make_experiment(), results)
    check_comparable(pool.runs)
    table = compute_curves(pool).set_index(["method", "masks"])
    assert len(table) == 6
    row = table.loc[("sks-evidence", 15)]
    values = [
        r.evaluated.table.loc[r.evaluated.table["true_area"] > 0, "dice"]
        for r in results
        if (r.job.method, r.job.masks) == ("sks-evidence", 15) and r.evaluated is not None
    ]
    assert row["dice_lesion"] == pytest.approx(np.concatenate(values).mean())
    assert row["dice_lesion_low"] < row["dice_lesion"] < row["dice_lesion_high"]
    assert (row["images"], row["groups"], row["runs"], row["planned"]) == (120, 60, 3, 3)
    assert row["false_positive_rate"] == 0


def test_differences_are_paired_and_adjusted_over_methods(
    make_experiment: Make, make_results: MakeResults
) -> None:
    pool = PooledRuns(make_experiment(), make_results(make_experiment(), dice))
    table = compute_differences(pool, quiet)
    rows = table[(table["metric"] == "dice_lesion") & (table["masks"] == 15)].set_index("method")
    assert list(rows.index) == ["unet-stage1", "sks-evidence"]
    assert rows.loc["sks-evidence", "difference"] == pytest.approx(0.08, abs=0.01)
    assert rows.loc["unet-stage1", "difference"] == pytest.approx(0.03, abs=0.01)
    assert (rows["low"] > 0).all()
    assert rows["p_holm"].tolist() == pytest.approx(holm(rows["p_value"]))
    assert rows["images"].tolist() == [90, 90]
    assert set(table["kind"]) == {"reference"}


def test_hypotheses_are_met_or_not(make_experiment: Make, make_results: MakeResults) -> None:
    def stated(margin: float, **more: Any) -> dict[str, Any]:
        return {"method": "sks-evidence", "against": "unet", "margin": margin} | more

    experiment = make_experiment(
        hypotheses=[
            stated(0.05),
            stated(0.15),
            stated(-0.01, against="sks-evidence", method="unet"),
            stated(0.0, against_masks=60),
            stated(0.0, metric="false_positive_rate"),
            stated(-0.01, metric="false_positive_rate"),
        ]
    )
    table = compute_differences(PooledRuns(experiment, make_results(experiment, dice)), quiet)
    rows = table[table["kind"] == "hypothesis"]
    # 0.08 reaches 0.05 and not 0.15; 15 masks fall short of 60 by 0.02; no difference at all is
    # no gain, but no loss of 0.01 either.
    assert rows["met"].tolist() == [True, False, False, False, False, True]
    assert rows["difference"].tolist()[3] == pytest.approx(-0.02, abs=0.01)
    assert rows["p_holm"].tolist() == pytest.approx(holm(rows["p_value"]))


@pytest.mark.parametrize(
    ("margin", "low", "p_holm", "met"),
    [
        (0.02, 0.01, 0.049, True),
        (0.02, 0.01, 0.05, False),
        (0.02, 0.0, 0.01, False),
        (0.04, 0.01, 0.01, False),
        (-0.02, -0.01, 0.5, True),
        (-0.02, -0.03, 0.01, False),
    ],
)
def test_a_gain_must_hold_among_all_hypotheses_but_no_loss_need_not_differ_from_0(
    margin: float, low: float, p_holm: float, met: bool
) -> None:
    row = {"metric": "dice_lesion", "difference": 0.03, "low": low, "high": 0.09}
    assert is_met(row | {"margin": margin, "p_holm": p_holm}) is met


def test_where_lower_is_better_the_margin_is_turned(
    make_experiment: Make, make_results: MakeResults
) -> None:
    experiment = make_experiment(
        hypotheses=[
            {"method": "sks-evidence", "against": "unet", "metric": "hd95_lesion", "margin": 1.0}
        ]
    )
    results = make_results(experiment, dice)
    for result in results:
        assert result.evaluated is not None
        result.evaluated.table["hd95"] = 10.0 if result.job.method == "unet" else 7.0
    table = compute_differences(PooledRuns(experiment, results), quiet)
    [row] = table[table["kind"] == "hypothesis"].to_dict("records")
    assert row["difference"] == pytest.approx(-3)
    assert row["met"]


def test_a_method_on_fewer_folds_is_compared_on_those(
    make_experiment: Make, make_results: MakeResults
) -> None:
    experiment = make_experiment(methods=["unet", {"name": "sks-evidence", "folds": [0, 2]}])
    table = compute_differences(PooledRuns(experiment, make_results(experiment, dice)), quiet)
    row = table[table["metric"] == "dice_lesion"].iloc[0]
    assert (row["folds"], row["images"]) == (2, 60)


def test_failed_runs_are_counted_and_left_out_on_both_sides(
    make_experiment: Make, make_results: MakeResults
) -> None:
    experiment = make_experiment(masks=[15])
    results = make_results(experiment, dice)
    broken = [
        RunResult(r.job, "diverged", None, r.row | {"status": "failed"})
        if r.job.name == "unet-stage1/15-masks/fold-1"
        else r
        for r in results
    ]
    pool = PooledRuns(experiment, broken)
    row = compute_curves(pool).set_index("method").loc["unet-stage1"]
    assert (row["runs"], row["planned"]) == (2, 3)
    table = compute_differences(pool, quiet).query("metric == 'dice_lesion'").set_index("method")
    assert table.loc["unet-stage1", "images"] == 60
    assert table.loc["sks-evidence", "images"] == 90


@pytest.mark.parametrize(
    ("protocol", "images"), [({"folds": 3}, 60), ({"folds": None, "seeds": [0, 1, 2]}, 30)]
)
def test_cases_without_a_value_in_one_method_count_in_neither(
    make_experiment: Make, make_results: MakeResults, protocol: dict[str, Any], images: int
) -> None:
    """As of a run whose evaluation is of an earlier version."""
    experiment = make_experiment(masks=[15], **protocol)
    results = make_results(experiment, dice)
    lacking = next(r for r in results if r.job.method == "unet")
    assert lacking.evaluated is not None
    lacking.evaluated.table["dice_fp10"] = np.nan
    table = compute_differences(PooledRuns(experiment, results), quiet)
    rows = table[table["metric"] == "dice_lesion_fp10"].set_index("method")
    assert rows["images"].tolist() == [images] * 2
    assert rows.loc["sks-evidence", "difference"] == pytest.approx(0.08, abs=0.015)


def test_a_hypothesis_without_runs_is_not_met_and_counts_in_the_adjustment(
    make_experiment: Make, make_results: MakeResults
) -> None:
    stated = [
        {"method": method, "against": "unet", "margin": 0.0}
        for method in ("sks-evidence", "unet-stage1")
    ]
    experiment = make_experiment(masks=[15], hypotheses=stated)

    def failing(method: str, masks: Any) -> float | None:
        return None if method == "unet-stage1" else dice(method, masks)

    table = compute_differences(PooledRuns(experiment, make_results(experiment, failing)), quiet)
    tested, untested = table[table["kind"] == "hypothesis"].to_dict("records")
    assert tested["met"]
    assert tested["p_holm"] == pytest.approx(2 * tested["p_value"])
    assert not untested["met"]
    assert (untested["images"], untested["folds"], untested["draws"]) == (0, 0, 0)
    assert np.isnan([untested["difference"], untested["p_holm"]]).all()
    nothing = make_results(experiment, lambda *_: None)
    assert len(compute_differences(PooledRuns(experiment, nothing), quiet)) == 2


def test_nothing_finished_gives_empty_tables(
    make_experiment: Make, make_results: MakeResults
) -> None:
    pool = PooledRuns(make_experiment(), make_results(make_experiment(), lambda *_: None))
    assert len(compute_curves(pool)) == 0
    assert len(compute_differences(pool, quiet)) == 0


def test_resampled_means_of_two_methods_differ_as_in_the_paired_bootstrap() -> None:
    generator = np.random.default_rng(0)
    groups = generator.integers(0, 20, 100)
    values = generator.normal(0, 1, (100, 2))
    values[:10] = np.nan
    for weighting in ("image", "group"):
        means = resampled_means(values, groups, weighting=weighting, resamples=400, seed=3)
        paired = paired_bootstrap(
            values[:, 0], values[:, 1], groups, weighting=weighting, resamples=400, seed=3
        )
        gap = np.quantile(means[:, 0] - means[:, 1], [0.025, 0.975])
        assert gap == pytest.approx([paired.low, paired.high])
    values[0, 0] = 1.0
    with pytest.raises(ValueError, match="not paired"):
        resampled_means(values, groups)
    assert resampled_means(values[20:], np.zeros(80)).shape == (0, 2)

"""What a retraining moves, against effects that were put in."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dxseg.evaluation.summary import ENDPOINTS
from dxseg.experiments.aggregate import PooledRuns, compute_curves
from dxseg.experiments.differences import compute_differences
from dxseg.experiments.experiment import Experiment
from dxseg.experiments.results import RunResult
from dxseg.experiments.retraining import compute_retraining

Make = Callable[..., Experiment]
MakeResults = Callable[..., list[RunResult]]


def pooled(make_experiment: Make, make_results: MakeResults, draws: int) -> PooledRuns:
    """A draw is better than the one before by 0.1; only the main budget."""
    experiment = make_experiment(
        masks=[15],
        draws=draws,
        methods=["unet", "sks", {"name": "once", "base_method": "manet", "draws": 1}],
    )
    results = make_results(experiment, lambda method, _: 0.3 + 0.05 * (method == "sks"), 0.0)
    return PooledRuns(experiment, results)


def test_the_spread_of_draws_within_folds_by_hand(
    make_experiment: Make, make_results: MakeResults
) -> None:
    table = compute_retraining(pooled(make_experiment, make_results, 3))
    assert set(table["method"]) == {"unet", "sks"}, "one draw says nothing"
    own = table[table["against"] == ""].set_index(["method", "metric"])
    for endpoint in ENDPOINTS:
        row = own.loc[("sks", endpoint)]
        # Draws of 0, 0.1 and 0.2 above the first, in each of three folds.
        assert row["sd"] == pytest.approx(0.1)
        assert row["largest"] == pytest.approx(0.2)
        assert (row["folds"], row["trainings"]) == (3, 9)
    paired = table[table["against"] == "unet"]
    assert paired["method"].unique().tolist() == ["sks"]
    assert paired["sd"].tolist() == pytest.approx([0, 0, 0], abs=1e-9)


def test_without_draws_there_is_nothing_to_tell(
    make_experiment: Make, make_results: MakeResults
) -> None:
    assert len(compute_retraining(pooled(make_experiment, make_results, 1))) == 0


def test_intervals_contain_the_draws(make_experiment: Make, make_results: MakeResults) -> None:
    wide, narrow = (
        compute_curves(pooled(make_experiment, make_results, draws)).set_index("method")
        for draws in (2, 1)
    )
    assert wide.loc["sks", "draws"] == 2
    assert wide.loc["once", "draws"] == 1
    assert wide.loc["sks", "dice_lesion_known"] == pytest.approx(
        narrow.loc["sks", "dice_lesion_known"] + 0.05
    )
    widths = [
        one.loc["sks", "dice_lesion_high"] - one.loc["sks", "dice_lesion_low"]
        for one in (wide, narrow)
    ]
    assert widths[0] > 1.3 * widths[1]
    # The method with one draw is the same, and its difference is on the first draws.
    columns = ["dice_lesion_low", "dice_lesion", "dice_lesion_high"]
    assert wide.loc["once", columns].tolist() == narrow.loc["once", columns].tolist()
    table = compute_differences(
        pooled(make_experiment, make_results, 2), lambda _done, _all: None
    ).set_index(["method", "metric"])
    assert table.loc[("once", "dice_lesion"), ["folds", "draws"]].tolist() == [3, 1]
    assert table.loc[("once", "dice_lesion"), "difference"] == pytest.approx(0)
    assert table.loc[("sks", "dice_lesion_fp10"), ["folds", "draws"]].tolist() == [3, 2]
    assert table.loc[("sks", "dice_lesion_fp10"), "low"] == pytest.approx(0.05)

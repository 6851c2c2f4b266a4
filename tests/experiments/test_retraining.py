"""What a retraining moves, against effects that were put in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from dxseg.errors import DxsegError
from dxseg.evaluation.summary import ENDPOINTS
from dxseg.evaluation.volumes import COLUMNS as VOLUME_COLUMNS
from dxseg.experiments.aggregate import PooledRuns, compute_curves
from dxseg.experiments.differences import compute_differences
from dxseg.experiments.experiment import Experiment
from dxseg.experiments.mask_savings import compute_masks_saved
from dxseg.experiments.results import RunResult
from dxseg.experiments.retraining import compute_retraining
from dxseg.experiments.tables import make_tables
from dxseg.reports.metric_columns import MISSING

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


def test_endpoints_that_do_not_exist_are_a_dash(
    make_experiment: Make, make_results: MakeResults
) -> None:
    """Without lesion-free images for validation there is no threshold at 10% false positives."""
    runs = pooled(make_experiment, make_results, 2)
    for result in runs.results:
        assert result.evaluated is not None
        result.evaluated.table["dice_fp10"] = np.nan
    curves, retraining = compute_curves(runs), compute_retraining(runs)
    differences = compute_differences(runs, lambda _done, _all: None)
    rows = pd.DataFrame([result.row for result in runs.results])
    tables = make_tables(
        runs.experiment, rows, curves, differences, compute_masks_saved(runs), retraining
    )
    [moved] = [table for table in tables if table.title == "What a retraining moves"]
    assert {row[-1].value for row in moved.rows} == {MISSING}


def test_volumes_in_which_one_draw_finds_nothing(
    make_experiment: Make, make_results: MakeResults
) -> None:
    """Precision is then undefined in that draw only, and has a mean but no interval."""
    runs = pooled(make_experiment, make_results, 2)
    results = []
    for result in runs.results:
        table = pd.DataFrame(dict.fromkeys(VOLUME_COLUMNS, 0.5), index=range(4))
        table["volume_id"] = table["group"] = [f"{result.job.fold.number}-{n}" for n in range(4)]
        table["lesion_free"] = table["false_positive"] = False
        table.loc[0, "lesion_precision"] = np.nan if result.job.fold.draw == 0 else 0.5
        assert result.evaluated is not None
        results.append(replace(result, evaluated=replace(result.evaluated, volumes=table)))
    curves = compute_curves(PooledRuns(runs.experiment, results)).set_index("method")
    assert curves.loc["sks", "volume_lesion_precision"] == pytest.approx(0.5)
    assert curves.loc["sks", ["volume_dice_low", "volume_dice_high"]].tolist() == [0.5, 0.5]
    for name in ("lesion_precision", "volume_lesion_precision"):
        hypothesis = {"method": "sks-evidence", "against": "unet", "metric": name}
        with pytest.raises(DxsegError, match="expected one of"):
            make_experiment(hypotheses=[hypothesis])


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

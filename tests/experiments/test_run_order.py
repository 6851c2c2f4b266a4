"""In which order the runs of an experiment are started."""

from __future__ import annotations

from dxseg.experiments.experiment import Experiment
from dxseg.experiments.plan import plan, select_runs


def test_the_main_budget_is_done_on_all_folds_before_another_begins() -> None:
    experiment = Experiment.model_validate(
        {
            "name": "s",
            "dataset": "d",
            "masks": [35, 15],
            "folds": 2,
            "methods": ["unet", {"name": "manet", "masks": [35]}],
            "reference": "unet",
        }
    )
    assert [job.name for job in select_runs(plan(experiment))] == [
        "unet/35-masks/fold-0",
        "manet/35-masks/fold-0",
        "unet/35-masks/fold-1",
        "manet/35-masks/fold-1",
        "unet/15-masks/fold-0",
        "unet/15-masks/fold-1",
    ]

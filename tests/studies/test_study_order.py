"""In which order the runs of a study are started."""

from __future__ import annotations

from dxseg.studies.plan import plan, runs
from dxseg.studies.study import Study


def test_the_main_budget_is_done_on_all_folds_before_another_begins() -> None:
    study = Study.model_validate(
        {
            "name": "s",
            "dataset": "d",
            "masks": [35, 15],
            "folds": 2,
            "arms": ["unet", {"name": "manet", "masks": [35]}],
            "reference": "unet",
        }
    )
    assert [job.name for job in runs(plan(study))] == [
        "unet/35-masks/fold-0",
        "manet/35-masks/fold-0",
        "unet/35-masks/fold-1",
        "manet/35-masks/fold-1",
        "unet/15-masks/fold-0",
        "unet/15-masks/fold-1",
    ]

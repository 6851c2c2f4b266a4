"""Self-trained runs of a study go on from the same arm's run, where the study has it."""

from __future__ import annotations

from typing import Any

import pytest

from dxseg.studies.plan import plan
from dxseg.studies.study import Study


def study(arms: list[Any], **more: Any) -> Study:
    return Study.model_validate(
        {"name": "s", "dataset": "d", "masks": [5], "folds": 2, "arms": arms, "reference": arms[0]}
        | more
    )


def test_it_goes_on_from_the_plain_run() -> None:
    jobs = plan(study(["sks-evidence-selftrained", "sks-evidence"]))
    inputs = {job.name: job.inputs for job in jobs}
    plain = inputs["sks-evidence/5-masks/fold-1"]
    assert list(plain) == ["stage1_run"]
    taken = inputs["sks-evidence-selftrained/5-masks/fold-1"]
    assert taken == {"stage2_run": "sks-evidence/5-masks/fold-1"}
    order = list(inputs)
    assert order.index(taken["stage2_run"]) < order.index("sks-evidence-selftrained/5-masks/fold-1")
    assert len([job for job in jobs if job.is_stage1]) == 2


@pytest.mark.parametrize(
    "others",
    [
        [],
        ["unet"],
        [{"name": "other", "arm": "sks-evidence", "set": {"stage2": {"steps": 7}}}],
        [{"name": "other", "arm": "sks-evidence", "folds": [0]}],
    ],
)
def test_without_the_plain_run_it_trains_both_stages(others: list[Any]) -> None:
    jobs = plan(study(["sks-evidence-selftrained", *others]))
    name = "sks-evidence-selftrained/5-masks/fold-1"
    assert list(next(job for job in jobs if job.name == name).inputs) == ["stage1_run"]


def test_what_stage1_does_not_see_does_not_divide_it() -> None:
    changes = [
        {"selftraining": {"steps": 9}},
        {"data": {"known_label_share": 0.0}},
        {"model": {"shared_stages": 1}},
    ]
    arms = [
        {"name": f"a{i}", "arm": "sks-evidence-selftrained", "set": change}
        for i, change in enumerate(changes)
    ]
    jobs = plan(study([arms[0], *arms[1:]], reference="a0"))
    assert len([job for job in jobs if job.is_stage1]) == 2  # one a fold

"""Self-trained runs of an experiment start from the run of the same method, if there is one."""

from __future__ import annotations

from typing import Any

import pytest

from dxseg.experiments.experiment import Experiment
from dxseg.experiments.plan import plan


def experiment(methods: list[Any], **more: Any) -> Experiment:
    return Experiment.model_validate(
        {
            "name": "s",
            "dataset": "d",
            "masks": [5],
            "folds": 2,
            "methods": methods,
            "reference": methods[0],
        }
        | more
    )


def test_it_goes_on_from_the_plain_run() -> None:
    jobs = plan(experiment(["sks-evidence-selftrained", "sks-evidence"]))
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
        [{"name": "other", "base_method": "sks-evidence", "set": {"stage2": {"steps": 7}}}],
        [{"name": "other", "base_method": "sks-evidence", "folds": [0]}],
    ],
)
def test_without_the_plain_run_it_trains_both_stages(others: list[Any]) -> None:
    jobs = plan(experiment(["sks-evidence-selftrained", *others]))
    name = "sks-evidence-selftrained/5-masks/fold-1"
    assert list(next(job for job in jobs if job.name == name).inputs) == ["stage1_run"]


def test_what_stage1_does_not_see_does_not_divide_it() -> None:
    changes = [
        {"self_training": {"steps": 9}},
        {"data": {"label_prompt_prob": 0.0}},
        {"model": {"shared_encoder_levels": 1}},
    ]
    methods = [
        {"name": f"a{i}", "base_method": "sks-evidence-selftrained", "set": change}
        for i, change in enumerate(changes)
    ]
    jobs = plan(experiment([methods[0], *methods[1:]], reference="a0"))
    assert len([job for job in jobs if job.is_stage1]) == 2  # one a fold

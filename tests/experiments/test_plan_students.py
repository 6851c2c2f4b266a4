"""Students of an experiment: a method's runs teach those of another."""

from __future__ import annotations

from typing import Any

import pytest

from dxseg.errors import UsageError
from dxseg.experiments.experiment import Experiment
from dxseg.experiments.plan import plan


def experiment(methods: list[Any], **more: Any) -> Experiment:
    return Experiment.model_validate(
        {
            "name": "s",
            "dataset": "d",
            "masks": [5, 9],
            "folds": 2,
            "methods": methods,
            "reference": "unet",
        }
        | more
    )


def student(of: str, **more: Any) -> dict[str, Any]:
    return {"name": "student", "student_of": of, **more}


def test_two_branches_teach_alone() -> None:
    jobs = plan(
        experiment([student("sks-evidence-selftrained"), "sks-evidence-selftrained", "unet"])
    )
    names = [job.name for job in jobs]
    taught = next(job for job in jobs if job.name == "student/9-masks/fold-1")
    assert taught.inputs == {"teacher": "sks-evidence-selftrained/9-masks/fold-1"}
    assert names.index(taught.inputs["teacher"]) < names.index(taught.name)
    assert len(set(names)) == len(names) == 2 * (1 + 2 * 3)
    assert taught.config.method == "sks-evidence-selftrained-student"
    assert (taught.config.seed, taught.config.split.masks) == (1, 9)
    assert taught.config.model.architecture == "unet"
    assert taught.config.stage2.steps == 450
    assert taught.config.self_training is None


def test_one_branch_teaches_with_the_stage_1_that_it_started_from() -> None:
    methods = ["unet-stage1", "unet-stage1-selftrained", student("unet-stage1-selftrained"), "unet"]
    inputs = {job.name: job.inputs for job in plan(experiment(methods))}
    taught = inputs["student/5-masks/fold-0"]
    assert taught == {
        "teacher": "unet-stage1-selftrained/5-masks/fold-0",
        "stage1_run": inputs["unet-stage1/5-masks/fold-0"]["stage1_run"],
    }


def test_its_own_changes_and_those_of_the_experiment() -> None:
    changed = {"stage2": {"steps": 7}}
    methods = [student("sks-evidence", set=changed), "sks-evidence", "unet"]
    configs = {
        job.method: job.config
        for job in plan(experiment(methods, set={"data": {"image_size": 64}}))
    }
    assert configs["student"].stage2.steps == 7
    assert configs["sks-evidence"].stage2.steps == 150
    assert configs["student"].data.image_size == 64


@pytest.mark.parametrize(
    ("methods", "said"),
    [
        ([student("unett")], "student_of 'unett' is none of the methods"),
        ([student("student")], "student_of 'student' is none of the methods"),
        ([student("unet", base_method="unet")], "either base_method or student_of"),
        (
            [student("sks"), {"name": "sks", "folds": [0]}],
            r"folds \[1\] are none of \[0\]",
        ),
        ([student("sks"), {"name": "sks", "masks": [9]}], r"masks \[5\] are none of \[9\]"),
    ],
)
def test_a_student_without_a_teacher(methods: list[Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        experiment([*methods, "unet"])


def test_what_is_the_teachers() -> None:
    methods = [student("sks", set={"stage1": {"steps": 9}}), "sks", "unet"]
    with pytest.raises(UsageError, match="method 'student': stage1: a student has these"):
        plan(experiment(methods))

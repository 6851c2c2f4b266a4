"""Students of a study: an arm's runs teach those of another."""

from __future__ import annotations

from typing import Any

import pytest

from dxseg.errors import UsageError
from dxseg.studies.plan import plan
from dxseg.studies.study import Study


def study(arms: list[Any], **more: Any) -> Study:
    return Study.model_validate(
        {
            "name": "s",
            "dataset": "d",
            "masks": [5, 9],
            "folds": 2,
            "arms": arms,
            "reference": "unet",
        }
        | more
    )


def student(of: str, **more: Any) -> dict[str, Any]:
    return {"name": "student", "student_of": of, **more}


def test_two_branches_teach_alone() -> None:
    jobs = plan(study([student("sks-evidence-selftrained"), "sks-evidence-selftrained", "unet"]))
    names = [job.name for job in jobs]
    taught = next(job for job in jobs if job.name == "student/9-masks/fold-1")
    assert taught.inputs == {"teacher": "sks-evidence-selftrained/9-masks/fold-1"}
    assert names.index(taught.inputs["teacher"]) < names.index(taught.name)
    assert len(set(names)) == len(names) == 2 * (1 + 2 * 3)
    assert taught.config.arm == "sks-evidence-selftrained-student"
    assert (taught.config.seed, taught.config.split.masks) == (1, 9)
    assert taught.config.model.architecture == "unet"
    assert taught.config.stage2.steps == 450
    assert taught.config.selftraining is None


def test_one_branch_teaches_with_the_stage_1_that_it_started_from() -> None:
    arms = ["unet-stage1", "unet-stage1-selftrained", student("unet-stage1-selftrained"), "unet"]
    inputs = {job.name: job.inputs for job in plan(study(arms))}
    taught = inputs["student/5-masks/fold-0"]
    assert taught == {
        "teacher": "unet-stage1-selftrained/5-masks/fold-0",
        "stage1_run": inputs["unet-stage1/5-masks/fold-0"]["stage1_run"],
    }


def test_its_own_changes_and_those_of_the_study() -> None:
    changed = {"stage2": {"steps": 7}}
    arms = [student("sks-evidence", set=changed), "sks-evidence", "unet"]
    configs = {job.arm: job.config for job in plan(study(arms, set={"data": {"image_size": 64}}))}
    assert configs["student"].stage2.steps == 7
    assert configs["sks-evidence"].stage2.steps == 150
    assert configs["student"].data.image_size == 64


@pytest.mark.parametrize(
    ("arms", "said"),
    [
        ([student("unett")], "student_of 'unett' is none of the arms"),
        ([student("student")], "student_of 'student' is none of the arms"),
        ([student("unet", arm="unet")], "either arm or student_of"),
        (
            [student("sks"), {"name": "sks", "folds": [0]}],
            r"folds \[1\] are none of \[0\]",
        ),
        ([student("sks"), {"name": "sks", "masks": [9]}], r"masks \[5\] are none of \[9\]"),
    ],
)
def test_a_student_without_a_teacher(arms: list[Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        study([*arms, "unet"])


def test_what_is_the_teachers() -> None:
    arms = [student("sks", set={"stage1": {"steps": 9}}), "sks", "unet"]
    with pytest.raises(UsageError, match="arm 'student': stage1: a student has these"):
        plan(study(arms))

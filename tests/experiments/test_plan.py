"""Which runs an experiment has, in which order, and what each builds on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from dxseg.errors import UsageError
from dxseg.experiments.experiment import Experiment
from dxseg.experiments.plan import list_folds, plan, select_runs

Make = Callable[..., Experiment]


def test_every_method_meets_every_budget_and_fold(make_experiment: Make) -> None:
    experiment = make_experiment()
    cells = {(job.method, job.masks, job.fold.number) for job in select_runs(plan(experiment))}
    methods = ("unet", "unet-stage1", "sks-evidence")
    assert cells == {(a, m, f) for a in methods for m in (15, 60) for f in (0, 1, 2)}
    assert {job.config.seed for job in plan(experiment) if job.fold.number == 2} == {2}
    assert {job.config.split.masks for job in select_runs(plan(experiment)) if job.masks == 60} == {
        60
    }


VARIANT = {
    "name": "no long skip",
    "base_method": "sks-evidence",
    "set": {"model": {"skips": {"long": False}}, "stage2": {"steps": 400}},
}


def test_stage_1_is_trained_once_a_fold_whatever_the_budget_and_the_skips(
    make_experiment: Make,
) -> None:
    methods = ["unet", "sks-evidence", "unet-stage1", VARIANT]
    jobs = plan(make_experiment(methods=methods))
    first = [job for job in jobs if job.is_stage1]
    assert [job.fold.number for job in first] == [0, 1, 2]
    for job in select_runs(jobs):
        shared = [one.name for one in first if one.fold == job.fold]
        assert list(job.inputs.values()) == ([] if job.method == "unet" else shared)
    started = [job.name for job in jobs]
    for job in jobs:
        assert all(started.index(need) < started.index(job.name) for need in job.inputs.values())


@pytest.mark.parametrize(
    "changes", [{"stage1": {"steps": 99}}, {"data": {"image_size": 64}}, {"augment": {"shear": 1}}]
)
def test_what_stage_1_sees_gives_a_stage_1_of_its_own(
    make_experiment: Make, changes: dict[str, Any]
) -> None:
    variant = {"name": "other", "base_method": "sks-evidence", "set": changes}
    jobs = plan(make_experiment(methods=["unet", "sks-evidence", variant]))
    needed = {
        job.method: set(job.inputs.values()) for job in select_runs(jobs) if job.fold.number == 0
    }
    assert needed["sks-evidence"].isdisjoint(needed["other"])


def test_a_method_may_have_fewer_budgets_and_folds(make_experiment: Make) -> None:
    ablation = {"name": "sks", "masks": [15], "folds": [0, 2]}
    jobs = select_runs(plan(make_experiment(methods=["unet", ablation])))
    own = [(job.masks, job.fold.number) for job in jobs if job.method == "sks"]
    assert own == [(15, 0), (15, 2)]


def test_seeds_share_one_split(make_experiment: Make) -> None:
    jobs = plan(make_experiment(folds=None, seeds=[3, 5], masks=["all"]))
    assert {job.fold.splits for job in jobs} == {"split.csv"}
    assert {job.config.seed for job in jobs} == {3, 5}
    assert {job.config.split.masks for job in jobs} == {None}


def test_overrides_of_a_method_take_precedence(make_experiment: Make) -> None:
    method = {"name": "longer", "base_method": "unet", "set": {"stage2": {"steps": 400}}}
    experiment = make_experiment(
        methods=["unet", method], set={"stage2": {"steps": 100, "warmup_steps": 7}}
    )
    steps = {job.method: job.config.stage2 for job in select_runs(plan(experiment))}
    assert (steps["unet"].steps, steps["longer"].steps) == (100, 400)
    assert steps["longer"].warmup_steps == 7


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


def self_trained(methods: list[Any], **more: Any) -> Experiment:
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
    jobs = plan(self_trained(["sks-evidence-selftrained", "sks-evidence"]))
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
    jobs = plan(self_trained(["sks-evidence-selftrained", *others]))
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
    jobs = plan(self_trained([methods[0], *methods[1:]], reference="a0"))
    assert len([job for job in jobs if job.is_stage1]) == 2  # one a fold


def test_the_sliding_window_does_not_divide_stage1() -> None:
    methods = [
        {
            "name": f"windows-{on}",
            "base_method": "sks-evidence-selftrained",
            "set": {"data": {"spacing": [1.0, 1.0], "sliding_window": on}},
        }
        for on in (True, False)
    ]
    jobs = plan(self_trained(methods, reference="windows-True"))
    assert len([job for job in jobs if job.is_stage1]) == 2  # one a fold


def with_students(methods: list[Any], **more: Any) -> Experiment:
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
        with_students([student("sks-evidence-selftrained"), "sks-evidence-selftrained", "unet"])
    )
    names = [job.name for job in jobs]
    taught = next(job for job in jobs if job.name == "student/9-masks/fold-1")
    assert taught.inputs == {"teacher": "sks-evidence-selftrained/9-masks/fold-1"}
    assert names.index(taught.inputs["teacher"]) < names.index(taught.name)
    assert len(set(names)) == len(names) == 2 * (1 + 2 * 3)
    assert taught.config.method == "sks-evidence-selftrained-student"
    assert (taught.config.seed, taught.config.split.masks) == (1, 9)
    assert taught.config.model.student.architecture == "unet"
    assert taught.config.student is not None
    assert taught.config.student.steps == 450


def test_one_branch_teaches_with_the_stage_1_in_its_model() -> None:
    methods = ["unet-stage1", "unet-stage1-selftrained", student("unet-stage1-selftrained"), "unet"]
    inputs = {job.name: job.inputs for job in plan(with_students(methods))}
    taught = inputs["student/5-masks/fold-0"]
    assert taught == {"teacher": "unet-stage1-selftrained/5-masks/fold-0"}


def test_one_branch_without_its_classifier_teaches_with_the_stage_1_it_started_from() -> None:
    bare = {
        "name": "bare",
        "base_method": "unet-stage1-selftrained",
        "set": {"model": {"classifier": False}},
    }
    methods = ["unet-stage1", bare, student("bare"), "unet"]
    inputs = {job.name: job.inputs for job in plan(with_students(methods))}
    assert inputs["student/5-masks/fold-0"] == {
        "teacher": "bare/5-masks/fold-0",
        "stage1_run": inputs["unet-stage1/5-masks/fold-0"]["stage1_run"],
    }


def test_the_classifier_beside_c1_is_the_stage_1_that_others_start_from() -> None:
    methods = ["unet", "unet-classifier", "unet-stage1", "sks"]
    inputs = {job.name: job.inputs for job in plan(with_students(methods))}
    shared = {str(inputs[f"{name}/5-masks/fold-0"]) for name in methods[1:]}
    assert len(shared) == 1
    assert inputs["unet/5-masks/fold-0"] == {}


ONCE = {"name": "unet", "draws": 1}
THRICE = {"name": "thrice", "base_method": "manet", "draws": 3}
TAUGHT_TWICE = {"name": "s", "student_of": "unet", "draws": 2}


class TestDraws:
    def test_a_draw_is_another_seed_on_the_same_fold(self) -> None:
        experiment = with_students(["unet", "unet-stage1"], draws=2)
        folds = list_folds(experiment)
        assert [(fold.name, fold.seed, fold.splits) for fold in folds] == [
            ("fold-0", 0, "fold-0.csv"),
            ("fold-1", 1, "fold-1.csv"),
            ("fold-0-draw-1", 2, "fold-0.csv"),
            ("fold-1-draw-1", 3, "fold-1.csv"),
        ]
        before = [job.name for job in plan(with_students(["unet", "unet-stage1"]))]
        jobs = plan(experiment)
        draws = [job.fold.draw for job in select_runs(jobs) if job.masks == experiment.masks[0]]
        assert draws == sorted(draws), "every first draw comes first"
        assert set(before) < {job.name for job in jobs}
        by_name = {job.name: job for job in jobs}
        again = by_name["unet-stage1/5-masks/fold-0-draw-1"]
        assert again.config.seed == 2
        stage1 = by_name[again.inputs["stage1_run"]]
        assert stage1.fold == again.fold, "stage 1 is trained again too"

    def test_methods_may_be_restricted_to_the_first_draws(self) -> None:
        once = {"name": "once", "base_method": "manet", "draws": 1}
        jobs = plan(with_students(["unet", once], draws=3))
        draws = {(job.method, job.fold.draw) for job in jobs}
        assert draws == {("unet", 0), ("unet", 1), ("unet", 2), ("once", 0)}

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"draws": 2, "folds": None, "seeds": [0, 1]}, "each seed is a draw"),
            ({"draws": 0}, "draws"),
            ({"draws": 2, "methods": ["unet", THRICE]}, "'thrice': draws 3 exceeds 2"),
            ({"draws": 3, "methods": [ONCE, TAUGHT_TWICE]}, "'s': draws 2 exceeds 1"),
        ],
    )
    def test_impossible_draws_are_refused(
        self, make_experiment: Make, changes: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(UsageError, match=message):
            make_experiment(**changes)


def test_its_own_changes_and_those_of_the_with_students() -> None:
    changed = {"student": {"steps": 7}}
    methods = [student("sks-evidence", set=changed), "sks-evidence", "unet"]
    configs = {
        job.method: job.config
        for job in plan(with_students(methods, set={"data": {"image_size": 64}}))
    }
    assert configs["student"].student is not None
    assert configs["student"].student.steps == 7
    assert configs["sks-evidence"].student is None
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
        with_students([*methods, "unet"])


def test_what_is_the_teachers() -> None:
    methods = [student("sks", set={"stage1": {"steps": 9}}), "sks", "unet"]
    with pytest.raises(UsageError, match="method 'student': stage1: a student has these"):
        plan(with_students(methods))

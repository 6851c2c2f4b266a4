"""The experiment file: what it may say, which runs follow, and that it may grow but not change."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from dxseg.data.table.dataset import Dataset
from dxseg.errors import DxsegError, UsageError
from dxseg.experiments.experiment import Experiment, parse_experiment, read_experiment_text
from dxseg.experiments.plan import plan, select_runs
from dxseg.experiments.preregistration import register

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


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": ["unet"]}, "method: unknown key"),
        ({"folds": None}, "either folds .* or seeds"),
        ({"seeds": [0]}, "either folds .* or seeds"),
        ({"masks": [15, 15]}, "masks: duplicate in"),
        ({"masks": [True]}, "masks"),
        ({"masks": ["some"]}, "masks"),
        ({"masks": []}, "masks"),
        ({"methods": ["unet", "unet"]}, "methods: duplicate in"),
        ({"methods": ["unet", {"name": "../x", "base_method": "unet"}]}, "a name starts with"),
        ({"methods": ["unet", {"name": "Stage1", "base_method": "unet"}]}, "choose another name"),
        ({"methods": ["unet", {"name": "sks", "folds": [3]}]}, r"'sks': folds \[3\] are none"),
        ({"methods": ["unet", {"name": "sks", "masks": [7]}]}, r"'sks': masks \[7\] are none"),
        ({"methods": ["unet", {"name": "sks", "seeds": [1]}]}, r"'sks': seeds \[1\] are none"),
        ({"reference": "c1"}, "reference: 'c1' is none of the methods"),
        ({"primary": "c1"}, "primary: 'c1' is none of the methods"),
        ({"hypotheses": [{"method": "unet", "against": "c1"}]}, "hypotheses: 'c1'"),
        ({"hypotheses": [{"method": "unet", "against": "unet", "metric": "d"}]}, "expected one of"),
        ({"hypotheses": [{"method": "unet", "against": "unet", "masks": 7}]}, "7 is none of masks"),
    ],
)
def test_a_wrong_experiment_file_is_reported(
    make_experiment: Make, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message) as told:
        make_experiment(**changes)
    assert str(told.value).startswith("experiment.yaml: ")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"set": {"seed": 3}}, "set contains seed"),
        ({"set": {"split": {"masks": 3}}}, "set contains split.masks"),
        ({"set": {"stage2": {"stepps": 3}}}, "stage2.stepps"),
        (
            {"methods": ["unet", {"name": "new", "base_method": "nothing"}]},
            "'new': .*'nothing' is unknown",
        ),
    ],
)
def test_a_wrong_configuration_is_told_before_anything_runs(
    make_experiment: Make, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        plan(make_experiment(**changes))


@pytest.mark.parametrize("text", ["", "3", "a: [", "x: 2020-99-99", "- " * 5000 + "a"])
def test_text_that_is_no_experiment_is_reported(text: str) -> None:
    with pytest.raises(UsageError, match=r"experiment\.yaml"):
        parse_experiment(text, "experiment.yaml")


def test_a_file_that_is_none_is_reported(tmp_path: Path) -> None:
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "absent.yaml", tmp_path, tmp_path / "bytes.yaml"):
        with pytest.raises(UsageError, match=r"expected an experiment file"):
            read_experiment_text(path)


def file_of(experiment: dict[str, Any]) -> tuple[Experiment, str]:
    text = yaml.safe_dump(experiment)
    return parse_experiment(text, "experiment.yaml"), text


BASE: dict[str, Any] = {
    "name": "trial",
    "dataset": "data",
    "masks": [4],
    "folds": 2,
    "methods": ["unet", {"name": "sks", "folds": [0]}],
    "reference": "unet",
}


@pytest.mark.parametrize(
    ("changes", "added"),
    [
        ({"masks": [4, 6]}, ["unet/6-masks/fold-0", "sks/6-masks/fold-0", "unet/6-masks/fold-1"]),
        (
            {"methods": [*BASE["methods"], "unet-stage1"]},
            ["unet-stage1/4-masks/fold-0", "unet-stage1/4-masks/fold-1"],
        ),
        ({"methods": ["unet", "sks"]}, ["sks/4-masks/fold-1"]),
        ({"methods": BASE["methods"][::-1]}, []),
    ],
)
def test_additions_are_accepted_and_recorded(
    changes: dict[str, Any], added: list[str], phantoms: Path, tmp_path: Path
) -> None:
    dataset = Dataset.load(phantoms)
    one = register(*file_of(BASE), dataset, tmp_path / "out")
    two = register(*file_of(BASE | changes), dataset, tmp_path / "out")
    assert two.added == set(added)
    assert two.sha256 == one.sha256
    assert (tmp_path / "out" / "experiment.yaml").read_text() == file_of(BASE | changes)[1]
    if added:
        with pytest.raises(DxsegError, match="no longer there"):
            register(*file_of(BASE), dataset, tmp_path / "out")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"reference": "sks"}, "reference"),
        ({"primary": "sks"}, "primary"),
        ({"hypotheses": [{"method": "sks", "against": "unet"}]}, "hypotheses"),
        ({"set": {"stage2": {"steps": 5}}}, "another configuration"),
        ({"masks": [6, 4]}, "the first"),
        ({"masks": [6]}, "no longer there"),
        ({"methods": ["unet"]}, "no longer there"),
        ({"folds": 3}, "folds"),
        ({"seed": 7}, "seed"),
        ({"split_seed": 7}, "split_seed"),
        ({"resamples": 100}, "resamples"),
    ],
)
def test_every_other_change_is_refused(
    changes: dict[str, Any], told: str, phantoms: Path, tmp_path: Path
) -> None:
    dataset = Dataset.load(phantoms)
    register(*file_of(BASE), dataset, tmp_path / "out")
    before = (tmp_path / "out" / "registration.json").read_bytes()
    with pytest.raises(DxsegError, match=f"has changed since it was registered: .*{told}"):
        register(*file_of(BASE | changes), dataset, tmp_path / "out")
    assert (tmp_path / "out" / "registration.json").read_bytes() == before


def test_another_folder_or_dataset_is_refused(phantoms: Path, tmp_path: Path) -> None:
    dataset = Dataset.load(phantoms)
    register(*file_of(BASE), dataset, tmp_path / "out")
    changed = Dataset(dataset.root, dataset.spec, dataset.cases.iloc[1:])
    with pytest.raises(DxsegError, match="has changed since the experiment was registered"):
        register(*file_of(BASE), changed, tmp_path / "out")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    with pytest.raises(DxsegError, match="not empty and not an experiment"):
        register(*file_of(BASE), dataset, tmp_path / "full")
    for damage in ("", "{}", '{"versions": [], "dataset_digest": ""}'):
        (tmp_path / "out" / "registration.json").write_text(damage)
        with pytest.raises(DxsegError, match=r"cannot be read as a registration"):
            register(*file_of(BASE), dataset, tmp_path / "out")


def test_a_plain_method_may_be_added_that_a_self_trained_one_then_goes_on_from(
    phantoms: Path, tmp_path: Path
) -> None:
    dataset = Dataset.load(phantoms)
    before = BASE | {"methods": ["unet", "sks-evidence-selftrained"]}
    after = BASE | {"methods": [*before["methods"], "sks-evidence"]}
    register(*file_of(before), dataset, tmp_path / "out")
    added = register(*file_of(after), dataset, tmp_path / "out").added
    assert added == {f"sks-evidence/4-masks/fold-{fold}" for fold in (0, 1)}

"""An experiment trained and resumed: two methods and a failing one on two folds of phantoms.

Every run is trained by a fresh process, so that a resumed experiment gives the figures of an
uninterrupted one to the bit.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from filelock import FileLock

import dxseg
from dxseg import experiment
from dxseg.errors import DxsegError, UsageError
from dxseg.experiments.results import COST, METRICS
from dxseg.experiments.runner import ExperimentOutcome

pytestmark = pytest.mark.slow  # whole experiments; what they consist of has tests of its own

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"

STAGE = {"steps": 4, "steps_per_epoch": 2, "warmup_steps": 1}
EXPERIMENT: dict[str, Any] = {
    "name": "tiny",
    "masks": [4],
    "folds": 2,
    "methods": [
        "unet",
        "sks-evidence",
        {"name": "student", "student_of": "sks-evidence", "set": {"student": {"steps": 4}}},
        {
            "name": "too fast",
            "base_method": "unet",
            "folds": [0],
            "set": {"stage2": {"learning_rate": 1e30}},
        },
    ],
    "reference": "unet",
    "primary": "sks-evidence",
    "hypotheses": [{"method": "sks-evidence", "against": "unet", "margin": 0.5}],
    "resamples": 200,
    "set": {
        "data": {"image_size": 32, "batch_size": 4},
        "stage1": STAGE,
        "stage2": STAGE,
    },
}
TIMES = [name for name in COST if name.endswith(("seconds", "ms"))]


@pytest.fixture(scope="module")
def experiment_file(
    phantoms: Path, tiny_overrides: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    path = tmp_path_factory.mktemp("experiment") / "experiment.yaml"
    changes = EXPERIMENT["set"] | {"model": tiny_overrides["model"]}
    content = EXPERIMENT | {"dataset": os.path.relpath(phantoms, path.parent), "set": changes}
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture(scope="module")
def finished(experiment_file: Path) -> ExperimentOutcome:
    return experiment(experiment_file, output=experiment_file.parent / "out", jobs=2)


def test_every_run_is_a_row_also_the_one_that_failed(finished: ExperimentOutcome) -> None:
    rows = finished.results.set_index(["method", "fold"])
    assert rows["status"].to_dict() == {
        ("unet", 0): "done",
        ("sks-evidence", 0): "done",
        ("student", 0): "done",
        ("too fast", 0): "failed",
        ("unet", 1): "done",
        ("sks-evidence", 1): "done",
        ("student", 1): "done",
    }
    assert "diverged" in rows.loc[("too fast", 0), "error"]
    assert "diverged" in finished.failures["too_fast/4-masks/fold-0"]
    done = finished.results[finished.results["status"] == "done"]
    assert done["images"].sum() == 72, "each of 24 images is tested once by each of three methods"
    assert done["dice_lesion"].between(0, 1).all()
    assert done["seed"].tolist() == done["fold"].tolist()
    assert done["multiply_adds"].gt(1e6).all()
    assert done[["stage2_seconds", "inference_ms"]].gt(0).all(axis=None)
    assert done.groupby("method")["parameters"].nunique().eq(1).all()
    assert done.set_index("method")["stage1_seconds"].notna().groupby("method").all().to_dict() == {
        "unet": False,
        "sks-evidence": True,
        "student": True,
    }
    students = done["method"] == "student"
    assert done["distillation_seconds"].notna().eq(students).all()
    assert (done.loc[students, "base_method"] == "student of sks-evidence").all()
    assert "too fast" in finished.markdown


def test_nothing_of_the_machine_is_in_the_results(finished: ExperimentOutcome) -> None:
    out = finished.report.parent
    files = [*out.glob("*.csv"), out / "table.md", out / "table.tex", out / "report.html"]
    assert len(files) == 8
    for path in files:
        assert str(out.parent.parent) not in path.read_text(), path.name


def test_stage_1_is_shared_and_the_splits_are_those_of_the_folds(
    finished: ExperimentOutcome,
) -> None:
    out = finished.report.parent
    assert len(list((out / "runs").rglob("stage1.json"))) == 2
    splits = [pd.read_csv(out / "splits" / f"fold-{fold}.csv") for fold in (0, 1)]
    tested = [set(table.loc[table["split"] == "test", "case_id"]) for table in splits]
    assert len(tested[0] | tested[1]) == 24
    assert tested[0].isdisjoint(tested[1])
    assert (out / "logs" / "unet_4-masks_fold-0.log").read_text()


def test_the_same_call_again_trains_nothing(
    experiment_file: Path, finished: ExperimentOutcome
) -> None:
    runs = finished.report.parent / "runs"
    before = {path: path.stat().st_mtime_ns for path in runs.rglob("model.safetensors")}
    copy = experiment_file.parent / "again"
    shutil.copytree(finished.report.parent, copy, dirs_exist_ok=True)
    shutil.rmtree(copy / "runs" / "too_fast")
    again = experiment(experiment_file, output=copy)
    assert before == {path: path.stat().st_mtime_ns for path in runs.rglob("model.safetensors")}
    pd.testing.assert_frame_equal(
        again.results.drop(columns=["error"]), finished.results.drop(columns=["error"])
    )


def test_a_damaged_run_has_failed_and_the_others_count(
    experiment_file: Path, finished: ExperimentOutcome
) -> None:
    copy = experiment_file.parent / "damaged"
    shutil.copytree(finished.report.parent, copy)
    (copy / "runs" / "unet" / "4-masks" / "fold-1" / "per_image.csv").write_text("")
    found = experiment(experiment_file, output=copy, jobs=0)
    assert "not a table" in found.failures["unet/4-masks/fold-1"]
    assert found.results["status"].value_counts()["done"] == 5
    assert "not a table" in found.markdown


def test_evaluated_runs_may_lose_everything_but_their_figures(
    experiment_file: Path, finished: ExperimentOutcome
) -> None:
    """So an experiment can be carried elsewhere and go on there."""
    keep_experiment = runpy.run_path(str(BENCHMARKS / "keep_experiment.py"))
    kept, copy = experiment_file.parent / "kept", experiment_file.parent / "carried"
    kept.mkdir()
    keep_experiment["main"]([str(finished.report.parent), str(kept)])
    keep_experiment["main"]([str(copy), str(kept), "--restore"])
    assert {path.name for path in kept.iterdir()} == {
        *("results.csv", "curves.csv", "differences.csv", "masks_saved.csv", "retraining.csv"),
        "runs.tar.xz",
    }
    for path in copy.rglob("*.*"):
        assert not path.is_file() or str(experiment_file.parent) not in path.read_text(), path
    shutil.rmtree(copy / "runs" / "unet" / "4-masks" / "fold-1")
    before = experiment(experiment_file, output=copy, jobs=0)
    assert before.results["status"].value_counts().to_dict() == {"done": 5, "missing": 2}
    assert "unet" in before.markdown
    assert not list(copy.rglob("model.safetensors")), "no jobs, no training"
    again = experiment(experiment_file, output=copy)
    assert [path.parts[-4] for path in copy.rglob("model.safetensors")] == ["4-masks"]
    assert not list(copy.rglob("coarse.safetensors")), "nothing that is left to do needs it"
    changing = ["error", "stage2_seconds"]
    pd.testing.assert_frame_equal(
        again.results.drop(columns=changing), finished.results.drop(columns=changing)
    )


def test_the_tables_of_a_volume_run_are_kept(tmp_path: Path) -> None:
    """`dxseg experiment` compares by volume what is kept, so per_volume.csv is part of it."""
    keep_experiment = runpy.run_path(str(BENCHMARKS / "keep_experiment.py"))
    run = tmp_path / "out" / "runs" / "unet" / "4-masks" / "fold-0"
    run.mkdir(parents=True)
    for name in ("evaluation.json", "per_image.csv", "per_volume.csv", "predictions.csv"):
        (run / name).write_text(name)
    for name in keep_experiment["TABLES"]:
        (tmp_path / "out" / name).write_text(name)
    (tmp_path / "kept").mkdir()
    keep_experiment["keep"](tmp_path / "out", tmp_path / "kept")
    keep_experiment["restore"](tmp_path / "again", tmp_path / "kept")
    restored = {path.name for path in (tmp_path / "again").rglob("*.*")}
    assert restored == {"evaluation.json", "per_image.csv", "per_volume.csv"}


def test_decisions_are_those_of_evaluation(
    experiment_file: Path, finished: ExperimentOutcome
) -> None:
    """The rules are applied again, outside of evaluation: with all of them the metrics agree."""
    decisions = runpy.run_path(str(BENCHMARKS / "decisions.py"))
    decisions["main"]([str(finished.report.parent), str(experiment_file.parent)])
    table = pd.read_csv(experiment_file.parent / "decisions.csv").set_index(["method", "rule"])
    curves = pd.read_csv(finished.report.parent / "curves.csv").set_index("method")
    for method in ("unet", "sks-evidence"):
        for metric in ("dice_lesion", "dice_all", "false_positive_rate"):
            ruled = table.loc[(method, "rule_out_rule_in"), metric]
            assert ruled == pytest.approx(curves.loc[method, metric])
        assert table.loc[(method, "label_prompt"), "false_positive_rate"] == 0
        for rate in (0.05, 0.1, 0.2, 0.3):
            assert table.loc[(method, f"fpr_{rate}"), "false_positive_rate"] <= rate
        fractions = (0.8, 0.9, 0.95, 0.98)
        rows = table.loc[method].loc[[f"sensitivity_{fraction}" for fraction in fractions]]
        lost = rows["lesions_without_mask"].tolist()
        assert all(0 <= one <= 1 - f for one, f in zip(lost, fractions, strict=True))
        assert lost[0] > 0, "not every image gets a mask"
        assert lost == sorted(lost, reverse=True)
    assert table.loc["sks-evidence", "difference"].isna().all(), "not compared with itself"
    ours, theirs = (
        table.loc[(method, "fpr_0.3"), "dice_lesion"] for method in ("sks-evidence", "unet")
    )
    assert table.loc[("unet", "fpr_0.3"), "difference"] == pytest.approx(ours - theirs)
    text = runpy.run_path(str(BENCHMARKS / "make_results.py"))["decisions_of"](
        experiment_file.parent / "decisions.csv"
    )
    assert text.count("| sks-evidence |") == 1 + 1 + 5
    found = table.xs("shared_classifier", level="rule")["dice_lesion"]
    own = table.loc[("sks-evidence", "rule_out_rule_in"), "dice_lesion"]
    # Of faint images the rule takes a larger mask than the rule-in threshold gives.
    assert found["sks-evidence"] == pytest.approx(own, abs=0.01), "the classifier is its own"
    assert found["unet"] != table.loc[("unet", "plain"), "dice_lesion"], "which kept none"


def test_decisions_are_kept_where_models_are_not(
    experiment_file: Path, finished: ExperimentOutcome, tmp_path: Path
) -> None:
    decisions = runpy.run_path(str(BENCHMARKS / "decisions.py"))["main"]
    keep_experiment = runpy.run_path(str(BENCHMARKS / "keep_experiment.py"))["main"]
    kept, carried = tmp_path / "kept", tmp_path / "carried"
    decisions([str(finished.report.parent), str(experiment_file.parent)])
    found = (experiment_file.parent / "decisions.csv").read_bytes()
    kept.mkdir()
    keep_experiment([str(finished.report.parent), str(kept)])
    keep_experiment([str(carried), str(kept), "--restore"])
    assert not list(carried.rglob("model.safetensors"))
    decisions([str(carried), str(experiment_file.parent)])
    assert (experiment_file.parent / "decisions.csv").read_bytes() == found
    shutil.rmtree(carried / "runs")
    with pytest.raises(SystemExit, match="has its model"):
        decisions([str(carried), str(experiment_file.parent)])


INTERRUPTED = 130


def begin(path: Path, out: Path) -> None:
    """What the process that is stopped runs."""
    # A shell lets what it starts in the background ignore Ctrl-C, and so would this process.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        experiment(path, output=out)
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None


def stop(experiment: Path, out: Path, when: Path, number: int) -> int | None:
    """Run an experiment in a process that gets a signal once a file exists; return its code."""
    process = multiprocessing.get_context("spawn").Process(target=begin, args=(experiment, out))
    process.start()
    while process.is_alive() and not when.exists():
        time.sleep(0.01)
    assert process.pid is not None
    os.kill(process.pid, number)
    process.join()
    return process.exitcode


@pytest.mark.slow  # six more processes; that a run continues is tested in test_resume.py by default
def test_stopped_twice_and_continued(
    experiment_file: Path, finished: ExperimentOutcome, tmp_path: Path
) -> None:
    plain = yaml.safe_load(experiment_file.read_text()) | {"methods": ["unet"], "hypotheses": []}
    plain |= {"primary": None, "dataset": str(experiment_file.parent / plain["dataset"])}
    path, out = tmp_path / "experiment.yaml", tmp_path / "out"
    path.write_text(yaml.safe_dump(plain))
    first, second = (out / "runs" / "unet" / "4-masks" / f"fold-{fold}" for fold in (0, 1))

    assert stop(path, out, first / "stage2", signal.SIGINT) == INTERRUPTED
    assert not second.exists()
    assert stop(path, out, second / "stage2", signal.SIGKILL) == -signal.SIGKILL
    assert pd.read_csv(out / "results.csv")["status"].tolist() == ["done", "missing"]

    resumed = experiment(path, output=out).results
    reference = finished.results[finished.results["method"] == "unet"].reset_index(drop=True)
    same = [*METRICS, "weights_sha256", "splits_sha256", "multiply_adds", "images"]
    pd.testing.assert_frame_equal(resumed[same], reference[same])


def test_validation_leaves_the_test_cases_alone(experiment_file: Path, tmp_path: Path) -> None:
    content = yaml.safe_load(experiment_file.read_text()) | {"methods": ["unet"], "hypotheses": []}
    content |= {"primary": None, "dataset": str(experiment_file.parent / content["dataset"])}
    content |= {"methods": [{"name": "unet", "folds": [1]}]}
    path = tmp_path / "experiment.yaml"
    path.write_text(yaml.safe_dump(content))
    outcome = dxseg.experiment(path, output=tmp_path / "out", validation_only=True)
    assert outcome.report.name == "report_validation.html"
    assert outcome.results["split"].tolist() == ["validation"]
    assert "test cases were left alone" in outcome.markdown
    out = tmp_path / "out"
    assert list(out.rglob("evaluation_validation.json"))
    assert not list(out.rglob("evaluation.json"))
    assert not (out / "results.csv").exists()


def test_a_budget_that_cannot_be_met_registers_nothing(
    experiment_file: Path, cli: Callable[..., Any], tmp_path: Path
) -> None:
    content = yaml.safe_load(experiment_file.read_text())
    content |= {"masks": [4, 500], "dataset": str(experiment_file.parent / content["dataset"])}
    path = tmp_path / "experiment.yaml"
    path.write_text(yaml.safe_dump(content))
    result = cli("experiment", path, "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert "fold-0: 500 masks for train" in result.output
    assert not (tmp_path / "out").exists()


def test_a_second_process_is_kept_out(experiment_file: Path, tmp_path: Path) -> None:
    with FileLock(tmp_path / ".out.lock"), pytest.raises(DxsegError, match="another process"):
        experiment(experiment_file, output=tmp_path / "out")
    with pytest.raises(UsageError, match="-1 jobs"):
        experiment(experiment_file, output=tmp_path / "out", jobs=-1)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["experiment", "a.yaml", "b.yaml", "--out", "x"], "b.yaml"),
        (["experiment", "a.yaml"], "--out"),
        (["experiment", "a.yaml", "--out", "x", "--reference", "unet"], "--reference"),
        (["experiment", "a.yaml", "--out", "x"], "a.yaml: not found; expected an experiment file"),
        (["compare", "a.yaml"], "with `dxseg experiment a.yaml --out FOLDER`"),
        (["compare", "run", "--jobs", "2"], "--jobs"),
        (["compare", "run", "--validation-only"], "--validation-only"),
    ],
)
def test_wrong_use_is_reported(words: list[str], message: str, cli: Callable[..., Any]) -> None:
    result = cli(*words)
    assert result.exit_code == 2
    assert message in result.output

"""Rows of results.csv."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from dxseg.errors import DxsegError
from dxseg.experiments import results as module
from dxseg.experiments.experiment import Experiment
from dxseg.experiments.plan import plan
from dxseg.experiments.results import ExperimentContext, collect_results, strip_paths


def test_paths_of_the_machine_are_left_out() -> None:
    error = "/srv/x/out/runs/unet/stage2: diverged; see '/var/log/a b' and D:\\data\\x\\y.log"
    assert strip_paths(error).startswith("stage2: diverged; see 'a b' and y.log")
    for harmless in ("0.5 / 3 and a/b", "it needs stage1/ab12/fold-0, which failed"):
        assert strip_paths(harmless) == harmless


def test_a_damaged_run_has_failed_and_each_finished_one_is_read_once(
    make_experiment: Callable[..., Experiment], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = make_experiment(masks=[15], methods=["unet"])
    jobs = [job for job in plan(experiment) if not job.is_stage1]
    for job in jobs:
        (tmp_path / job.name).mkdir(parents=True)
        (tmp_path / job.name / "evaluation.json").touch()
    read: list[str] = []

    def load(folder: Path, _split: str) -> object:
        read.append(folder.name)
        if folder.name == "fold-1":
            raise DxsegError(f"{folder / 'per_image.csv'}: not a table")
        return object()

    monkeypatch.setattr(module, "load_run", load)
    for name in ("_metrics", "_record"):
        monkeypatch.setattr(module, name, lambda *_: {})
    dataset = SimpleNamespace(spec=SimpleNamespace(name="data"))
    context = ExperimentContext(tmp_path, dataset, "test", "", set())  # type: ignore[arg-type]
    for _ in range(2):
        found = collect_results(experiment, jobs, context, {}, {})
        assert [one.row["status"] for one in found] == ["done", "failed", "done"]
    assert found[1].error == "per_image.csv: not a table"
    assert read == ["fold-0", "fold-1", "fold-2", "fold-1"]
    os.utime(tmp_path / jobs[0].name / "evaluation.json", (1, 1))
    collect_results(experiment, jobs, context, {}, {})
    assert read[4:] == ["fold-0", "fold-1"], "evaluated again"

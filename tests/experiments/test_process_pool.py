"""Jobs in processes: order of dependency, isolated failures, and processes that vanish."""

from __future__ import annotations

import os
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from dxseg.config.schema import RunConfig
from dxseg.experiments import process_pool
from dxseg.experiments.process_pool import run_jobs
from dxseg.experiments.worker import JobSpec


def pretend(spec: JobSpec, reasons: Connection) -> None:
    """Replaces training: succeeds, fails or vanishes, by the name of the job."""
    spec.log.write_text("reading images\nthe last words\n")
    for folder in spec.inputs.values():
        assert (folder / "stage1" / "stage1.json").is_file(), "started before its dependency"
    if "vanish" in spec.name:
        os._exit(3)
    if "fail" in spec.name:
        reasons.send("diverged")
        return
    (spec.output / "stage1").mkdir(parents=True)
    for name in ("coarse.safetensors", "stage1.json"):
        (spec.output / "stage1" / name).write_text("{}")


def make_spec(folder: Path, name: str, *needs: str) -> JobSpec:
    inputs = {need: folder / need for need in needs}
    log = folder / f"{name}.log"
    return JobSpec(name, folder, folder, folder / name, RunConfig(), None, inputs, log, 1)


@pytest.mark.parametrize("jobs", [1, 3])
def test_failures_are_reported_and_other_jobs_continue(
    jobs: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_pool, "run_job", pretend)
    needs = {
        "first": [],
        "vanishes": [],
        "second": ["first"],
        "fails": [],
        "follower": ["fails"],
        "third": ["first", "second"],
    }
    specs = [make_spec(tmp_path, name, *before) for name, before in needs.items()]
    seen: list[int] = []
    failures = run_jobs(
        specs,
        needs,
        jobs=jobs,
        ended=lambda so_far: seen.append(len(so_far)),
    )
    assert set(failures) == {"vanishes", "fails", "follower"}
    assert failures["fails"] == "diverged"
    assert "exit code 3" in failures["vanishes"]
    assert "the last words" in failures["vanishes"]
    assert failures["follower"] == "it needs fails, which failed: diverged"
    assert [one.name for one in specs if one.done] == ["first", "second", "third"]
    assert len(seen) == 5
    again = run_jobs(
        [one for one in specs if one.done],
        needs,
        jobs=jobs,
        ended=lambda _: pytest.fail("finished jobs are skipped"),
    )
    assert again == {}

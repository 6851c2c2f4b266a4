"""Which stage 1 a run or a student starts from, and that it stays the one it was started with."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from dxseg import distill
from dxseg.config.schema import RunConfig
from dxseg.errors import DxsegError, UsageError
from dxseg.models.coarse_branch import CoarseBranch
from dxseg.training import distillation, run
from dxseg.training.run import train_run, train_stage1_run

Configure = Callable[..., RunConfig]


class StoppedError(Exception):
    """Before the first stage."""


def test_a_branch_that_masks_have_changed_is_no_stage_1(
    disks: Path,
    train: Callable[..., Path],
    configure: Configure,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """From another stage 2, and in a student of its own, as where all is trained in one run."""
    model = {"coarse_learning_rate_scale": 1.0}
    sks = train("sks", model=model, stage2={"learning_rate": 0.01})
    untouched = load_file(sks / "stage1" / "coarse.safetensors")
    changed = load_file(sks / "model" / "model.safetensors")
    assert any(not torch.equal(changed[f"coarse.{name}"], untouched[name]) for name in untouched)
    started: list[CoarseBranch] = []

    def stop(*arguments: Any) -> None:
        started.append(arguments[3])
        raise StoppedError

    for module in (run, distillation):
        monkeypatch.setattr(module, "train_stages", stop)
    config = configure("sks-student", model=model, stage2={"learning_rate": 0.01})
    with pytest.raises(StoppedError):
        train_run(disks, tmp_path / "again", config, stage2_run=sks)
    with pytest.raises(StoppedError):
        distill(sks, output=tmp_path / "student")
    for stage1 in started:
        weights = stage1.state_dict()
        assert all(torch.equal(weights[name], untouched[name]) for name in untouched)
    assert len(started) == 2


def make_sources(disks: Path, folder: Path, config: RunConfig) -> None:
    """A stage 1 in `source`, and one with other weights in `other`."""
    train_stage1_run(disks, folder / "source", config)
    shutil.copytree(folder / "source", folder / "other")
    weights = folder / "other" / "stage1" / "coarse.safetensors"
    weights.write_bytes(weights.read_bytes() + b"trained again")


def test_a_run_goes_on_from_the_weights_that_it_was_started_with(
    disks: Path, configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configure("unet-stage1")
    make_sources(disks, tmp_path, config)

    def stop(*_: Any) -> None:
        raise StoppedError

    monkeypatch.setattr(run, "train_stages", stop)
    for _ in range(2):  # started, and continued
        with pytest.raises(StoppedError):
            train_run(disks, tmp_path / "run", config, stage1_run=tmp_path / "source")
    for source in (tmp_path / "other", None):
        with pytest.raises(DxsegError, match="started from other weights than"):
            train_run(disks, tmp_path / "run", config, stage1_run=source)


def test_a_finished_run_is_of_the_weights_that_it_was_started_from(
    disks: Path, configure: Configure, tmp_path: Path
) -> None:
    config = configure("unet-stage1")
    make_sources(disks, tmp_path, config)
    first = train_run(disks, tmp_path / "run", config, stage1_run=tmp_path / "source")
    assert train_run(disks, tmp_path / "run", config, stage1_run=tmp_path / "source") == first
    for source in (tmp_path / "other", None):
        with pytest.raises(DxsegError, match="started from other weights than"):
            train_run(disks, tmp_path / "run", config, stage1_run=source)


@pytest.mark.parametrize(
    ("method", "stage2"),
    [
        ("unet", None),
        ("unet-student", None),
        ("unet-stage1-selftrained", Path("stage2")),  # its model has the classifier beside it
        ("sks-student", Path("stage2")),
    ],
)
def test_a_stage_1_that_no_stage_starts_from_is_refused(
    method: str, stage2: Path | None, disks: Path, configure: Configure, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="no stage of this run would start from that stage 1"):
        train_run(
            disks,
            tmp_path / "run",
            configure(method),
            stage1_run=Path("/nowhere"),
            stage2_run=stage2,
        )
    assert not (tmp_path / "run").exists()

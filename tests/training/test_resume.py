"""Killed at any moment, the same command ends with the weights of an uninterrupted run.

The process ends itself at the moment in question, so that nothing depends on timing.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

import plain_backbone  # noqa: F401 - registers it in the processes too
from dxseg.config.schema import RunConfig
from dxseg.errors import DxsegError
from dxseg.models import weights
from dxseg.training import checkpoints, run_folder
from dxseg.training.checkpoints import CheckpointFiles
from dxseg.training.modules.classification import ClassificationModule
from dxseg.training.modules.segmentation import SegmentationModule
from dxseg.training.run import train_run

KILLED, INTERRUPTED = -signal.SIGKILL, 130

AFTER_TRAINING = "after training, before the model is written"
MOMENTS = [
    "stage 1, in the middle of an epoch",
    "stage 1, after a checkpoint",
    "stage 2, in the middle of an epoch",
    "stage 2, while a checkpoint is being written",
    AFTER_TRAINING,
]


def die(signal_number: int) -> None:
    os.kill(os.getpid(), signal_number)


def fatal(original: Callable[..., Any], call: int, signal_number: int) -> Callable[..., Any]:
    """``original``, whose ``call``-th call is followed by a signal to the process."""
    calls = [0]

    def wrapped(*arguments: Any, **named: Any) -> Any:
        calls[0] += 1
        result = original(*arguments, **named)
        if calls[0] == call:
            die(signal_number)
        return result

    return wrapped


def half_a_file(content: Any, stream: IO[bytes]) -> None:
    stream.write(b"half of a checkpoint")
    stream.flush()
    die(signal.SIGKILL)


def method_the_trap(moment: str, number: int) -> None:
    """Three epochs of two steps a stage: calls are counted from 1."""
    if moment == MOMENTS[0]:
        ClassificationModule.training_step = fatal(ClassificationModule.training_step, 3, number)
    elif moment == MOMENTS[1]:
        save = fatal(CheckpointFiles.save_checkpoint, 2, number)
        CheckpointFiles.save_checkpoint = save  # type: ignore[method-assign]
    elif moment == MOMENTS[2]:
        SegmentationModule.training_step = fatal(SegmentationModule.training_step, 5, number)
    elif moment == MOMENTS[3]:
        save = CheckpointFiles.save_checkpoint
        calls = [0]

        def stage2_second(self: Any, checkpoint: Any, path: Any, **options: Any) -> None:
            calls[0] += "stage2" in str(path)
            if calls[0] == 2:
                checkpoints.torch.save = half_a_file  # type: ignore[assignment]
            save(self, checkpoint, path, **options)

        CheckpointFiles.save_checkpoint = stage2_second  # type: ignore[method-assign]
    elif moment == AFTER_TRAINING:
        run_folder.save_model_folder = lambda *_: die(number)  # type: ignore[assignment]


def train(dataset: Path, output: Path, config: RunConfig, moment: str, number: int) -> None:
    """What the process runs."""
    weights.load_pretrained = lambda _: False  # as in this process
    # A shell lets what it starts in the background ignore Ctrl-C, and so would this process.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if moment:
        method_the_trap(moment, number)
    try:
        train_run(dataset, output, config)
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None


@pytest.fixture(scope="module")
def spawn(disks: Path) -> Callable[..., int | None]:
    """Train in a process of its own; gives its exit code."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["dxseg.training.run", "monai.losses.dice", "timm"])

    def run(
        output: Path, config: RunConfig, moment: str = "", number: int = signal.SIGKILL
    ) -> int | None:
        process = context.Process(target=train, args=(disks, output, config, moment, number))
        process.start()
        process.join()
        return process.exitcode

    return run


@pytest.fixture(scope="module")
def config(configure: Callable[..., RunConfig]) -> RunConfig:
    stage = {"steps": 6, "steps_per_epoch": 2, "warmup_steps": 1}
    return configure("sks-evidence", stage1=stage, stage2=stage)


@pytest.fixture(scope="module")
def uninterrupted(
    spawn: Callable[..., int | None], config: RunConfig, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    run = tmp_path_factory.mktemp("uninterrupted") / "run"
    assert spawn(run, config) == 0
    return run


def assert_same(run: Path, reference: Path) -> None:
    for name in ("stage1/coarse.safetensors", "model/model.safetensors"):
        mine, theirs = load_file(run / name), load_file(reference / name)
        different = [key for key in theirs if not torch.equal(mine[key], theirs[key])]
        assert different == [], name
    for stage in ("stage1", "stage2"):
        tables = [pd.read_csv(folder / stage / "metrics.csv") for folder in (run, reference)]
        pd.testing.assert_frame_equal(*tables)
    assert not list(run.rglob("*.ckpt*"))


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_and_continued(
    moment: str,
    spawn: Callable[..., int | None],
    config: RunConfig,
    uninterrupted: Path,
    tmp_path: Path,
) -> None:
    run = tmp_path / "run"
    assert spawn(run, config, moment) == KILLED
    assert not (run / "run.json").exists()
    assert (run / "stage1" / "stage1.json").exists() == (not moment.startswith("stage 1"))
    assert spawn(run, config) == 0
    assert_same(run, uninterrupted)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_by_keyboard_or_scheduler_and_continued(
    number: int,
    spawn: Callable[..., int | None],
    config: RunConfig,
    uninterrupted: Path,
    tmp_path: Path,
) -> None:
    run = tmp_path / "run"
    assert spawn(run, config, MOMENTS[2], number) == INTERRUPTED
    assert (run / "stage2" / "last.ckpt").is_file()
    assert spawn(run, config) == 0
    assert_same(run, uninterrupted)


OPTIONS: dict[str, tuple[dict[str, Any], list[float]]] = {
    "averaged": ({"ema_decay": 0.8}, [0.1, 0.2, 0.3]),
    "stopped early": ({"early_stopping_patience": 1}, [0.5, 0.4, 0.9]),
    "best of averaged": ({"checkpoint": "best", "ema_decay": 0.5}, [0.2, 0.9, 0.4]),
    "accumulated": ({"accumulate_grad_batches": 2}, [0.1, 0.2, 0.3]),
}
"""Changes of a stage, and the validation Dice of its epochs."""


@pytest.mark.parametrize("option", OPTIONS)
def test_the_options_of_a_stage_survive_too(
    option: str,
    configure: Callable[..., RunConfig],
    disks: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In this process: an exception where the others were killed."""
    changes, figures = OPTIONS[option]
    stage = {"steps": 6, "steps_per_epoch": 2, "warmup_steps": 1} | changes
    config = configure("unet-scratch", stage2=stage)

    def validate(self: SegmentationModule, batch: Any, batch_idx: int) -> None:
        self.log("val_dice", figures[self.current_epoch], batch_size=1)

    monkeypatch.setattr(SegmentationModule, "validation_step", validate)
    whole = tmp_path / "whole"
    train_run(disks, whole, config)

    class PulledPlugError(BaseException):
        pass

    def pull(*_: Any) -> None:
        raise PulledPlugError

    step, calls = SegmentationModule.training_step, [0]

    def failing(self: Any, batch: Any, batch_idx: int) -> torch.Tensor:
        calls[0] += 1
        if calls[0] == 2 * config.stage2.accumulate_grad_batches + 1:
            pull()
        return step(self, batch, batch_idx)

    for moment, owner, name, broken in (
        (MOMENTS[2], SegmentationModule, "training_step", failing),
        (AFTER_TRAINING, run_folder, "save_model_folder", pull),
    ):
        run = tmp_path / moment
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, broken)
            with pytest.raises(PulledPlugError):
                train_run(disks, run, config)
        train_run(disks, run, config)
        mine, theirs = (load_file(r / "model" / "model.safetensors") for r in (run, whole))
        assert [key for key in theirs if not torch.equal(mine[key], theirs[key])] == [], moment
        tables = [pd.read_csv(r / "stage2" / "metrics.csv") for r in (run, whole)]
        pd.testing.assert_frame_equal(*tables)


@pytest.fixture(scope="module")
def halfway(
    spawn: Callable[..., int | None], config: RunConfig, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    run = tmp_path_factory.mktemp("halfway") / "run"
    assert spawn(run, config, MOMENTS[1]) == KILLED
    return run


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "other"])
def test_a_damaged_checkpoint_is_said(
    damage: str,
    halfway: Path,
    config: RunConfig,
    disks: Path,
    tmp_path: Path,
) -> None:
    run = tmp_path / "run"
    shutil.copytree(halfway, run)
    last = run / "stage1" / "last.ckpt"
    content = last.read_bytes()
    if damage == "other":
        torch.save({"weights": torch.zeros(3)}, last)
    else:
        last.write_bytes({"cut": content[:-1000], "empty": b"", "text": b"hello " * 99}[damage])
    with pytest.raises(DxsegError, match=r"last\.ckpt.*cannot be read.*remove it"):
        train_run(disks, run, config)


def test_a_checkpoint_cannot_run_code(
    halfway: Path, config: RunConfig, disks: Path, tmp_path: Path
) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "exploded",)

    run = tmp_path / "run"
    shutil.copytree(halfway, run)
    torch.save(Bomb(), run / "stage1" / "last.ckpt")
    with pytest.raises(DxsegError, match="cannot be read"):
        train_run(disks, run, config)
    assert not (tmp_path / "exploded").exists()


def test_removing_the_damaged_checkpoint_starts_the_stage_again(
    halfway: Path,
    spawn: Callable[..., int | None],
    config: RunConfig,
    uninterrupted: Path,
    tmp_path: Path,
) -> None:
    run = tmp_path / "run"
    shutil.copytree(halfway, run)
    (run / "stage1" / "last.ckpt").unlink()
    assert spawn(run, config) == 0
    assert_same(run, uninterrupted)

"""Training stopped from outside: by a scheduler, for want of memory, by a second training."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from filelock import FileLock
from torch.nn import functional as F
from torch.utils.data import get_worker_info

from cli_results import call
from dxseg.commands.app import TERMINATED
from dxseg.config.presets import load_config
from dxseg.config.schema import RunConfig
from dxseg.data.batches.batches import BatchDataset
from dxseg.errors import DxsegError
from dxseg.models import weights
from dxseg.training import run_folder
from dxseg.training.checkpoints import CheckpointFiles, read_checkpoint
from dxseg.training.modules.segmentation import SegmentationModule
from dxseg.training.run import train_run

TINY = [
    "model.backbone=lcnet_050",
    "model.decoder_channels=[8, 8, 8, 8, 8]",
    "data.image_size=32",
    "data.batch_size=4",
    "stage2.steps=4",
    "stage2.steps_per_epoch=2",
    "device.accelerator=cpu",
]


@pytest.fixture(autouse=True)
def without_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "load_pretrained", lambda _: False)


def configure(**changes: Any) -> RunConfig:
    from dxseg.config.presets import merge, parse_overrides

    return load_config("cpu", "unet-scratch", merge(parse_overrides(TINY), changes))


def end_by_sigterm(command: list[object], answer: Path) -> None:
    """What a process of its own does: a test that failed here would end all tests."""
    weights.load_pretrained = lambda _: False
    step, steps = SegmentationModule.training_step, [0]

    def terminated(self: Any, batch: Any, batch_idx: int) -> Any:
        steps[0] += 1
        if steps[0] == 3:  # the first of the second epoch
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, batch, batch_idx)

    SegmentationModule.training_step = terminated  # type: ignore[method-assign]
    result = call(*command)
    restored = signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    answer.write_text(json.dumps([result.exit_code, result.output, steps[0], restored]))


def test_sigterm_ends_with_a_checkpoint_and_a_code_to_requeue(
    cli: Callable[..., Any], phantoms: Path, tmp_path: Path
) -> None:
    command = ["train", phantoms, "--method", "unet-scratch", "--out", tmp_path / "run"]
    command += [word for change in TINY for word in ("--set", change)]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["dxseg.training.run", "monai.losses.dice", "timm"])
    process = context.Process(target=end_by_sigterm, args=(command, tmp_path / "answer"))
    process.start()
    process.join()
    code, output, steps, restored = json.loads((tmp_path / "answer").read_text("utf-8"))
    assert code == TERMINATED == 128 + signal.SIGTERM
    assert "Terminated. Repeat the same command to continue" in output
    assert steps == 3, "it does not go on"
    assert restored
    assert read_checkpoint(tmp_path / "run" / "stage2" / "last.ckpt")["global_step"] == 2
    result = cli(*command)
    assert result.exit_code == 0, result.output


def killed(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def starved(*_: Any) -> None:
    np.ones(2**55, np.uint8)


@pytest.mark.parametrize(
    ("fate", "told"),
    [
        # Torch hears of it by a signal or by a poll, whichever comes first, and words it so.
        (
            killed,
            r"stage2: a data worker \(process \d+\) ended.*(Killed|unexpectedly).*want of memory",
        ),
        (starved, r"stage2: out of memory in a data worker \(.*Unable to allocate 32.0 PiB"),
    ],
)
def test_the_end_of_a_data_worker_is_told_with_its_cause(
    fate: Callable[..., None],
    told: str,
    phantoms: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = BatchDataset.__getitem__

    def batch(self: BatchDataset, draws: Any) -> Any:
        return whole(self, draws) if get_worker_info() is None else fate()

    monkeypatch.setattr(BatchDataset, "__getitem__", batch)
    config = configure(data={"workers": 1})
    with pytest.raises(DxsegError, match=told) as caught:
        train_run(phantoms, tmp_path / "run", config)
    assert "data.workers" in str(caught.value)


def test_operations_without_a_deterministic_form_are_refused_where_asked_for(
    phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = SegmentationModule.training_step

    def unpooling(self: Any, batch: Any, batch_idx: int) -> Any:
        pooled, places = F.max_pool2d(torch.rand(1, 1, 4, 4), 2, return_indices=True)
        F.max_unpool2d(pooled, places, 2)
        return step(self, batch, batch_idx)

    monkeypatch.setattr(SegmentationModule, "training_step", unpooling)
    try:
        with pytest.raises(DxsegError, match=r"device\.deterministic.*max_unpool"):
            train_run(phantoms, tmp_path / "run", configure(device={"deterministic": True}))
    finally:
        torch.use_deterministic_algorithms(False)


def test_two_trainings_cannot_work_in_one_folder(
    phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_folder, "LOCK_SECONDS", 0.0)
    with (
        FileLock(tmp_path / ".run.lock"),
        pytest.raises(DxsegError, match="another process is using this run"),
    ):
        train_run(phantoms, tmp_path / "run", configure())
    assert not (tmp_path / "run").exists()


def test_no_flipped_bit_of_a_checkpoint_goes_unnoticed(tmp_path: Path) -> None:
    """Where one changes nothing, it was of no account."""
    path = tmp_path / "last.ckpt"
    content = {
        "state_dict": {"weight": torch.arange(64.0)},
        "global_step": 7,
        "callbacks": {"MetricsTable": {"rows": []}},
    }
    CheckpointFiles().save_checkpoint(content, path)
    assert list(tmp_path.iterdir()) == [path]
    whole = path.read_bytes()
    for place in range(0, len(whole), 7):
        changed = bytearray(whole)
        changed[place] ^= 1 << place % 8
        path.write_bytes(changed)
        with suppress(DxsegError):
            found = read_checkpoint(path)
            assert torch.equal(found["state_dict"]["weight"], content["state_dict"]["weight"])
            assert found["global_step"] == 7
    # In the tensor itself, every one is.
    start = whole.index(torch.arange(64.0).numpy().tobytes())
    for place in range(start, start + 256, 5):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(DxsegError, match="cannot be read as a checkpoint"):
            read_checkpoint(path)


def test_a_full_disk_leaves_the_checkpoint_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "last.ckpt"
    CheckpointFiles().save_checkpoint({"a": torch.zeros(3)}, path)
    before = path.read_bytes()

    def full(_content: Any, stream: Any) -> None:
        stream.write(b"a part")
        try:
            raise OSError(28, "No space left on device")
        except OSError:
            raise RuntimeError("unexpected pos 704 vs 598")  # noqa: B904 - as torch does

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space left") as caught:
        CheckpointFiles().save_checkpoint({"a": torch.ones(3)}, path)
    assert caught.value.filename == str(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]

"""Several processes: validation is that of one, runs train and resume, errors reach the user."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from timm.layers.norm_act import BatchNormAct2d, SyncBatchNormAct
from torch import Tensor, nn

from counting import CountsValidation, validated
from dxseg.config.network import ModelConfig
from dxseg.config.presets import merge
from dxseg.config.schema import DeviceConfig, RunConfig
from dxseg.config.stages import StageConfig
from dxseg.errors import UsageError
from dxseg.models import weights
from dxseg.models.segmentation_model import SegmentationModel, SegmenterOutput
from dxseg.models.weights import load_pretrained
from dxseg.training.checkpoints import read_checkpoint
from dxseg.training.losses import MaskLoss
from dxseg.training.modules.segmentation import SegmentationModule
from dxseg.training.run import train_run
from dxseg.training.run_record import read_run
from dxseg.training.strategy import _TimmSyncBatchNorm, join_processes, trainer_options
from following import ROOT

TWO = {"accelerator": "cpu", "devices": 2}
STAGE = {"steps": 4, "steps_per_epoch": 2, "warmup_steps": 1}
FROZEN = {"steps": 1, "steps_per_epoch": 1, "warmup_steps": 0, "learning_rate": 1e-30}
"""One step that changes no weight, so that both runs validate the same ones."""


@pytest.fixture
def pretrained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random weights everywhere else, but new processes know nothing of that."""
    monkeypatch.setattr(weights, "load_pretrained", load_pretrained)


@pytest.mark.slow
def test_two_processes_validate_every_case_once_with_the_figures_of_one(
    disks: Path, configure: Callable[..., RunConfig], tmp_path: Path
) -> None:
    """Nine cases in batches of four: one process gets five, in two batches, the other four."""
    figures = []
    for devices in (1, 2):
        config = configure(
            "unet-scratch",
            data={"batch_size": 2},
            split={"validation_masks": None},
            stage2=FROZEN,
            device=TWO | {"devices": devices},
        )
        callback = CountsValidation(tmp_path)
        run = tmp_path / str(devices)
        record = train_run(disks, run, config, callbacks=[callback])
        assert record == read_run(run)
        figures.append({k: v for k, v in record["stage2"].items() if k.startswith("val_")})
        assert not list(run.rglob("*.ckpt"))
    assert figures[1] == pytest.approx(figures[0], rel=1e-5)
    assert set(figures[0]) == {"val_loss", "val_dice", "val_false_positive_rate"}
    [alone] = validated(tmp_path, "stage2", 1)
    parts = validated(tmp_path, "stage2", 2)
    assert sorted(map(len, parts)) == [4, 5]
    assert sorted(parts[0] + parts[1]) == sorted(alone)


class Weighted(SegmentationModel):
    """Answers with the image times a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.encoder = nn.Identity()

    def _forward_padded(self, x: Tensor, *_: Any) -> SegmenterOutput:
        return SegmenterOutput(self.weight * x)


def test_the_loss_of_a_validation_batch_counts_by_its_images(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[tuple[float, int]] = []

    def noted(logits: Tensor, target: Tensor) -> Tensor:
        loss: Tensor = MaskLoss()(logits, target)
        seen.append((float(loss), len(logits)))
        return loss

    monkeypatch.setattr("dxseg.training.modules.segmentation.MaskLoss", lambda _: noted)
    module = SegmentationModule(Weighted(), ModelConfig(), StageConfig())
    figures: dict[str, Tensor] = {}
    module.log = lambda name, value: figures.update({name: value})  # type: ignore[method-assign]
    image = torch.randn(9, 1, 32, 32, generator=torch.Generator().manual_seed(7))
    mask = (image > 1).float() * (torch.arange(9) % 3 > 0)[:, None, None, None]
    for rows in ([0, 1, 2, 3], [4, 5, 6, 7], [8], []):
        batch: Any = {"image": image[rows], "mask": mask[rows]}
        module.validation_step(batch, 0)
    module.on_validation_epoch_end()
    assert [count for _, count in seen] == [4, 4, 1]
    expected = sum(loss * count for loss, count in seen) / 9
    assert float(figures["val_loss"]) == pytest.approx(expected, rel=1e-5)
    assert 0 < float(figures["val_dice"]) < 1


def test_synchronised_layers_keep_what_follows_them() -> None:
    layers = nn.Sequential(nn.Conv2d(1, 4, 3), BatchNormAct2d(4), nn.BatchNorm2d(4))
    names = list(layers.state_dict())
    converted = _TimmSyncBatchNorm().apply(layers)
    assert [type(layer) for layer in converted.children()] == [  # type: ignore[comparison-overlap]
        nn.Conv2d,
        SyncBatchNormAct,
        nn.SyncBatchNorm,
    ]
    assert list(converted.state_dict()) == names


class TestDevices:
    def test_one_device_needs_no_strategy(self) -> None:
        device = DeviceConfig(accelerator="cpu")
        options = trainer_options(device, find_unused_parameters=False)
        assert options == {"devices": 1, "num_nodes": 1}
        assert join_processes(device).world_size == 1

    @pytest.mark.parametrize(
        ("device", "expected"),
        [
            ({"accelerator": "foo"}, "Available names are"),
            ({"accelerator": "cuda"}, "is not available"),
            ({"accelerator": "gpu", "devices": 2}, "No supported gpu backend"),
        ],
    )
    def test_devices_that_the_machine_lacks_leave_no_folder(
        self,
        device: dict[str, Any],
        expected: str,
        disks: Path,
        configure: Callable[..., RunConfig],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
        with pytest.raises(UsageError, match=rf"device\.accelerator .*{expected}.*Leave both out"):
            train_run(disks, tmp_path / "run", configure("unet-scratch", device=device))
        assert not (tmp_path / "run").exists()

    def test_several_machines_need_a_launcher(self) -> None:
        device = DeviceConfig(accelerator="cpu", num_nodes=2)
        with pytest.raises(UsageError, match=r"device\.num_nodes 2: .*torchrun or srun"):
            join_processes(device)

    def test_a_launcher_overrides_the_configuration(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in (
            *(("TORCHELASTIC_RUN_ID", "x"), ("WORLD_SIZE", "8"), ("LOCAL_WORLD_SIZE", "4")),
            *(("RANK", "0"), ("LOCAL_RANK", "0"), ("GROUP_RANK", "0")),
        ):
            monkeypatch.setenv(name, value)
        options = trainer_options(DeviceConfig(accelerator="cpu"), find_unused_parameters=True)
        assert (options["devices"], options["num_nodes"]) == (4, 2)
        assert options["strategy"]._start_method == "popen"


SCRIPT = """
import os, signal, sys
from pathlib import Path
import lightning.pytorch as pl
from dxseg.config.presets import load_config, parse_overrides
from dxseg.errors import DxsegError, TerminatedError
from dxseg.training.run import train_run

class Fate(pl.Callback):
    '''Ends the second process, or the one that started it, in the second epoch.'''
    def __init__(self, what):
        self.what = what
        self.parent = os.getppid() if what == "launcher" else os.getpid()
    def on_train_epoch_start(self, trainer, module):
        if trainer.current_epoch != 1 or trainer.global_rank != 1:
            return
        if self.what == "error":
            raise DxsegError("data.batch_size: 2; raise it")
        if self.what == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        os.kill(self.parent, signal.SIGINT if self.what == "int" else signal.SIGTERM)
        signal.pause()

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    dataset, run, what, *changes = sys.argv[1:]
    config = load_config("cpu", "unet-scratch", parse_overrides(changes))
    callbacks = [Fate(what)] if what else []
    try:
        train_run(Path(dataset), Path(run), config, callbacks=callbacks)
    except TerminatedError:
        sys.exit(143)
    except KeyboardInterrupt:
        sys.exit(130)
    except DxsegError as error:
        sys.exit(f"error: {error}")
"""
CHANGES = [
    "model.backbone=lcnet_050",
    "model.decoder_channels=[8,8,8,8,8]",
    "data.image_size=64",
    "data.batch_size=4",
    "stage2.steps=4",
    "stage2.steps_per_epoch=2",
    "device.accelerator=cpu",
    "device.devices=2",
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "code", "told"),
    [
        ("error", 1, r"error: data.batch_size: 2; raise it"),
        ("killed", 1, r"error: .*training process 1 ended: .*the same command continues the run"),
        ("term", 143, ""),
        ("int", 130, ""),
    ],
)
def test_what_ends_one_process_ends_the_run_and_it_can_be_continued(
    what: str, code: int, told: str, disks: Path, tmp_path: Path
) -> None:
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SCRIPT))
    run = tmp_path / "run"

    def call(fate: str, *changes: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(script), str(disks), str(run), fate, *CHANGES, *changes]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)

    done = call(what)
    assert done.returncode == code, done.stderr
    if told:
        [line] = [line for line in done.stderr.splitlines() if line.startswith("error")]
        assert pd.Series([line]).str.match(told).all(), line
        assert "Traceback" not in done.stderr
    assert read_checkpoint(run / "stage2" / "last.ckpt")["global_step"] == 2
    done = call("")
    assert done.returncode == 0, done.stderr
    assert not list(run.rglob("*.ckpt"))
    assert len(pd.read_csv(run / "stage2" / "metrics.csv")) == 2
    assert [path.name for path in run.rglob("model.safetensors")] == ["model.safetensors"]


@pytest.mark.slow
def test_sigterm_ends_launched_processes_before_their_launcher_has_to_kill_them(
    disks: Path, tmp_path: Path
) -> None:
    """One process waits in the gradients' collective while the other gets the signal elsewhere."""
    script, run = tmp_path / "script.py", tmp_path / "run"
    script.write_text(SCRIPT)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
    # It must be free, and the default may not be.
    launcher += ["--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0"]
    command = [*launcher, str(script), str(disks), str(run), "launcher", *CHANGES]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode != 0
    assert "SIGKILL" not in done.stderr, done.stderr
    assert "Unable to shutdown process" not in done.stderr
    assert read_checkpoint(run / "stage2" / "last.ckpt")["global_step"] == 2


@pytest.mark.slow
def test_a_batch_that_is_too_small_is_the_users_error(
    disks: Path, configure: Callable[..., RunConfig], tmp_path: Path
) -> None:
    config = configure("unet-scratch", data={"batch_size": 1}, device=TWO)
    handlers = [signal.getsignal(kind) for kind in (signal.SIGTERM, signal.SIGINT)]
    with pytest.raises(UsageError, match=r"^a batch of 1 .* 2 processes; raise data\.batch_size"):
        train_run(disks, tmp_path / "run", config)
    assert [signal.getsignal(kind) for kind in (signal.SIGTERM, signal.SIGINT)] == handlers


def close_results(alone: Path, together: Path, stages: list[str]) -> None:
    """Compare the columns and the finite figures of every epoch, roughly.

    Each process normalizes its own rows on the CPU, and Dice is of its part of a batch: a run of
    two processes is not that of one, but learns alike.
    """
    for stage in stages:
        one, other = (pd.read_csv(run / stage / "metrics.csv") for run in (alone, together))
        assert list(one.columns) == list(other.columns)
        assert one["step"].equals(other["step"])
        np.testing.assert_allclose(other["train_loss"], one["train_loss"], rtol=0.3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "model"),
    [
        ("sks", {"coarse_learning_rate_scale": 0.1}),  # its label heads get no gradient
        ("sks-evidence-selftrained", {"coarse_learning_rate_scale": 0.1}),
        ("unet-multitask", {}),
    ],
)
@pytest.mark.usefixtures("pretrained")
def test_methods_train_in_two_processes(
    method: str,
    model: dict[str, Any],
    disks: Path,
    configure: Callable[..., RunConfig],
    tmp_path: Path,
) -> None:
    stages = (
        ["stage1"] * ("unet" not in method) + ["stage2"] + ["self_training"] * ("self" in method)
    )
    changes = merge(
        {
            "model": {"backbone": "tf_efficientnet_lite0"},
            "data": {"batch_size": 8},
            "split": {"masks": 8, "validation_masks": None},
        },
        {"model": model},
        dict.fromkeys(stages, STAGE),
    )
    for devices in (1, 2):
        config = configure(method, **changes, device=TWO | {"devices": devices})
        run = train_run(disks, tmp_path / str(devices), config)
        assert run == read_run(tmp_path / str(devices))
    close_results(tmp_path / "1", tmp_path / "2", stages)


SRUN = """#!/bin/sh
# Two tasks on one machine, as srun starts them; fails if one of them does.
shift
SLURM_PROCID=0 SLURM_LOCALID=0 "$@" & first=$!
SLURM_PROCID=1 SLURM_LOCALID=1 "$@" & second=$!
wait $first && wait $second
"""
SLURM = {
    "SLURM_JOB_ID": "4321",
    "SLURM_JOB_NAME": "dxseg",
    "SLURM_NTASKS": "2",
    "SLURM_NTASKS_PER_NODE": "2",
    "SLURM_NNODES": "1",
    "SLURM_NODEID": "0",
    "SLURM_NODELIST": "localhost",
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "first", "variables"),
    [("torchrun.sh", ["1", "2", "localhost"], {}), ("slurm.sh", [], SLURM)],
)
@pytest.mark.usefixtures("pretrained")
def test_the_scripts_for_clusters(
    script: str,
    first: list[str],
    variables: dict[str, str],
    phantoms: Path,
    cli: Callable[..., Any],
    tiny: Callable[..., list[str]],
    tmp_path: Path,
) -> None:
    """The scripts of docs/how-to/cluster.md, with two processes; of SLURM only `srun` is faked."""
    words = ["train", phantoms, "--method", "sks-evidence", "--masks", "6"]
    words += tiny("device.accelerator=cpu")
    result = cli(*words, "--out", tmp_path / "one")
    assert result.exit_code == 0, result.output
    srun = tmp_path / "bin" / "srun"
    srun.parent.mkdir()
    srun.write_text(SRUN)
    srun.chmod(0o755)
    path = f"{srun.parent}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    command = ["sh", str(ROOT / "examples" / "cluster" / script), *first, *map(str, words[1:])]
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "two")],
        env=os.environ | variables | {"PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Trained sks-evidence") == 1
    close_results(tmp_path / "one", tmp_path / "two", ["stage1", "stage2"])

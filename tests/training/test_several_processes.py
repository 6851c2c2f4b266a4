"""Two processes that train together do what one does: gradients, statistics, whole runs."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from rich.console import Console
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn

from dxseg.config.presets import merge
from dxseg.config.schema import (
    DeviceConfig,
    ModelConfig,
    RunConfig,
    SelfTrainingConfig,
    StageConfig,
)
from dxseg.data.batches.distributed_samplers import rank_and_world_size
from dxseg.errors import DxsegError, UsageError
from dxseg.models import factory
from dxseg.models.factory import Task
from dxseg.models.segmentation_model import SegmentationModel, SegmenterOutput
from dxseg.models.weights import load_pretrained
from dxseg.training import sync_batch_norm
from dxseg.training.collectives import draw_apart, own, whole
from dxseg.training.distributed import barrier, rank_zero_first, run_on_rank_zero, together
from dxseg.training.losses import MaskLoss
from dxseg.training.run_record import read_run
from dxseg.training.segmentation_module import Stage2Module, drop_labels
from dxseg.training.self_training import SelfTrainingModule
from dxseg.training.sync_batch_norm import WholeBatchNorm, synchronized_norms
from following import ROOT

ROWS = 5  # uneven, so that one process has a row more


def network() -> nn.Module:
    torch.manual_seed(1)
    layers = nn.Sequential(
        nn.Conv2d(1, 4, 3), BatchNormAct2d(4), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.Flatten(2)
    )
    return layers.double().train()


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    image = 3 + torch.randn(ROWS, 1, 8, 8, generator=generator, dtype=torch.float64)
    return image, (torch.rand(ROWS, 4, 16, generator=generator) > 0.7).double()


def step(image: Tensor, target: Tensor) -> dict[str, Tensor]:
    """Loss, gradients and statistics of a step, of the rows that are this process's."""
    layers = network()
    with synchronized_norms(layers, on_cpu=True):
        logits, targets = whole(layers(own(image)), own(target))
        loss = MaskLoss()(logits, targets)
        loss.backward()
    grown = {f"gradient {name}": p.grad for name, p in layers.named_parameters()}
    return {"loss": loss.detach(), "logits": logits.detach(), **grown, **layers.state_dict()}


class Weighted(SegmentationModel):
    """Answers with the image times a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    @property
    def encoder(self) -> nn.Module:
        return nn.Identity()

    def _forward_padded(self, x: Tensor, *_: Any) -> SegmenterOutput:
        return SegmenterOutput(self.weight * x)


def self_training_step() -> dict[str, Tensor]:
    """The same of self-training: three images with a mask, four with proposals, disturbed."""
    task = Task(channels=1, mask_classes=1, labels=2, lesion_free=(0,))
    module = SelfTrainingModule(Weighted(), ModelConfig(), SelfTrainingConfig(), 0, task)
    shares: list[float] = []
    module.log = lambda _, value, **__: shares.append(float(value.detach()))  # type: ignore[method-assign]
    generator = torch.Generator().manual_seed(5)
    image = torch.randn(7, 1, 32, 32, generator=generator)
    masked = torch.arange(7) < 3
    mask = (image > 1).float() * masked[:, None, None, None]
    rows = {"image": image, "mask": mask, "masked": masked, "label": torch.full((7,), -1)}
    torch.manual_seed(6)
    loss = module.training_step({name: own(value) for name, value in rows.items()}, 0)
    loss.backward()
    weight = module.segmenter.get_parameter("weight")
    assert weight.grad is not None
    kept = torch.tensor(shares[-1])
    return {"self loss": loss.detach(), "kept": kept, "gradient of self-training": weight.grad}


def validation(rank: int = 0, size: int = 1) -> dict[str, Tensor]:
    """Figures of three batches of 4, 4 and 1 images; with two processes the second has but one."""
    module = Stage2Module(Weighted(), ModelConfig(), StageConfig(), 0)
    figures: dict[str, Tensor] = {}
    module.log = lambda name, value: figures.update({name: value})  # type: ignore[method-assign]
    image = torch.randn(9, 1, 32, 32, generator=torch.Generator().manual_seed(7))
    mask = (image > 1).float() * (torch.arange(9) % 3 > 0)[:, None, None, None]
    for rows in [range(4), range(4, 8), [8], []][rank::size]:
        module.validation_step({"image": image[list(rows)], "mask": mask[list(rows)]}, 0)
    module.on_validation_epoch_end()
    return figures


def member(rank: int, folder: Path) -> None:
    """What each of two processes does; what it finds goes into a file."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=2
    )
    found: dict[str, Any] = step(*batch()) | self_training_step() | validation(rank, 2)
    for name in [name for name in found if name.startswith("gradient")]:
        torch.distributed.all_reduce(found[name])  # DistributedDataParallel takes the mean
        found[name] /= 2
    torch.manual_seed(3)
    found["known"] = drop_labels(own(torch.arange(ROWS)), 0.5)
    draw_apart()
    found["noise"] = torch.rand(3)
    found["masked"] = whole(own(torch.arange(ROWS) > 1))[0]
    found["first"] = torch.tensor(run_on_rank_zero(lambda: rank + 10))
    found["others"] = torch.tensor(rank_zero_first(lambda: rank + 20))
    with pytest.raises(ValueError, match="of the first"):
        rank_zero_first(lambda: int("no number of the first" if rank == 0 else "1"))
    torch.save(found, folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Tensor]]:
    """What each of two processes found."""
    folder = tmp_path_factory.mktemp("two")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["dxseg.training.run", "monai.losses.dice", "timm"])
    processes = [context.Process(target=member, args=(rank, folder)) for rank in (0, 1)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(900)  # a process alone would wait for the other for ever
        process.kill()
        assert process.exitcode == 0
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


def test_a_step_of_two_processes_is_that_of_one(found: list[dict[str, Tensor]]) -> None:
    """Loss over the whole batch, its gradients, and the statistics of normalisation."""
    alone = step(*batch()) | self_training_step() | validation()
    assert alone["kept"] > 0
    assert alone["3.running_var"].std() > 0
    for one in found:
        for name, value in alone.items():
            torch.testing.assert_close(one[name], value, rtol=1e-5, atol=1e-6, msg=name)


def test_what_is_drawn_for_the_batch_is_the_same_and_what_the_network_draws_is_not(
    found: list[dict[str, Tensor]],
) -> None:
    torch.manual_seed(3)
    known = drop_labels(torch.arange(ROWS), 0.5)
    assert known is not None
    assert set(known.tolist()) != {-1}
    assert [one["known"].tolist() for one in found] == [known[::2].tolist(), known[1::2].tolist()]
    assert not torch.equal(found[0]["noise"], found[1]["noise"])
    assert all(one["masked"].tolist() == [False, False, True, True, True] for one in found)


def test_the_first_process_does_it_alone_or_before_the_others(
    found: list[dict[str, Tensor]],
) -> None:
    assert [int(one["first"]) for one in found] == [10, 10]
    assert [int(one["others"]) for one in found] == [20, 21]


def test_the_loss_of_a_validation_batch_counts_by_its_images() -> None:
    seen: list[tuple[float, int]] = []

    def noted(logits: Tensor, target: Tensor) -> Tensor:
        loss: Tensor = MaskLoss()(logits, target)
        seen.append((float(loss), len(logits)))
        return loss

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dxseg.training.segmentation_module.MaskLoss", lambda: noted)
        figures = validation()
    assert [count for _, count in seen] == [4, 4, 1]
    expected = sum(loss * count for loss, count in seen) / 9
    assert float(figures["val_loss"]) == pytest.approx(expected, rel=1e-5)
    assert 0 < float(figures["val_dice"]) < 1


@pytest.mark.parametrize("on_cpu", [True, False])
def test_layers_are_replaced_for_the_block_and_keep_what_follows_them(
    on_cpu: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sync_batch_norm, "rank_and_world_size", lambda: (0, 2))
    layers = network()
    layers(batch()[0])
    layers.eval()
    before, names = layers(batch()[0]), list(layers.state_dict())
    with synchronized_norms(layers, on_cpu=on_cpu):
        kinds = WholeBatchNorm if on_cpu else nn.SyncBatchNorm
        assert sum(isinstance(layer, kinds) for layer in layers) == 2
        torch.testing.assert_close(layers(batch()[0]), before)
        assert list(layers.state_dict()) == names
        layers.double()[3].running_mean.add_(1)
    assert [type(layer) for layer in layers] == [type(layer) for layer in network()]
    assert not torch.equal(layers(batch()[0]), before)


def test_several_machines_need_a_launcher() -> None:
    device = DeviceConfig(accelerator="cpu", nodes=2)
    with pytest.raises(UsageError, match=r"device\.num_nodes 2: .*torchrun or srun"):
        together(device, Console(quiet=True), print)


def fails(what: str, console: Console) -> None:
    """Ends otherwise than well in the second of two processes; the first waits for it."""
    if rank_and_world_size()[0] == 1:
        if what == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        raise UsageError(f"data.batch_size: {what}; raise it")
    barrier()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "kind", "told"),
    [
        ("2", UsageError, r"^data\.batch_size: 2; raise it$"),
        ("killed", DxsegError, r"^training process \d of 2 ended .*the same command continues"),
    ],
)
def test_what_one_process_meets_is_told(
    what: str, kind: type[DxsegError], told: str, capfd: pytest.CaptureFixture[str]
) -> None:
    device = DeviceConfig(accelerator="cpu", devices=2)
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(kind, match=told):
        together(device, Console(quiet=True), fails, what)
    assert signal.getsignal(signal.SIGTERM) == handler
    assert "Traceback" not in capfd.readouterr().err


STAGE = {"steps": 4, "steps_per_epoch": 2, "warmup_steps": 1}
CHANGES: dict[str, Any] = {
    "model": {"backbone": "tf_efficientnet_lite0"},
    "data": {"batch_size": 5},
    "split": {"masks": 8, "validation_masks": None},
    "stage1": STAGE,
    "stage2": STAGE,
}


def same_results(alone: Path, together: Path, stages: list[str]) -> None:
    """Compare the figures of every epoch.

    Not the weights: the optimiser's first steps are as long where a gradient is only rounding, as
    of a bias before a normalisation.
    """
    for stage in stages:
        one, other = (pd.read_csv(run / stage / "metrics.csv") for run in (alone, together))
        assert list(one.columns) == list(other.columns)
        np.testing.assert_allclose(other, one, rtol=0.03, atol=0.03, err_msg=stage)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "model"),
    [
        ("sks", {"coarse_learning_rate_scale": 0.1}),  # its label heads get no gradient
        ("sks-evidence", {"coarse_learning_rate_scale": 0.1, "shared_encoder_levels": 2}),
        ("sks-evidence-selftrained", {"coarse_learning_rate_scale": 0.1}),
        ("unet-multitask", {}),
    ],
)
def test_a_run_of_two_processes_ends_as_that_of_one(
    method: str,
    model: dict[str, Any],
    disks: Path,
    configure: Callable[..., RunConfig],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from dxseg.training.run import train_run

    # Random weights everywhere else, but new processes know nothing of that.
    monkeypatch.setattr(factory, "load_pretrained", load_pretrained)

    stages = (
        ["stage1"] * ("unet" not in method) + ["stage2"] + ["self_training"] * ("self" in method)
    )
    changes = merge(CHANGES, {"model": model}, dict.fromkeys(stages, STAGE))
    for devices in (1, 2):
        config = configure(method, **changes, device={"accelerator": "cpu", "devices": devices})
        run = train_run(disks, tmp_path / str(devices), config, console=Console(quiet=True))
        assert run == read_run(tmp_path / str(devices))
    same_results(tmp_path / "1", tmp_path / "2", stages)


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
def test_the_scripts_for_clusters(
    script: str,
    first: list[str],
    variables: dict[str, str],
    phantoms: Path,
    cli: Callable[..., Any],
    tiny: Callable[..., list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What docs/how-to/cluster.md tells, by two processes; of SLURM only `srun` is imitated."""
    monkeypatch.setattr(factory, "load_pretrained", load_pretrained)
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
    same_results(tmp_path / "one", tmp_path / "two", ["stage1", "stage2"])

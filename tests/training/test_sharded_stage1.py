"""Stage 1 on images in shards: the images of the memory map, and resumable like every stage."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from dxseg.config.schema import DataConfig, RunConfig
from dxseg.data.batches import shard_writer
from dxseg.data.batches.bag_sampler import BagSampler
from dxseg.data.batches.loader import CaseDataset, Studies
from dxseg.data.batches.shard_sampler import ShardPoolSampler
from dxseg.data.batches.shards import Manifest, ShardedImages
from dxseg.data.table.dataset import Dataset
from dxseg.errors import UsageError
from dxseg.models import factory
from dxseg.training.classification_module import Stage1Module
from dxseg.training.datamodule import Material, gather, resolve_splits
from dxseg.training.label_batches import LabelBatches
from dxseg.training.run import train_run, train_stage1_run
from dxseg.training.run_record import read_run

IMAGE = 64 * 64
SHARD = 4 * IMAGE
ROOM = 3 * (SHARD + 1024) / 2**30
"""GiB: three of the nine shards that 33 images make."""
STAGE = {"steps": 4, "steps_per_epoch": 2, "warmup_steps": 1}


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_writer, "SHARD_BYTES", SHARD)


@pytest.fixture
def sharded(configure: Callable[..., RunConfig], tmp_path: Path) -> Callable[..., RunConfig]:
    """A configuration whose images lie in shards, in folders of the test."""

    def make(name: str, method: str = "sks-evidence", **changes: Any) -> RunConfig:
        data = {
            "shards": str(tmp_path / name / "archive"),
            "shards_local_gib": ROOM,
            "cache_dir": str(tmp_path / name / "cache"),
        }
        return configure(method, data=data | changes.pop("data", {}), **changes)

    return make


def die_after(original: Callable[..., Any], call: int) -> Callable[..., Any]:
    calls = [0]

    def wrapped(*arguments: Any, **named: Any) -> Any:
        result = original(*arguments, **named)
        calls[0] += 1
        if calls[0] == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return wrapped


def train(dataset: Path, output: Path, config: RunConfig, moment: str) -> None:
    """What the process runs."""
    factory.load_pretrained = lambda _: False  # as in this process
    shard_writer.SHARD_BYTES = SHARD
    if moment == "decoding":  # each shard is followed by the manifest
        shard_writer._put = die_after(shard_writer._put, 7)
    elif moment == "training":  # the middle of the second epoch of two steps
        Stage1Module.training_step = die_after(Stage1Module.training_step, 3)
    train_stage1_run(dataset, output, config, console=Console(quiet=True))


def test_killed_while_decoding_and_in_mid_epoch_it_ends_with_the_same_weights(
    sharded: Callable[..., RunConfig],
    disks: Path,
    quiet: Console,
    tmp_path: Path,
    small_shards: None,
) -> None:
    config, run = sharded("killed", stage1=STAGE), tmp_path / "killed" / "run"
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["dxseg.training.run", "monai.losses.dice", "timm"])

    def killed_while(moment: str) -> bool:
        process = context.Process(target=train, args=(disks, run, config, moment))
        process.start()
        process.join()
        return process.exitcode == -signal.SIGKILL

    assert killed_while("decoding")
    (archive,) = (tmp_path / "killed" / "archive").iterdir()
    assert len(list(archive.glob("*.npy"))) == 4
    assert killed_while("training")
    assert (run / "stage1" / "last.ckpt").is_file()
    train_stage1_run(disks, run, config, console=quiet)

    reference = tmp_path / "whole" / "run"
    train_stage1_run(disks, reference, sharded("whole", stage1=STAGE), console=quiet)
    (whole,) = (tmp_path / "whole" / "archive").iterdir()
    for path in whole.glob("*.npy"):
        assert (archive / path.name).read_bytes() == path.read_bytes()
    stages = [folder / "stage1" for folder in (run, reference)]
    mine, theirs = (load_file(stage / "coarse.safetensors") for stage in stages)
    assert [key for key in theirs if not torch.equal(mine[key], theirs[key])] == []
    pd.testing.assert_frame_equal(*[pd.read_csv(stage / "metrics.csv") for stage in stages])


def materials(disks: Path, *configs: RunConfig) -> list[Material]:
    dataset = Dataset.load(disks)
    statistics = (0.5,), (0.25,)
    return [
        gather(dataset, resolve_splits(dataset, config, None), config, statistics)
        for config in configs
    ]


def test_all_stages_see_the_images_of_the_memory_map(
    sharded: Callable[..., RunConfig],
    configure: Callable[..., RunConfig],
    disks: Path,
    small_shards: None,
) -> None:
    pieces, whole = materials(disks, sharded("a"), configure("sks-evidence"))
    for name in (
        *("stage1_train", "label_train", "label_validation"),
        *("mask_train", "mask_validation"),
    ):
        mine, theirs = getattr(pieces, name), getattr(whole, name)
        assert isinstance(mine.images, ShardedImages) == name.startswith(("stage1", "label"))
        assert len(mine) == len(theirs) > 0
        for case in range(len(theirs)):
            assert np.array_equal(mine.image(case), theirs.image(case)), name
            assert np.array_equal(mine.mask(case), theirs.mask(case)), name
        assert np.array_equal(mine.labels, theirs.labels)
    assert pieces.preprocessing == whole.preprocessing
    rows = pieces.label_validation.image_rows
    assert rows.tolist() == list(range(24, 33)), "validation is read in order, from few shards"
    sampler = LabelBatches.plan(pieces.stage1_train, sharded("a").data).sampler(2, 0)
    assert isinstance(sampler, ShardPoolSampler)
    assert (sampler.windows.size, sampler.windows.shards.max()) == (1, 5)


def test_images_and_studies_in_one_batch_have_windows_of_half_the_size(tmp_path: Path) -> None:
    manifest = Manifest(shape=(80, 32, 32, 1), dtype="uint8", rows=2, shards={})
    images = ShardedImages("", manifest, tmp_path, 16 * manifest.shard_bytes)
    study = np.where(np.arange(60) < 30, -1, np.arange(60) // 6)
    label = np.where(study < 0, 0, -1)
    rows = np.arange(20, 80)
    cases = CaseDataset(
        images, rows, None, np.full(60, -1), label, 1, Studies(study, np.zeros(60), np.arange(60))
    )
    sampler = LabelBatches.plan(cases, DataConfig(bag_size=4)).sampler(3, 0)
    assert isinstance(sampler, BagSampler)
    assert isinstance(sampler.images, ShardPoolSampler)
    assert sampler.windows is sampler.images.windows is not None
    assert sampler.windows.size == 4
    assert np.array_equal(sampler.windows.shards, rows // 2)
    drawn = [row for batch in sampler for row, _ in batch]
    assert set(drawn) <= set(range(60))


def test_a_run_with_workers_goes_through_all_stages_within_the_bound(
    sharded: Callable[..., RunConfig],
    disks: Path,
    quiet: Console,
    tmp_path: Path,
    small_shards: None,
) -> None:
    config = sharded("b", data={"workers": 1})
    run = train_run(disks, tmp_path / "run", config, console=quiet)
    assert run == read_run(tmp_path / "run")
    (kept,) = (tmp_path / "b" / "cache").glob("fetched-images-*")
    sizes = [path.stat().st_size for path in kept.iterdir()]
    assert len(sizes) == 3
    assert sum(sizes) <= ROOM * 2**30


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ({"shards_local_gib": None}, "shards and shards_local_gib go together"),
        ({"shards": None}, "shards and shards_local_gib go together"),
        ({"shards_local_gib": 0}, r"data\.shards_local_gib = 0"),
        ({"shards": ""}, r"data\.shards = ''"),
    ],
)
def test_half_a_choice_is_refused(
    data: dict[str, Any], told: str, sharded: Callable[..., RunConfig]
) -> None:
    with pytest.raises(UsageError, match=told):
        sharded("c", data=data)


@pytest.mark.parametrize("method", ["sks-evidence-selftrained", "unet-multitask"])
def test_methods_that_draw_from_all_images_after_stage_1_are_refused(
    method: str, sharded: Callable[..., RunConfig]
) -> None:
    with pytest.raises(UsageError, match=r"data\.shards is for stage 1, and .* such as sks,"):
        sharded("c", method=method)

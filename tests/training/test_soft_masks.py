"""Runs on soft masks: targets are how much of a pixel the lesion covers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dxseg.config.presets import load_config
from dxseg.config.schema import RunConfig
from dxseg.data.table.dataset import Dataset
from dxseg.experiments.plan import stage1_config
from dxseg.inference.predictor import Predictor
from dxseg.training.datamodule.training_data import TrainingData, prepare_training_data
from dxseg.training.run import train_run
from trained_runs import figures_on_test

SOFT: dict[str, Any] = {"image_size": 32, "soft_masks": True}


def prepared(disks: Path, **data: Any) -> TrainingData:
    dataset = Dataset.load(disks)
    splits = dataset.cases[["case_id", "split"]].assign(use_mask=dataset.has_mask)
    config = load_config("cpu", "unet-scratch", {"data": {"image_size": 32, **data}})
    return prepare_training_data(dataset, splits, config, ((0.5,), (0.25,)))


def test_targets_lie_between_0_and_1_and_truth_is_cut(disks: Path) -> None:
    soft, hard = prepared(disks, soft_masks=True), prepared(disks)
    between = 0
    for case in range(len(hard.mask_train)):
        target = soft.mask_train.targets(torch.from_numpy(soft.mask_train.mask(case)))
        cut = hard.mask_train.targets(torch.from_numpy(hard.mask_train.mask(case)))
        assert target.shape == cut.shape == (1, 32, 32)
        assert ((target > 0.51) <= (cut > 0)).all()
        assert ((target < 0.49) <= (cut == 0)).all()
        between += int(((target > 0) & (target < 1)).sum())
        truth = soft.mask_train.label_map(case)
        assert truth.shape == (32, 32)
        assert np.mean(truth != hard.mask_train.label_map(case)) < 0.01
    assert between > 100
    without = soft.label_train.subset(np.array([0]))
    without.mask_rows[:] = -1
    assert without.mask(0).shape == (1, 32, 32)
    assert not without.mask(0).any()
    np.testing.assert_array_equal(soft.lesion_free, hard.lesion_free)


def test_it_learns_from_soft_masks(
    disks: Path, configure: Callable[..., RunConfig], tmp_path: Path
) -> None:
    stage = {"steps": 60, "steps_per_epoch": 30, "warmup_steps": 5, "learning_rate": 3e-3}
    config = configure("unet-scratch", data={**SOFT, "batch_size": 8}, stage2=stage)
    train_run(disks, tmp_path / "run", config)
    dice, _ = figures_on_test(
        Predictor.from_folder(tmp_path / "run" / "model"), Dataset.load(disks)
    )
    assert dice > 0.6


@pytest.mark.parametrize("method", ["unet-stage1-multitask", "unet-selftrained", "sks-student"])
def test_every_stage_trains_on_them(method: str, train: Callable[..., Path]) -> None:
    run = train(method, data=SOFT)
    [found] = Predictor.from_folder(run / "model").predict([np.zeros((50, 70, 1), np.uint8)])
    assert found.mask.shape == (50, 70)


def test_stage1_is_shared_with_runs_on_masks_that_are_cut() -> None:
    soft, hard = (
        load_config("cpu", "sks", {"data": {"soft_masks": value}}) for value in (True, False)
    )
    assert stage1_config(soft) == stage1_config(hard)

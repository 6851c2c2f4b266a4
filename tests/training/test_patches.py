"""Runs on patches: masks at full resolution, labels of the reduced whole image."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dxseg import export_onnx
from dxseg.config.presets import load_config
from dxseg.config.schema import RunConfig
from dxseg.data.table.dataset import Dataset
from dxseg.errors import UsageError
from dxseg.inference.model_folder import load_model_folder
from dxseg.inference.predictor import Predictor
from dxseg.training.run import train_run
from dxseg.training.stage1_folder import load_stage1
from trained_runs import figures_on_test

PATCHES: dict[str, Any] = {
    "model": {"coarse_reduction": 2},
    "data": {"image_size": 128, "patch_size": 64},
}


def test_it_learns_from_patches(
    disks: Path, configure: Callable[..., RunConfig], tmp_path: Path
) -> None:
    """As on whole images (test_training_runs.py); the disks are enlarged twice."""
    stage = {"steps": 30, "steps_per_epoch": 15, "warmup_steps": 5, "learning_rate": 3e-3}
    config = configure(
        "sks",
        model=PATCHES["model"],
        data=PATCHES["data"] | {"batch_size": 8},
        stage1=stage,
        stage2=stage,
    )
    train_run(disks, tmp_path / "run", config)

    segmenter, info = load_model_folder(tmp_path / "run" / "model")
    dice, accuracy = figures_on_test(Predictor(segmenter, info), Dataset.load(disks))
    assert info.preprocessing.image_size == 128
    assert load_stage1(tmp_path / "run" / "stage1")[1].image_size == 64
    assert dice > 0.6
    assert accuracy > 0.65


@pytest.mark.parametrize(
    "method", ["unet-stage1-multitask", "sks-selftrained", "unet-stage1-student"]
)
def test_every_stage_trains_on_patches(method: str, train: Callable[..., Path]) -> None:
    """And predicts images of their own size."""
    run = train(method, **PATCHES)
    segmenter, info = load_model_folder(run / "model")
    image: NDArray[np.uint8] = np.zeros((50, 70, 1), np.uint8)
    [prediction] = Predictor(segmenter, info).predict([image])
    assert prediction.mask.shape == (50, 70)


def test_sizes_that_are_no_multiple_of_32_are_padded(train: Callable[..., Path]) -> None:
    """Those of stage 1, and of the whole images behind patches."""
    data = {"image_size": 72, "patch_size": 32}
    run = train("sks", model={"coarse_reduction": 2}, data=data)
    assert load_stage1(run / "stage1")[1].image_size == 36
    assert (run / "run.json").is_file()


def test_the_exported_network_reduces_the_image_itself(
    train: Callable[..., Path], tmp_path: Path
) -> None:
    run = train("sks", **PATCHES)
    export_onnx(run / "model", output=tmp_path / "model.onnx")
    image = np.random.default_rng(0).integers(0, 255, (90, 128, 1), dtype=np.uint8)
    segmenter, info = load_model_folder(run / "model")
    [expected] = Predictor(segmenter, info).predict([image])
    [exported] = Predictor.from_folder(tmp_path / "model.onnx").predict([image])
    np.testing.assert_allclose(exported.probabilities, expected.probabilities, atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": {"image_size": 64, "patch_size": 96}}, "patch_size 96 is larger"),
        ({"data": {"patch_size": 50}}, "multiple of 32"),
        ({"model": {"coarse_reduction": 3}}, "does not divide data.image_size 128"),
        ({"model": {"coarse_reduction": 8}}, "32 px or more"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_config("cpu", "sks", changes)

"""Labels have the same influence on a label head, however often their images are drawn."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dxseg.config.schema import RunConfig
from dxseg.data.table.dataset import Dataset
from dxseg.models.factory import build_segmenter
from dxseg.training import stages
from dxseg.training.datamodule.stage_data import StageData
from dxseg.training.datamodule.training_data import TrainingData, prepare_training_data
from dxseg.training.pseudo_labels import PseudoLabels
from dxseg.training.run_splits import resolve_splits
from dxseg.training.trainer import TrainerSettings

Configure = Callable[..., RunConfig]
EPOCH = {"steps": 96, "steps_per_epoch": 96}


@pytest.fixture
def influences(monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """Of each stage that would be trained: the weight of each label times its drawn images."""
    found: list[np.ndarray] = []

    def fit(module: Any, data: StageData, *_: object, **__: object) -> dict[str, float]:
        train: Any = data.train
        cases, sampler = train["labels"] if isinstance(train, dict) else train
        drawn = [cases.labels[row] for batch in sampler for row, _ in batch]
        found.append(np.bincount(drawn, minlength=3) * module.label_loss.balance.numpy())
        return {}

    monkeypatch.setattr(stages, "fit_stage", fit)
    return found


def prepare(disks: Path, config: RunConfig) -> tuple[TrainingData, TrainerSettings]:
    dataset = Dataset.load(disks)
    splits = resolve_splits(dataset, config, None)
    data = prepare_training_data(dataset, splits, config, ((0.5,), (0.25,)))
    return data, TrainerSettings(config.device, config.seed)


def test_a_student(
    disks: Path, configure: Configure, influences: list[np.ndarray], tmp_path: Path
) -> None:
    """A third of the images is lesion-free, and half of each batch."""
    config = configure("unet-student", student={**EPOCH, "lesion_free_fraction": 0.5})
    data, settings = prepare(disks, config)
    labels = PseudoLabels(data.label_train, data.label_train.labels == 0, {})  # type: ignore[arg-type]
    stages.train_student(data, config, tmp_path, settings, labels, None)
    assert influences[0] == pytest.approx(np.full(3, influences[0].mean()))


def test_self_training(
    disks: Path, configure: Configure, influences: list[np.ndarray], tmp_path: Path
) -> None:
    """Of 24 images, the eight lesion-free ones have masks and are a quarter of each batch."""
    config = configure(
        "unet-stage1-multitask-selftrained",
        model={"encoder_init": "random"},
        data={"lesion_free_fraction": 0.5},
        split={"masks": 4},
        self_training=EPOCH,
    )
    data, settings = prepare(disks, config)
    segmenter = build_segmenter(config.model, data.task)
    stages.self_train(data, config, tmp_path, settings, segmenter)
    assert influences[0] == pytest.approx(np.full(3, influences[0].mean()))


def test_a_label_head_beside_masks(
    disks: Path, configure: Configure, influences: list[np.ndarray], tmp_path: Path
) -> None:
    config = configure("unet-multitask", stage2=EPOCH)
    data, settings = prepare(disks, config)
    stages.train_stage2(data, config, tmp_path, settings, None)
    assert influences[0] == pytest.approx(np.full(3, influences[0].mean()))

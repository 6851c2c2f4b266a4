"""A stage 1 that does not fit is refused, such as one that knows labels which are hidden here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from dxseg.config.presets import load_config
from dxseg.config.schema import RunConfig
from dxseg.data.splits.mask_budget import choose_masks
from dxseg.data.table.dataset import Dataset, DatasetSpec
from dxseg.errors import DxsegError
from dxseg.models.factory import build_coarse_branch
from dxseg.training.datamodule.training_data import TrainingData, prepare_training_data
from dxseg.training.stage1_folder import load_stage1_of, save_stage1

SLICES, VOLUMES, SIZE = 6, 5, 32
STATISTICS = ((0.5,), (0.25,))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Five volumes; slices 2 and 3 show a tumor, which follows from their masks."""
    root = tmp_path_factory.mktemp("data")
    rows = []
    for number in range(VOLUMES * SLICES):
        volume, index = divmod(number, SLICES)
        case, lesion = f"v{volume}_{index}", index in (2, 3)
        pixels = np.full((SIZE, SIZE), 50 * volume + index, np.uint8)
        Image.fromarray(pixels).save(root / f"{case}.png")
        if lesion:
            Image.fromarray(np.pad(np.full((8, 8), 255, np.uint8), 12)).save(root / f"{case}_m.png")
        mask, label = (f"{case}_m.png", "tumor") if lesion else ("", "none")
        rows.append((case, f"{case}.png", mask, label, "mask", f"v{volume}", index))
    names = ["case_id", "image", "mask", "label", "label_level", "volume_id", "slice_index"]
    spec = DatasetSpec(name="x", labels=["none", "tumor"], lesion_free=["none"])
    return Dataset.create(root, spec, pd.DataFrame(rows, columns=names))


@pytest.fixture(scope="module")
def config() -> RunConfig:
    changes = {"data": {"image_size": SIZE}, "model": {"backbone": "test_efficientnet"}}
    return load_config("cpu", "unet-stage1", changes)


def split(data: Dataset, budget: int, seed: int = 0, **options: str) -> pd.DataFrame:
    """All volumes but the last are in training."""
    volume = data.cases["volume_id"].str[1].astype(int)
    splits = pd.DataFrame({"case_id": data.cases["case_id"], "group": volume})
    splits["split"] = np.where(volume == VOLUMES - 1, "validation", "train")
    splits["fold"] = pd.array([0] * len(volume), dtype="Int64")
    return choose_masks(data, splits, train_masks=budget, validation_masks=0, seed=seed, **options)


def prepare(data: Dataset, config: RunConfig, splits: pd.DataFrame) -> TrainingData:
    return prepare_training_data(data, splits, config, STATISTICS)


@pytest.fixture
def other(data: Dataset, config: RunConfig, tmp_path: Path) -> Path:
    """A run with the masks, and so the labels of the slices, of two volumes."""
    splits = split(data, 2)
    prepared = prepare(data, config, splits)
    coarse = build_coarse_branch(config.model, prepared.task, pretrained=False)
    save_stage1(tmp_path / "stage1", coarse, config, prepared, splits, {})
    return tmp_path


@pytest.mark.parametrize(
    ("budget", "options"),
    [
        (1, {}),  # a smaller budget hides the labels of one volume more
        (2, {"label_unit": "slab"}),
        (2, {"label_unit": "slice"}),
    ],
)
def test_a_stage_one_that_learnt_other_labels_is_refused(
    data: Dataset, config: RunConfig, other: Path, budget: int, options: dict[str, str]
) -> None:
    splits = split(data, budget, **options)
    prepared = prepare(data, config, splits)
    if "label_level" not in splits:  # nothing is hidden: whatever it learnt is known here
        load_stage1_of(other, splits, config, prepared)
        return
    with pytest.raises(DxsegError, match="other labels than those that are known here"):
        load_stage1_of(other, splits, config, prepared)


def test_a_stage_one_that_learnt_the_same_labels_is_used(
    data: Dataset, config: RunConfig, other: Path
) -> None:
    splits = split(data, 2)
    assert "label_level" in splits
    load_stage1_of(other, splits, config, prepare(data, config, splits))


def test_a_stage_one_of_another_size_is_refused(
    data: Dataset, config: RunConfig, other: Path
) -> None:
    splits = split(data, 2)
    larger = config.model_copy(update={"data": config.data.model_copy(update={"image_size": 64})})
    with pytest.raises(DxsegError, match=r"learned from images of 32 px, and classifies .* 64 px"):
        load_stage1_of(other, splits, larger, prepare(data, config, splits))


@pytest.mark.parametrize("checkpoint", ["best", "last"])
def test_a_stage_one_that_was_selected_on_test_cases_is_refused(
    data: Dataset, config: RunConfig, tmp_path: Path, checkpoint: str
) -> None:
    splits = split(data, 2)
    prepared = prepare(data, config, splits)
    stage = config.stage1.model_copy(update={"checkpoint": checkpoint})
    coarse = build_coarse_branch(config.model, prepared.task, pretrained=False)
    changed = config.model_copy(update={"stage1": stage})
    save_stage1(tmp_path / "stage1", coarse, changed, prepared, splits, {})
    load_stage1_of(tmp_path, splits, config, prepared)
    here = splits.assign(split=splits["split"].replace("validation", "test"))
    if checkpoint == "last":
        load_stage1_of(tmp_path, here, config, prepared)
        return
    with pytest.raises(DxsegError, match=f"selected on {SLICES} cases .* that are test cases"):
        load_stage1_of(tmp_path, here, config, prepared)

"""The warning about detail that the input size loses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from dxseg.data.table.dataset import Dataset, DatasetSpec
from dxseg.training.lost_detail import LostDetail, measure_lost_detail


def lost(dice: list[float], side: int = 512) -> LostDetail:
    areas = np.arange(1, len(dice) + 1) * 10
    return LostDetail(128, side, areas, np.array(dice))


def test_what_is_lost_is_said_with_the_remedy() -> None:
    warning = lost([0, 0.6, 0.8, 0.9, 1, 1]).warning()
    assert "(up to 20 pixels)" in warning
    assert "0.30, 0.85, 1.00" in warning
    assert "1 of 6 would vanish" in warning
    assert "data.image_size=512" in warning
    assert "model.coarse_reduction=4" in warning


@pytest.mark.parametrize("dice", [[], [0.95, 0.95, 0.96], [1.0]])
def test_nothing_is_said_where_little_is_lost(dice: list[float]) -> None:
    assert lost(dice).warning() == ""


def test_it_is_measured_on_the_training_masks_that_may_be_used(disks: Path) -> None:
    """Disks of 18 to 26 px, at half and at a sixteenth of their size."""
    dataset = Dataset.load(disks)
    splits = pd.DataFrame({"split": dataset.cases["split"], "use_mask": False})
    assert len(measure_lost_detail(dataset, splits, 64).dice) == 0
    splits["use_mask"] = True
    sizes = [measure_lost_detail(dataset, splits, size) for size in (64, 32)]
    assert [len(one.dice) for one in sizes] == [16, 16]
    assert (sizes[0].dice == 1).all()
    assert (sizes[1].dice < 1).all()
    assert sizes[1].dice.min() > 0.9
    assert (np.diff(sizes[0].areas) >= 0).all()


def test_a_large_lesion_hides_no_small_one(tmp_path: Path) -> None:
    """Of a liver (value 1) with two lesions: the Dice of the whole mask would be 0.98 and more."""
    mask = np.ones((512, 512), np.uint8)
    mask[100:160, 100:160] = mask[300, 300:303] = 2
    Image.fromarray(mask).save(tmp_path / "m.png")
    spec = DatasetSpec(
        name="x", labels=[], mask_classes=["liver", "tumor"], lesion_classes=["tumor"]
    )
    cases = pd.DataFrame({"case_id": ["a"], "image": ["a.png"], "mask": ["m.png"]})
    splits = pd.DataFrame({"split": ["train"], "use_mask": [True]})
    lost = measure_lost_detail(Dataset(tmp_path, spec, cases), splits, 128)
    assert lost.areas.tolist() == [3, 3600]
    assert lost.dice[0] == 0
    assert lost.dice[1] > 0.98
    assert "1 of 2 would vanish" in lost.warning()

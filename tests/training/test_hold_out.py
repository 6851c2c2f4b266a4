"""What stage 1 must not learn, because stage 2 learns from it there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dxseg.config import RunConfig
from dxseg.data.dataset import Dataset
from dxseg.data.splits import read_splits
from dxseg.errors import DxsegError
from dxseg.presets import load_config
from dxseg.training.batches import mask_pools
from dxseg.training.hold_out import LESION_FREE_SHARE, held_out
from dxseg.training.run import train_run, train_stage1_run


@st.composite
def divided(draw: st.DrawFn) -> tuple[Any, pd.DataFrame]:
    """Lesion-free flags and splits of some cases; groups do not cross splits."""
    groups = draw(st.lists(st.tuples(st.sampled_from(["train", "train", "validation", "test"]),
                                     st.integers(1, 3)), min_size=1, max_size=25))  # fmt: skip
    split = [name for name, size in groups for _ in range(size)]
    number = [index for index, (_, size) in enumerate(groups) for _ in range(size)]
    flags = st.lists(st.booleans(), min_size=len(split), max_size=len(split))
    splits = pd.DataFrame({"group": number, "split": split, "use_mask": draw(flags)})
    return SimpleNamespace(lesion_free=pd.Series(draw(flags))), splits


@given(divided(), st.sampled_from([0.0, 0.2, 0.4, 0.9]), st.integers(0, 3))
def test_whole_groups_of_training_cases_within_the_share(
    data: tuple[Any, pd.DataFrame], share: float, seed: int
) -> None:
    dataset, splits = data
    held = held_out(dataset, splits, share, seed)
    train = splits["split"].eq("train").to_numpy()
    assert not held[~train].any()
    together = pd.Series(held[train]).groupby(splits["group"].to_numpy()[train])
    assert together.nunique().eq(1).all()
    free = train & dataset.lesion_free.to_numpy()
    lesion = train & ~free
    assert held[lesion].sum() <= share * lesion.sum()
    learnt = ~held & lesion
    if share == 0:
        assert not held.any()
    # Held out for their masks, and where there is room, all of these.
    masked = splits["use_mask"].to_numpy() & lesion
    groups = splits["group"]
    assert set(groups[held & lesion]) <= set(groups[masked])
    if lesion[groups.isin(groups[masked])].sum() <= share * lesion.sum():
        assert not (learnt & masked).any()
    assert np.array_equal(held, held_out(dataset, splits, share, seed))


def test_of_lesion_free_images_a_fifth_is_held_out() -> None:
    splits = pd.DataFrame({"group": range(60), "split": "train", "use_mask": True})
    splits.loc[5:10, "use_mask"] = False
    free = np.arange(60) >= 10
    held = held_out(SimpleNamespace(lesion_free=pd.Series(free)), splits, 0.5, 0)
    assert held[:5].all()
    assert not held[5:10].any()
    assert held[free].sum() == LESION_FREE_SHARE * 50


def record(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "stage1" / "stage1.json").read_text())
    return content


def test_stage_1_has_not_seen_what_is_held_out(
    disks: Path, finished: Path, configure: Callable[..., RunConfig], quiet: Any, tmp_path: Path
) -> None:
    dataset = Dataset.load(disks)
    splits = read_splits(finished / "splits.csv", dataset)
    held = held_out(dataset, splits, RunConfig().stage1.hold_out, 0)
    assert held.sum() > 2
    train = splits["split"].eq("train").to_numpy()
    assert record(finished)["case_ids"] == dataset.cases["case_id"][train & ~held].tolist()
    # The strongest rivals know all labels.
    train_stage1_run(disks, tmp_path / "all", configure("unet-stage1"), console=quiet)
    assert record(tmp_path / "all")["case_ids"] == dataset.cases["case_id"][train].tolist()
    with pytest.raises(DxsegError, match=r"has learnt \d+ of the \d+ cases that this run keeps"):
        train_run(disks, tmp_path / "run", configure(), stage1_run=tmp_path / "all", console=quiet)


@pytest.mark.parametrize(
    ("arm", "expected"), [("sks-evidence", [2]), ("sks", [2]), ("unet-stage1", [1, 2])]
)
def test_a_prompted_network_draws_lesion_free_images_that_its_classifier_has_not_seen(
    arm: str, expected: list[int]
) -> None:
    material = SimpleNamespace(
        lesion_free_train=np.array([False, True, True]),
        held_out_train=np.array([True, False, True]),
    )
    lesion, free = mask_pools(material, load_config("cpu", arm), 8)
    assert lesion[0].tolist() == [0]
    assert free[0].tolist() == expected
    material.held_out_train[:] = False
    assert mask_pools(material, load_config("cpu", arm), 8)[1][0].tolist() == [1, 2]

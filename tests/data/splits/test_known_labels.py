"""What is known of a volume whose masks are hidden."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dxseg.data.splits.known_labels import known_labels
from dxseg.data.splits.mask_budget import choose_masks
from dxseg.data.splits.split_table import read_splits, write_splits
from dxseg.data.table.dataset import Dataset, DatasetSpec
from dxseg.errors import DxsegError, UsageError

SPEC = DatasetSpec(name="x", labels=["none", "cyst", "tumor"], lesion_free=["none"])
SLICES, VOLUMES = 9, 8


def table(level: str = "mask", **changed: str) -> pd.DataFrame:
    """Eight volumes of nine slices; slice 1 of each but the last shows a tumor."""
    rows = [
        {
            "case_id": f"v{volume}_{index}",
            "image": f"v{volume}_{index}.png",
            "mask": f"m{volume}_{index}.png" if index == 1 and volume < VOLUMES - 1 else "",
            "label": "tumor" if index == 1 and volume < VOLUMES - 1 else "none",
            "label_level": level,
            "volume_id": f"v{volume}",
            "slice_index": index,
            "patient_id": f"p{volume}",
        }
        for volume in range(VOLUMES)
        for index in range(SLICES)
    ]
    cases = pd.DataFrame(rows)
    for name, label in changed.items():
        cases.loc[cases["case_id"] == name, "label"] = label
    return cases


def dataset(level: str = "mask", **changed: str) -> Dataset:
    return Dataset(Path("/data"), SPEC, table(level, **changed))


def splits_of(data: Dataset) -> pd.DataFrame:
    """The last two volumes, one of them without a lesion, are in validation."""
    volume = data.cases["case_id"].str[1].astype(int)
    validation = volume.isin([0, VOLUMES - 1])
    return pd.DataFrame(
        {
            "case_id": data.cases["case_id"],
            "group": volume,
            "split": np.where(validation, "validation", "train"),
            "fold": pd.array([0] * len(volume), dtype="Int64"),
        }
    )


def choose(data: Dataset, masks: int | None, **options) -> pd.DataFrame:
    options = {"train_masks": masks, "validation_masks": 0, "seed": 0} | options
    return choose_masks(data, splits_of(data), **options)


def by_volume(data: Dataset, flags) -> dict[str, int]:
    return pd.Series(np.asarray(flags)).groupby(data.cases["volume_id"].to_numpy()).sum().to_dict()


def test_slices_without_a_lesion_in_which_organs_are_outlined_leave_a_volume_its_lesion():
    """A slice of organs only is no lesion label; of a volume, it holds for every slice."""
    spec = SPEC.model_copy(update={"lesion_free": [], "organs_only": ["none"]})
    cases = table().assign(mask=[f"m{row}.png" for row in range(SLICES * VOLUMES)])
    data = Dataset(Path("/data"), spec, cases)
    splits = choose(data, 2)
    known = known_labels(data, splits)
    assert not known.lesion_free.any()
    hidden = ~splits["use_mask"] & data.cases["volume_id"].ne(f"v{VOLUMES - 1}")
    assert set(known.study_labels[hidden]) == {"tumor"}
    assert (known.image_labels[hidden] == "").all()
    assert (known.studies[hidden] >= 0).all()
    last = data.cases["volume_id"].eq(f"v{VOLUMES - 1}")
    assert set(known.image_labels[last]) == {"none"}
    assert (known.studies[last] == -1).all()


@pytest.mark.parametrize("unit", [None, "volume"])
def test_a_budget_of_volumes_is_the_masks_of_all_their_slices(unit):
    data = dataset()
    for budget in (2, 3):
        used = by_volume(data, choose(data, budget, budget_unit=unit)["use_mask"])
        train = [used[f"v{number}"] for number in range(1, VOLUMES - 1)]
        assert sorted(train) == [0] * (6 - budget) + [SLICES] * budget
    smaller, larger = choose(data, 2)["use_mask"], choose(data, 3)["use_mask"]
    assert (larger | ~smaller).all()


def test_a_volume_without_a_lesion_is_known_to_be_empty_and_costs_nothing():
    data = dataset()
    splits = choose(data, 1)
    assert by_volume(data, splits["use_mask"])[f"v{VOLUMES - 1}"] == SLICES
    assert known_labels(data, splits).lesion_free[splits["split"].eq("validation")].sum() == SLICES


def test_hidden_volumes_keep_their_study_label_only():
    data = dataset()
    splits = choose(data, 2)
    known = known_labels(data, splits)
    shown = splits["use_mask"] & splits["split"].eq("train")
    assert known.image_labels[shown].tolist() == data.cases["label"][shown].tolist()
    hidden = ~splits["use_mask"]
    assert (known.image_labels[hidden] == "").all()
    assert (known.study_labels[hidden] == "tumor").all()
    assert len(set(known.studies[hidden])) == 5
    assert (known.studies[shown] == -1).all()
    assert not known.lesion_free[hidden].any()


def test_slabs_have_one_label_each_and_those_without_a_lesion_are_empty():
    data = dataset()
    splits = choose(data, 2, label_unit="slab")
    known = known_labels(data, splits)
    hidden = (splits["label_level"] == "slab").to_numpy()
    assert set(data.cases["slice_index"][hidden]) == {0, 1, 2}  # the slab with the lesion
    assert (known.study_labels[hidden] == "tumor").all()
    sizes = pd.Series(known.studies[hidden]).value_counts()
    assert sizes.tolist() == [3] * 5
    # The other slabs are lesion-free: their masks are known, whatever the budget.
    assert splits["use_mask"].to_numpy()[~hidden].all()


def test_a_used_slice_gives_its_slab_the_label_of_the_lesion():
    """With a budget of slices: the others of that slab are not known to be lesion-free."""
    data = dataset("image")
    splits = choose(data, 2, budget_unit="slice", label_unit="slab")
    known = known_labels(data, splits)
    used = splits["use_mask"] & ~data.lesion_free & splits["split"].eq("train")
    beside = data.cases["volume_id"].isin(data.cases["volume_id"][used])
    beside &= data.cases["slice_index"].isin([0, 2])
    assert (used.sum(), beside.sum()) == (2, 4)
    assert (known.study_labels[beside] == "tumor").all()
    assert not known.lesion_free[beside].any()
    assert not splits["use_mask"][beside].any()


def test_slice_labels_that_are_known_stay_known():
    for data, unit in ((dataset("image"), None), (dataset(), "slice")):
        splits = choose(data, 2, label_unit=unit)
        assert "label_level" not in splits
        assert known_labels(data, splits) is data
        free = data.lesion_free.to_numpy()
        assert splits["use_mask"].to_numpy()[free].all()


def test_slice_labels_that_are_known_can_be_hidden():
    data = dataset("image")
    splits = choose(data, 2, label_unit="volume")
    hidden = ~splits["use_mask"].to_numpy()
    assert (known_labels(data, splits).image_labels[hidden] == "").all()


def test_a_budget_of_slices_of_volumes():
    data = dataset("image")
    splits = choose(data, 2, budget_unit="slice")
    lesions = splits["use_mask"] & ~data.lesion_free & splits["split"].eq("train")
    assert lesions.sum() == 2


def test_validation_masks_count_volumes_too():
    data = dataset()
    assert by_volume(data, choose(data, 1, validation_masks=1)["use_mask"])["v0"] == SLICES
    with pytest.raises(UsageError, match="2 volumes for validation: expected 0 to 1"):
        choose(data, 1, validation_masks=2)


def test_test_masks_are_for_evaluation_whatever_is_hidden():
    data = dataset()
    splits = splits_of(data).assign(split="test")
    chosen = choose_masks(data, splits, train_masks=None, validation_masks=None, seed=0)
    assert chosen["use_mask"].all()
    assert "label_level" not in chosen


def test_splits_with_hidden_labels_read_back(tmp_path):
    data = dataset()
    splits = choose(data, 2)
    write_splits(tmp_path / "splits.csv", splits)
    assert read_splits(tmp_path / "splits.csv", data).equals(splits)
    splits["label_level"] = "none"
    write_splits(tmp_path / "splits.csv", splits)
    with pytest.raises(DxsegError, match="column label_level: 'none'"):
        read_splits(tmp_path / "splits.csv", data)


def test_a_volume_of_two_lesion_labels_has_none_of_its_own():
    data = dataset("image", v2_3="cyst", v2_4="cyst")
    with pytest.raises(DxsegError, match="volume 'v2': its slices have the labels cyst, tumor"):
        known_labels(data, choose(data, 2, label_unit="volume"))


def test_an_unknown_slice_makes_a_volume_without_a_lesion_unknown():
    data = dataset("image", v7_4="")
    splits = choose(data, 2, label_unit="volume")
    known = known_labels(data, splits)
    of_volume = data.cases["volume_id"].eq("v7")
    assert (known.cases["label"][of_volume & ~splits["use_mask"]] == "").all()


@pytest.mark.parametrize(
    ("column", "options", "message"),
    [
        (
            "volume_id",
            {"budget_unit": "volume"},
            "a budget of volumes, but no case has a volume_id",
        ),
        ("volume_id", {"label_unit": "slab"}, "split.label_unit slab: no case has a volume_id"),
        ("slice_index", {"label_unit": "slab"}, "case 'v0_0' has no slice_index"),
    ],
)
def test_tables_without_volumes_or_places_are_refused(column, options, message):
    data = Dataset(Path("/data"), SPEC, table("image").drop(columns=column))
    with pytest.raises(UsageError, match=message):
        choose(data, 2, **options)

"""Splits: groups stay whole, strata are shared out, folds cover each case once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dxseg.data.splits.cross_validation import cross_validation_splits
from dxseg.data.splits.groups import known_groups
from dxseg.data.splits.holdout import make_splits, select_fold
from dxseg.data.splits.mask_budget import choose_masks
from dxseg.data.table.dataset import Dataset
from dxseg.errors import DxsegError, UsageError
from split_datasets import LABELS, datasets, make_dataset


@given(datasets(), st.integers(0, 2**31), st.integers(2, 6))
@settings(max_examples=60, deadline=None)
def test_no_patient_is_divided_and_every_case_has_a_place(
    dataset: Dataset, seed: int, folds: int
) -> None:
    splits = make_splits(dataset, seed=seed, folds=folds)
    assert list(splits["case_id"]) == list(dataset.cases["case_id"])
    assert set(splits["split"]) <= {"train", "validation", "test"}
    assert (splits["split"] == "train").any()
    patient = dataset.cases["patient_id"]
    assert splits.groupby(patient)["split"].nunique().max() == 1
    assert splits.groupby(patient)["group"].nunique().max() == 1
    assert splits.groupby("group")["case_id"].count().sum() == len(dataset.cases)
    used = splits["split"] != "test"
    assert splits.loc[used, "fold"].between(0, folds - 1).all()
    assert splits.loc[~used, "fold"].isna().all()
    assert splits[used].groupby("group")["fold"].nunique().max() == 1
    pd.testing.assert_frame_equal(splits, make_splits(dataset, seed=seed, folds=folds))


@given(datasets(), st.integers(0, 2**31))
@settings(max_examples=60, deadline=None)
def test_fractions_hold_to_within_large_groups(dataset: Dataset, seed: int) -> None:
    """Indivisible groups and the promise to reach every split allow this much and no more."""
    splits = make_splits(dataset, seed=seed)
    sizes = splits.groupby("group").size()
    count = len(splits)
    strata = 2 * 7  # seven combinations of labels at most (none, 1, ...), with or without a mask
    for name, share in (("train", 0.7), ("validation", 0.1), ("test", 0.2)):
        held = int((splits["split"] == name).sum())
        assert abs(held - share * count) <= (1 + strata) * sizes.max()


@pytest.mark.parametrize("seed", range(5))
def test_shares_of_each_label_with_single_cases(seed: int) -> None:
    labels = ["normal"] * 133 + ["benign"] * 437 + ["malignant"] * 210
    splits = make_splits(make_dataset(labels), seed=seed)
    table = pd.crosstab(pd.Series(labels), splits["split"])
    for label, total in (("normal", 133), ("benign", 437), ("malignant", 210)):
        for name, share in (("train", 0.7), ("validation", 0.1), ("test", 0.2)):
            assert abs(table.loc[label, name] - share * total) <= 2
    folds = pd.crosstab(pd.Series(labels), splits["fold"])
    assert (folds.max(axis=1) - folds.min(axis=1)).max() <= 2


def test_seeds_differ() -> None:
    dataset = make_dataset(["benign"] * 50 + ["normal"] * 50)
    assert not make_splits(dataset, seed=0).equals(make_splits(dataset, seed=1))


@given(st.lists(st.integers(3, 9), min_size=3, max_size=3), st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_every_label_reaches_every_split_when_it_can(counts: list[int], seed: int) -> None:
    labels = [label for label, n in zip(LABELS, counts, strict=True) for _ in range(n)]
    splits = make_splits(make_dataset(labels), seed=seed)
    assert (pd.crosstab(pd.Series(labels), splits["split"]) > 0).to_numpy().all()


@pytest.mark.parametrize("labels", [["benign"], ["benign", "normal"], ["benign"] * 2, [""]])
def test_tiny_datasets_train_first(labels: list[str]) -> None:
    splits = make_splits(make_dataset(labels))
    assert (splits["split"] == "train").all()


def test_many_tiny_strata_do_not_all_fall_to_training() -> None:
    """60 labels of two cases each: alone each would go to training whole."""
    names = [f"finding {i}" for i in range(60)]
    splits = make_splits(make_dataset([n for n in names for _ in range(2)], names=names))
    assert abs((splits["split"] == "test").sum() - 24) <= 2
    assert abs((splits["split"] == "validation").sum() - 12) <= 2


def test_the_few_masks_reach_validation_and_test() -> None:
    labels = ["benign"] * 1000
    masks = [i < 30 for i in range(1000)]
    splits = make_splits(make_dataset(labels, masks=masks))
    assert splits["split"][:30].value_counts().to_dict() == {
        "train": 21,
        "test": 6,
        "validation": 3,
    }


def test_a_given_group_stays_whole_and_no_image_is_read() -> None:
    """Groups reach across patients; with one in every row nothing is left to look for."""
    count = 60
    dataset = make_dataset(
        ["benign"] * count,
        ["p0", "p1", *[""] * (count - 2)],
        group=["a", "a", *[f"g{i // 3}" for i in range(count - 2)]],
    )
    splits = make_splits(dataset)
    assert splits.groupby(dataset.cases["group"])["split"].nunique().max() == 1
    assert splits["split"].nunique() == 3
    assert known_groups(dataset.cases).tolist() == splits["group"].tolist()
    assert known_groups(make_dataset(["benign"] * 3, ["p", "", "p"]).cases).tolist() == [0, -1, 0]


def test_patients_with_several_labels_are_kept_and_stratified() -> None:
    """As in LIDC: most patients have windows with and without a nodule."""
    patients = [f"p{i // 4}" for i in range(400)]
    labels = ["benign" if i % 4 == 0 and i < 200 else "normal" for i in range(400)]
    splits = make_splits(make_dataset(labels, patients))
    assert "dropped" not in set(splits["split"])
    lesion = splits[[label == "benign" for label in labels]]
    assert lesion["split"].value_counts().to_dict() == {"train": 35, "test": 10, "validation": 5}


def test_multi_label_rows_are_stratified_by_combination() -> None:
    labels = ["a;b"] * 40 + ["b;a"] * 10 + ["a"] * 50 + ["c"] * 10 + ["a;c"]
    dataset = make_dataset(labels, names=["a", "b", "c"], multi_label=True)
    splits = make_splits(dataset)
    assert (splits["split"][:50] == "test").sum() == 10
    assert (splits["split"][50:100] == "test").sum() == 10


def test_volumes_stay_whole_without_patients() -> None:
    volumes = [f"v{i // 10}" for i in range(100)]
    dataset = make_dataset(["benign"] * 100, [""] * 100, volume_id=volumes)
    splits = make_splits(dataset)  # reads no image: none exists
    assert splits.groupby(pd.Series(volumes))["split"].nunique().max() == 1


def test_near_duplicates_that_contradict_are_dropped_whole() -> None:
    labels = ["benign", "malignant", "", "benign", "benign", ""] + ["normal"] * 10
    groups = pd.Series([0, 0, 0, 1, 1, 1, *range(2, 12)], index=[f"c{i}" for i in range(16)])
    dataset = make_dataset(labels, [""] * 16)
    splits = make_splits(dataset, groups=groups.sample(frac=1, random_state=1))
    assert list(splits["split"][:3]) == ["dropped"] * 3
    assert splits["split"][3:6].nunique() == 1
    assert splits["split"][3] != "dropped"
    assert splits["fold"][:3].isna().all()


def test_without_patients_images_are_compared(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for i in range(12):
        pixels = rng.integers(0, 255, (6, 6), np.uint8)
        picture = Image.fromarray(pixels).resize((64, 64), Image.Resampling.BICUBIC)
        for copy in range(2):
            picture.resize((64 + 8 * copy, 60)).save(tmp_path / f"c{2 * i + copy}.png")
    labels = ["benign"] * 24
    labels[1] = "malignant"
    dataset = make_dataset(labels, [""] * 24, root=tmp_path)
    seen: list[tuple[int, int]] = []
    one, two = tmp_path / "one", tmp_path / "two"
    options = {"workers": 1, "progress": lambda *told: seen.append(told)}
    splits = make_splits(dataset, cache=one, **options)
    assert list(splits["group"]) == [i // 2 for i in range(24)]
    assert list(splits["split"][:2]) == ["dropped", "dropped"]
    assert seen[-1] == (24, 24)
    seen.clear()
    tables = cross_validation_splits(dataset, folds=3, cache=two, **options)
    assert tables[0]["group"].equals(splits["group"])
    assert seen[-1] == (24, 24)
    assert one.exists()
    assert two.exists()


def test_images_of_one_patient_are_not_compared_and_so_contradict_nothing(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (6, 6), np.uint8)
    picture = Image.fromarray(pixels).resize((64, 64), Image.Resampling.BICUBIC)
    shown = (picture, picture.resize((72, 60)), picture.rotate(90))
    for number, one in enumerate(shown):
        one.save(tmp_path / f"c{number}.png")
    labels = ["benign", "malignant", "benign"]
    known = make_splits(make_dataset(labels, ["p", "p", ""], root=tmp_path))
    assert known["group"].tolist() == [0, 0, 1]
    assert "dropped" not in set(known["split"])
    unknown = make_splits(make_dataset(labels, ["", "", ""], root=tmp_path))
    assert unknown["split"].tolist()[:2] == ["dropped", "dropped"]


def test_slices_of_one_file_belong_together() -> None:
    file, index = ["a.tif", "b.tif", "a.tif", "c.tif"], [0, 0, 1, 0]
    dataset = make_dataset(["benign"] * 4, ["p", "q", "r", "s"], image=file, slice_index=index)
    assert make_splits(dataset)["group"].tolist() == [0, 1, 0, 2]


def test_where_a_split_is_given_no_image_is_compared() -> None:
    split = ["train", "validation", "test"] * 4
    splits = make_splits(make_dataset(["benign"] * 12, [""] * 12, split=split))  # no image exists
    assert list(splits["split"]) == split


def test_folds_without_a_split_in_the_table_are_drawn_anew() -> None:
    dataset = make_dataset(["benign"] * 30, fold=[4] * 30)
    splits = make_splits(dataset, folds=3)
    assert set(splits["fold"].dropna()) == {0, 1, 2}


def test_defaults_are_five_folds_of_seed_0() -> None:
    dataset = make_dataset(["benign"] * 40 + ["normal"] * 40)
    splits = make_splits(dataset)
    pd.testing.assert_frame_equal(splits, make_splits(dataset, folds=5, seed=0))
    assert splits["fold"].dtype == "Int64"
    assert splits["fold"].nunique() == 5


def test_a_seed_means_the_same_split_in_every_version() -> None:
    """Published splits are named by their seed; if this fails, they cannot be drawn again."""
    labels = ["normal", "benign", "malignant"] * 8
    dataset = make_dataset(labels, [f"p{i // 2}" for i in range(24)])
    splits = make_splits(dataset, folds=3, seed=7)
    assert initials(splits) == "TTTTTTTT----VVTTTTTTVVTT"
    assert "".join(map(str, splits["fold"].fillna(9))) == "111100009999002222221100"
    chosen = choose_masks(dataset, splits, train_masks=4, validation_masks=1, seed=7)
    shown = chosen["use_mask"] & chosen["split"].ne("test") & ~dataset.lesion_free
    assert np.flatnonzero(shown).tolist() == [1, 2, 4, 13, 14]
    tables = cross_validation_splits(dataset, folds=3, seed=7)
    assert [initials(table) for table in tables] == [
        "----TTVVVVTT----TTTTTTTT",
        "TTTTVVTTTT--TTVVTT------",
        "TTTT------TTTTVV--TTTTVV",
    ]


def initials(splits: pd.DataFrame) -> str:
    """The split of each case: T for training, V for validation, - for test."""
    return "".join({"train": "T", "validation": "V", "test": "-"}[name] for name in splits["split"])


def test_given_split_is_kept_and_given_folds_too() -> None:
    split = ["train", "validation", "test", "dropped", "train"]
    dataset = make_dataset(["benign"] * 5, split=split, fold=[3, 1, None, None, 2])
    splits = make_splits(dataset)
    assert list(splits["split"]) == split
    assert splits["fold"].tolist()[:2] == [3, 1]
    assert splits["fold"].isna().tolist() == [False, False, True, True, False]


def test_given_split_that_divides_a_patient_is_refused() -> None:
    dataset = make_dataset(["benign"] * 3, ["a", "a", "b"], split=["train", "test", "train"])
    with pytest.raises(DxsegError, match=r"cases.csv: column split: 1 groups.*c0"):
        make_splits(dataset)


def test_split_given_in_part_is_refused() -> None:
    with pytest.raises(DxsegError, match=r"cases.csv: column split is empty in 1 of 2 rows.*c1"):
        make_splits(make_dataset(["benign"] * 2, split=["train", ""]))


@pytest.mark.parametrize(
    "fractions", [(0.5, 0.5, 0.5), (0, 0.5, 0.5), (1.2, -0.2, 0), (float("nan"), 0.5, 0.5)]
)
def test_fractions_must_make_sense(fractions: tuple[float, float, float]) -> None:
    with pytest.raises(UsageError, match="sum to 1"):
        make_splits(make_dataset(["benign"]), fractions=fractions)


def test_one_fold_is_refused() -> None:
    with pytest.raises(UsageError, match="folds 1: expected at least 2"):
        make_splits(make_dataset(["benign"]), folds=1)


def test_a_share_of_zero_receives_nothing() -> None:
    splits = make_splits(make_dataset(["benign"] * 20), fractions=(0.8, 0.2, 0))
    assert splits["split"].value_counts().to_dict() == {"train": 16, "validation": 4}


def test_groups_must_cover_the_cases() -> None:
    with pytest.raises(UsageError, match="c1"):
        make_splits(make_dataset(["benign"] * 2), groups=pd.Series([0], index=["c0"]))


def test_select_fold_covers_each_case_once() -> None:
    dataset = make_dataset(["benign"] * 30 + ["normal"] * 20)
    splits = make_splits(dataset, folds=4)
    validated = [select_fold(splits, k)["split"] == "validation" for k in range(4)]
    assert (np.sum(validated, axis=0) == (splits["split"] != "test")).all()
    assert (select_fold(splits, 0)["split"] == "test").equals(splits["split"] == "test")
    with pytest.raises(UsageError, match=r"fold 4.*\[0, 1, 2, 3\]"):
        select_fold(splits, 4)


def test_who_does_not_validate_trains_and_masks_are_chosen_anew() -> None:
    splits = make_splits(make_dataset(["benign"] * 30 + ["normal"] * 20), folds=4)
    chosen = select_fold(splits.assign(use_mask=1), 2)
    assert "use_mask" not in chosen
    expected = np.select(
        [
            (splits["split"] == "test").to_numpy(bool),
            splits["fold"].eq(2).fillna(False).to_numpy(bool),
        ],
        ["test", "validation"],
        "train",
    )
    assert chosen["split"].tolist() == expected.tolist()


def test_a_hundred_thousand_cases_split_quickly() -> None:
    rng = np.random.default_rng(0)
    count = 100_000
    labels = rng.choice(LABELS, count)
    patients = [f"p{i}" for i in rng.integers(0, 30_000, count)]
    dataset = make_dataset(list(labels), patients)
    splits = make_splits(dataset)
    shares = splits["split"].value_counts(normalize=True)
    assert shares["test"] == pytest.approx(0.2, abs=0.005)

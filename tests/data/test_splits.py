"""Splits: groups stay whole, strata are shared out, budgets of masks are nested."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dxseg.data.dataset import Dataset, DatasetSpec
from dxseg.data.splits import (
    choose_masks,
    known_groups,
    make_splits,
    read_splits,
    select_fold,
    write_splits,
)
from dxseg.errors import DxsegError, UsageError

LABELS = ["normal", "benign", "malignant"]


def make_dataset(
    labels: Sequence[str],
    patients: Sequence[str] | None = None,
    *,
    root: Path = Path("/nonexistent"),
    masks: Sequence[bool] | None = None,
    names: Sequence[str] = LABELS,
    multi_label: bool = False,
    **columns: Any,
) -> Dataset:
    """Return a dataset in memory; lesions have masks unless told otherwise."""
    count = len(labels)
    free = "normal"
    own = [f"p{i}" for i in range(count)]
    has = masks if masks is not None else [label not in ("", free) for label in labels]
    table = pd.DataFrame(
        {
            "case_id": [f"c{i}" for i in range(count)],
            "image": [f"c{i}.png" for i in range(count)],
            "mask": [f"c{i}_mask.png" if h else "" for i, h in enumerate(has)],
            "label": list(labels),
            "patient_id": own if patients is None else list(patients),
            **columns,
        }
    )
    spec = DatasetSpec(
        name="test",
        labels=list(names),
        lesion_free=[free] if free in names else [],
        multi_label=multi_label,
    )
    return Dataset(root, spec, table)


@st.composite
def datasets(draw: st.DrawFn) -> Dataset:
    """Draw cases of up to 40 patients with any labels, none, and with or without masks."""
    count = draw(st.integers(1, 120))
    patients = draw(st.lists(st.integers(0, 39), min_size=count, max_size=count))
    labels = draw(st.lists(st.sampled_from([*LABELS, ""]), min_size=count, max_size=count))
    masks = draw(st.lists(st.booleans(), min_size=count, max_size=count))
    return make_dataset(labels, [f"p{p}" for p in patients], masks=masks)


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
    seen: list[tuple[int, int]] = []
    splits = make_splits(
        make_dataset(labels, [""] * 24, root=tmp_path),
        progress=lambda done, total: seen.append((done, total)),
    )
    assert list(splits["group"]) == [i // 2 for i in range(24)]
    assert list(splits["split"][:2]) == ["dropped", "dropped"]
    assert seen[-1] == (24, 24)


def test_given_split_is_kept_and_given_folds_too() -> None:
    split = ["train", "validation", "test", "dropped", "train"]
    dataset = make_dataset(["benign"] * 5, split=split, fold=[3, 1, None, None, 2])
    splits = make_splits(dataset)
    assert list(splits["split"]) == split
    assert splits["fold"].tolist()[:2] == [3, 1]
    assert splits["fold"].isna().tolist() == [False, False, True, True, False]


def test_given_split_that_divides_a_patient_is_refused() -> None:
    dataset = make_dataset(["benign"] * 3, ["a", "a", "b"], split=["train", "test", "train"])
    with pytest.raises(DxsegError, match=r"column split: 1 groups.*c0"):
        make_splits(dataset)


def test_split_given_in_part_is_refused() -> None:
    with pytest.raises(DxsegError, match=r"split is empty in 1 of 2 rows.*c1"):
        make_splits(make_dataset(["benign"] * 2, split=["train", ""]))


@pytest.mark.parametrize(
    "fractions", [(0.5, 0.5, 0.5), (0, 0.5, 0.5), (1.2, -0.2, 0), (float("nan"), 0.5, 0.5)]
)
def test_fractions_must_make_sense(fractions: tuple[float, float, float]) -> None:
    with pytest.raises(UsageError, match="sum to 1"):
        make_splits(make_dataset(["benign"]), fractions=fractions)


def test_a_share_of_zero_receives_nothing() -> None:
    splits = make_splits(make_dataset(["benign"] * 20), fractions=(0.8, 0.2, 0))
    assert splits["split"].value_counts().to_dict() == {"train": 16, "validation": 4}


def test_groups_must_cover_the_cases() -> None:
    with pytest.raises(UsageError, match="c1"):
        make_splits(make_dataset(["benign"] * 2), groups=pd.Series([0], index=["c0"]))


@given(datasets(), st.integers(0, 1000), st.data())
@settings(max_examples=60, deadline=None)
def test_budgets_are_nested_exact_and_free_of_lesion_free(
    dataset: Dataset, seed: int, data: st.DataObject
) -> None:
    splits = make_splits(dataset, seed=seed)
    lesion = (dataset.has_mask & ~dataset.lesion_free).to_numpy()
    train = (splits["split"] == "train").to_numpy()
    validation = (splits["split"] == "validation").to_numpy()
    larger = data.draw(st.integers(0, int((lesion & train).sum())))
    smaller = data.draw(st.integers(0, larger))
    few = choose_masks(dataset, splits, train_masks=smaller, validation_masks=0, seed=seed)
    many = choose_masks(dataset, splits, train_masks=larger, validation_masks=None, seed=seed)
    use_few, use_many = few["use_mask"].to_numpy(), many["use_mask"].to_numpy()
    assert (use_few & lesion & train).sum() == smaller
    assert (use_many & lesion & train).sum() == larger
    assert not (use_few & ~use_many).any()
    assert not (use_few & lesion & validation).any()
    assert (use_many & lesion & validation).sum() == (lesion & validation).sum()
    free = dataset.lesion_free.to_numpy()
    assert use_few[free].all()
    assert not (use_many & ~dataset.has_mask.to_numpy()).any()
    test = (splits["split"] == "test").to_numpy()
    assert (use_few[test] == dataset.has_mask.to_numpy()[test]).all()


@given(st.integers(1, 60), st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_budgets_are_proportional_to_labels(budget: int, seed: int) -> None:
    labels = ["benign"] * 60 + ["malignant"] * 30 + ["normal"] * 30
    dataset = make_dataset(labels, split=["train"] * 120)
    chosen = choose_masks(
        dataset, make_splits(dataset), train_masks=budget, validation_masks=None, seed=seed
    )
    benign = int(chosen["use_mask"][:60].sum())
    assert abs(benign - budget * 2 / 3) <= 1


def test_budget_goes_to_other_patients_before_the_same_again() -> None:
    dataset = make_dataset(["benign"] * 40, [f"p{i // 4}" for i in range(40)], split=["train"] * 40)
    splits = make_splits(dataset)
    chosen = choose_masks(dataset, splits, train_masks=10, validation_masks=None, seed=3)
    assert chosen[chosen["use_mask"]]["group"].nunique() == 10


def test_budget_as_a_share() -> None:
    dataset = make_dataset(["benign"] * 40, split=["train"] * 40)
    splits = make_splits(dataset)
    for share, count in ((0.25, 10), (0.001, 1), (1.0, 40), (0.0, 0)):
        chosen = choose_masks(dataset, splits, train_masks=share, validation_masks=None, seed=0)
        assert chosen["use_mask"].sum() == count


@pytest.mark.parametrize("budget", [41, -1, 1.5, -0.1])
def test_budget_that_cannot_be_met_is_refused(budget: float) -> None:
    dataset = make_dataset(["benign"] * 40, split=["train"] * 40)
    with pytest.raises(UsageError, match="expected 0 to"):
        choose_masks(
            dataset, make_splits(dataset), train_masks=budget, validation_masks=None, seed=0
        )


def test_dropped_cases_never_show_their_mask() -> None:
    dataset = make_dataset(["benign", "normal", "benign"], split=["dropped", "dropped", "train"])
    chosen = choose_masks(
        dataset, make_splits(dataset), train_masks=None, validation_masks=None, seed=0
    )
    assert list(chosen["use_mask"]) == [False, False, True]


def test_select_fold_covers_each_case_once() -> None:
    dataset = make_dataset(["benign"] * 30 + ["normal"] * 20)
    splits = make_splits(dataset, folds=4)
    validated = [select_fold(splits, k)["split"] == "validation" for k in range(4)]
    assert (np.sum(validated, axis=0) == (splits["split"] != "test")).all()
    assert (select_fold(splits, 0)["split"] == "test").equals(splits["split"] == "test")
    with pytest.raises(UsageError, match=r"fold 4.*\[0, 1, 2, 3\]"):
        select_fold(splits, 4)


@pytest.fixture
def written(tmp_path: Path) -> tuple[Path, Dataset, pd.DataFrame]:
    dataset = make_dataset(["benign"] * 8 + ["normal"] * 4)
    splits = choose_masks(
        dataset, make_splits(dataset), train_masks=2, validation_masks=None, seed=0
    )
    path = tmp_path / "splits.csv"
    write_splits(path, splits)
    return path, dataset, splits


def test_written_splits_read_back(written: tuple[Path, Dataset, pd.DataFrame]) -> None:
    path, dataset, splits = written
    pd.testing.assert_frame_equal(read_splits(path, dataset), splits, check_dtype=False)
    reordered = pd.read_csv(path, dtype=str, na_filter=False).iloc[::-1]
    reordered.to_csv(path, index=False)
    again = read_splits(path, dataset)
    pd.testing.assert_frame_equal(again, splits, check_dtype=False)
    assert again["use_mask"].dtype == bool
    assert again["fold"].dtype == "Int64"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("c0,", "c1,", "case_id"),
        ("c0,", "stranger,", "no case of the dataset: stranger"),
        ("train", "training", "training"),
        ("True", "yes", "use_mask"),
        ("c1,1,", "c1,0,", "divided"),
        ("c1,1,", "c1,one,", "group"),
        ("case_id,", "case,", "columns"),
    ],
)
def test_damaged_splits_are_refused(
    written: tuple[Path, Dataset, pd.DataFrame], old: str, new: str, message: str
) -> None:
    path, dataset, splits = written
    if message == "divided":
        splits.loc[[0, 1], ["split", "fold"]] = [["train", 0], ["train", 1]]
        write_splits(path, splits)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(DxsegError, match=message):
        read_splits(path, dataset)


def test_missing_cases_are_named(written: tuple[Path, Dataset, pd.DataFrame]) -> None:
    path, dataset, _ = written
    path.write_text("\n".join(path.read_text().splitlines()[:-1]) + "\n")
    with pytest.raises(DxsegError, match=r"1 cases are missing: c11"):
        read_splits(path, dataset)


def test_a_hundred_thousand_cases_split_quickly() -> None:
    rng = np.random.default_rng(0)
    count = 100_000
    labels = rng.choice(LABELS, count)
    patients = [f"p{i}" for i in rng.integers(0, 30_000, count)]
    dataset = make_dataset(list(labels), patients)
    splits = make_splits(dataset)
    shares = splits["split"].value_counts(normalize=True)
    assert shares["test"] == pytest.approx(0.2, abs=0.005)

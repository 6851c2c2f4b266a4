"""Cross-validation: every case is tested once, and what belongs together stays together."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dxseg.data.splits.cross_validation import cross_validation_splits
from dxseg.data.table.dataset import Dataset, DatasetSpec
from dxseg.errors import UsageError

LABELS = ["normal", "benign", "malignant"]


def make_dataset(labels: list[str], patients: list[str], **columns: Any) -> Dataset:
    table = pd.DataFrame(
        {
            "case_id": [f"c{i}" for i in range(len(labels))],
            "image": [f"c{i}.png" for i in range(len(labels))],
            "mask": ["" if label == "normal" else f"m{i}.png" for i, label in enumerate(labels)],
            "label": labels,
            "patient_id": patients,
            **columns,
        }
    )
    spec = DatasetSpec(name="test", labels=LABELS, lesion_free=["normal"])
    return Dataset("/nonexistent", spec, table)


@st.composite
def datasets(draw: st.DrawFn) -> Dataset:
    count = draw(st.integers(12, 120))
    patients = draw(st.lists(st.integers(0, 39), min_size=count, max_size=count))
    labels = draw(st.lists(st.sampled_from(LABELS), min_size=count, max_size=count))
    return make_dataset(labels, [f"p{p}" for p in patients])


@given(datasets(), st.integers(0, 2**31), st.integers(2, 5), st.floats(0, 0.5))
@settings(max_examples=50)
def test_every_case_is_tested_once_and_no_patient_is_divided(
    dataset: Dataset, seed: int, folds: int, share: float
) -> None:
    patient = dataset.cases["patient_id"]
    if patient.nunique() < folds:
        return
    tables = cross_validation_splits(dataset, folds=folds, validation_fraction=share, seed=seed)
    tested = sum(table["split"].eq("test").astype(int) for table in tables)
    assert (tested == 1).all()
    for fold, table in enumerate(tables):
        assert list(table["case_id"]) == list(dataset.cases["case_id"])
        assert table.groupby(patient)["split"].nunique().max() == 1
        rest = table["split"].ne("test")
        assert table.loc[~rest, "fold"].isna().all()
        assert table.loc[rest, "fold"].ne(fold).all()
        for number, other in enumerate(tables):
            assert table.loc[rest & other["split"].eq("test"), "fold"].eq(number).all()


@given(datasets(), st.integers(0, 1000))
@settings(max_examples=10)
def test_the_same_seed_gives_the_same_folds(dataset: Dataset, seed: int) -> None:
    if dataset.cases["patient_id"].nunique() < 3:
        return
    one, two = (cross_validation_splits(dataset, folds=3, seed=seed) for _ in range(2))
    for mine, theirs in zip(one, two, strict=True):
        pd.testing.assert_frame_equal(mine, theirs)


def test_defaults_are_five_folds_of_seed_0() -> None:
    dataset = make_dataset(LABELS * 20, [f"p{i}" for i in range(60)])
    tables = cross_validation_splits(dataset)
    assert len(tables) == 5
    assert tables[0]["fold"].dtype == "Int64"
    pd.testing.assert_frame_equal(tables[0], cross_validation_splits(dataset, seed=0)[0])


def test_another_seed_gives_other_folds() -> None:
    dataset = make_dataset(LABELS * 20, [f"p{i}" for i in range(60)])
    one, two = (cross_validation_splits(dataset, seed=seed)[0]["split"] for seed in (0, 1))
    assert not one.equals(two)


def test_folds_and_validation_hold_every_label_in_proportion() -> None:
    labels = ["normal"] * 40 + ["benign"] * 100 + ["malignant"] * 60
    dataset = make_dataset(labels, [f"p{i}" for i in range(200)])
    for table in cross_validation_splits(dataset, folds=5, validation_fraction=0.125):
        assert table["split"].value_counts().to_dict() == {
            "train": 140,
            "test": 40,
            "validation": 20,
        }
        tested = dataset.cases["label"][table["split"] == "test"].value_counts()
        assert tested.to_dict() == {"benign": 20, "malignant": 12, "normal": 8}
        validated = dataset.cases["label"][table["split"] == "validation"].value_counts()
        assert (validated - pd.Series({"benign": 10, "malignant": 6, "normal": 4})).abs().max() <= 1


def test_there_may_be_as_many_folds_as_patients() -> None:
    dataset = make_dataset(["benign", "normal"] * 5, [f"p{i // 2}" for i in range(10)])
    tables = cross_validation_splits(dataset, folds=5)
    tested = [tuple(np.flatnonzero(table["split"] == "test")) for table in tables]
    assert sorted(tested) == [(0, 1), (2, 3), (4, 5), (6, 7), (8, 9)]


def test_the_validation_cases_change_with_the_fold() -> None:
    dataset = make_dataset(LABELS * 20, [f"p{i}" for i in range(60)])
    chosen = [
        frozenset(np.flatnonzero(table["split"] == "validation"))
        for table in cross_validation_splits(dataset, folds=3)
    ]
    assert len(set(chosen)) == 3


def test_near_duplicates_stay_together_and_contradictions_are_dropped_in_every_fold() -> None:
    labels = ["benign", "benign", "malignant", "benign", *LABELS * 8]
    dataset = make_dataset(labels, [""] * len(labels))
    alike = pd.Series([0, 0, 1, 1, *range(2, 26)], index=dataset.cases["case_id"])
    tables = cross_validation_splits(dataset, folds=4, groups=alike)
    for table in tables:
        assert table["split"][:2].nunique() == 1
        assert table["split"][2:4].tolist() == ["dropped", "dropped"]
        assert table["fold"][2:4].isna().all()
    assert sum(table["split"].eq("test").sum() for table in tables) == len(labels) - 2


def test_a_split_in_the_table_plays_no_part_but_what_it_drops() -> None:
    split = ["dropped", *["test"] * 5, *["train"] * 24]
    dataset = make_dataset(LABELS * 10, [f"p{i}" for i in range(30)], split=split)
    tables = cross_validation_splits(dataset, folds=3)
    assert all(table["split"][0] == "dropped" for table in tables)
    assert sum(table["split"].eq("test").sum() for table in tables) == 29


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"folds": 1}, "at least 2"),
        ({"folds": 7}, r"cases\.csv: 6 groups of cases .* for 7 folds"),
        ({"validation_fraction": 1.0}, "below 1"),
        ({"validation_fraction": float("nan")}, "below 1"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, Any], message: str) -> None:
    dataset = make_dataset(LABELS * 2, [f"p{i}" for i in range(6)])
    with pytest.raises(UsageError, match=message):
        cross_validation_splits(dataset, **options)

"""Budgets of masks are nested, exact and free of what is lesion-free."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dxseg.data.splits.holdout import make_splits
from dxseg.data.splits.mask_budget import choose_masks
from dxseg.data.table.dataset import Dataset
from dxseg.errors import UsageError
from split_datasets import datasets, make_dataset


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
    with pytest.raises(UsageError, match=r"train.*expected 0 to"):
        choose_masks(
            dataset, make_splits(dataset), train_masks=budget, validation_masks=None, seed=0
        )


def test_dropped_cases_never_show_their_mask() -> None:
    dataset = make_dataset(["benign", "normal", "benign"], split=["dropped", "dropped", "train"])
    chosen = choose_masks(
        dataset, make_splits(dataset), train_masks=None, validation_masks=None, seed=0
    )
    assert list(chosen["use_mask"]) == [False, False, True]


def test_a_table_of_other_cases_is_refused() -> None:
    dataset = make_dataset(["benign"] * 3)
    turned = make_splits(dataset)[::-1]
    with pytest.raises(UsageError, match=r"splits: other cases, or another order"):
        choose_masks(dataset, turned, train_masks=None, validation_masks=None, seed=0)

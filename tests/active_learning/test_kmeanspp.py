"""What is chosen scores high, lies apart, and is one of each group."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dxseg.active_learning.kmeanspp import FARTHEST, select_cases, unit_features

NOTHING = np.zeros((0, 2), np.float32)


def at(*degrees: float) -> np.ndarray:
    """Directions in the plane."""
    angles = np.deg2rad(np.array(degrees))
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def chosen(
    points: np.ndarray,
    count: int,
    *,
    weights: np.ndarray | None = None,
    groups: np.ndarray | None = None,
    annotated: np.ndarray = NOTHING,
    seed: int = 0,
) -> list[int]:
    number = len(points)
    found, distances = select_cases(
        points,
        np.ones(number) if weights is None else weights,
        np.arange(number) if groups is None else groups,
        count,
        annotated=annotated,
        seed=seed,
    )
    assert len(found) == len(distances)
    assert ((distances >= 0) & (distances <= FARTHEST + 1e-6)).all()
    return found.tolist()


def test_unit_features_have_length_one_whatever_the_scale() -> None:
    features = np.random.default_rng(0).normal(5, 3, (20, 7)).astype(np.float32)
    found = unit_features(features)
    assert np.linalg.norm(found, axis=1) == pytest.approx(np.ones(20))
    assert unit_features(features * 100) == pytest.approx(found, abs=1e-4)
    assert not unit_features(np.ones((3, 2), np.float32)).any()


@pytest.mark.parametrize("seed", range(5))
def test_each_of_three_clusters_gets_one_of_three(seed: int) -> None:
    points = at(*(0, 1, 2, 3, 4), *(120, 121, 122), *(240, 241))
    found = chosen(points, 3, seed=seed)
    assert sorted((np.array([0] * 5 + [1] * 3 + [2] * 2))[found]) == [0, 1, 2]


@pytest.mark.parametrize("seed", range(5))
def test_what_scores_nothing_is_chosen_last(seed: int) -> None:
    points, weights = at(0, 90, 180, 270, 45), np.array([0, 0, 0.5, 0.9, 0])
    assert sorted(chosen(points, 2, weights=weights, seed=seed)) == [2, 3]
    assert sorted(chosen(points, 5, weights=weights, seed=seed)) == [0, 1, 2, 3, 4]


def test_high_scores_are_chosen_more_often() -> None:
    points, weights = at(*np.arange(0, 360, 10)), np.full(36, 0.1)
    weights[::2] = 0.9
    found = [
        one % 2 == 0 for seed in range(10) for one in chosen(points, 5, weights=weights, seed=seed)
    ]
    assert np.mean(found) > 0.75


@pytest.mark.parametrize("seed", range(5))
def test_what_is_like_an_annotated_case_is_not_chosen_first(seed: int) -> None:
    points = at(0, 1, 2, 180)
    found, distances = select_cases(
        points, np.ones(4), np.arange(4), 2, annotated=at(0.5), seed=seed
    )
    assert found[0] == 3
    assert distances[0] == pytest.approx(FARTHEST, abs=0.01)
    assert distances[1] < 0.01


@pytest.mark.parametrize("seed", range(5))
def test_an_outlier_does_not_go_before_a_crowd(seed: int) -> None:
    points = at(*np.linspace(80, 100, 30), 270)
    assert chosen(points, 2, annotated=at(0), seed=seed)[0] != 30


@given(
    st.lists(st.integers(0, 4), min_size=1, max_size=15),
    st.integers(1, 20),
    st.integers(0, 99),
)
def test_one_of_each_group_and_the_same_for_the_same_seed(
    groups: list[int], count: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    points = at(*random.choice([0, 10, 200], len(groups)))  # with duplicates
    weights = random.choice([0.0, 0.4, 1.0], len(groups))
    options = {"weights": weights, "groups": np.array(groups), "seed": seed}
    found = chosen(points, count, **options)
    assert len(found) == min(count, len(set(groups)))
    assert len({groups[one] for one in found}) == len(found)
    assert chosen(points, count, **options) == found

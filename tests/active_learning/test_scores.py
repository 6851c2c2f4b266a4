"""The score is the Dice that the network is expected to lose."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dxseg.active_learning.scores import score_image, soft_dice_confidence
from dxseg.metrics.overlap import dice

NAN = float("nan")


def image(*peaks: float) -> np.ndarray:
    """Probabilities (1, 1, W)."""
    return np.array([[peaks]], np.float32)


def mask(*values: int) -> np.ndarray:
    return np.array([values], np.uint8)


def test_sure_and_right_costs_nothing() -> None:
    found = score_image(image(1, 1, 0), mask(1, 1, 0), 1.0)
    assert (found.uncertainty, found.disagreement, found.score) == (0, 0, 0)
    empty = score_image(image(0, 0, 0), mask(0, 0, 0), 0.0)
    assert (empty.uncertainty, empty.disagreement, empty.score) == (0, 0, 0)


def test_a_known_lesion_that_is_missed_costs_everything() -> None:
    missed = score_image(image(0.1, 0.2, 0), mask(0, 0, 0), 1.0)
    assert (missed.uncertainty, missed.disagreement, missed.score) == (0, 1, 1)


def test_a_mask_where_the_label_head_sees_no_lesion_is_a_disagreement() -> None:
    found = score_image(image(0.9, 0.9, 0.1), mask(1, 1, 0), 0.1)
    assert found.disagreement == pytest.approx(0.9)
    assert found.uncertainty == pytest.approx(1 - 2 * 1.8 / (1.9 + 2))
    assert found.score == pytest.approx(1 - 0.1 * (1 - found.uncertainty))


def test_without_any_label_the_highest_pixel_is_the_lesion_probability() -> None:
    assert score_image(image(0.3, 0.1), mask(0, 0), NAN).score == pytest.approx(0.3)
    drawn = score_image(image(0.8, 0.1), mask(1, 0), NAN)
    assert drawn.disagreement == pytest.approx(0.2)


def test_of_several_classes_the_likeliest_counts() -> None:
    two = np.array([[[0.9, 0.1]], [[0.05, 0.2]]], np.float32)
    one = image(0.9, 0.2)
    assert score_image(two, mask(1, 0), 1.0) == score_image(one, mask(1, 0), 1.0)


def test_blurred_outlines_are_more_uncertain() -> None:
    drawn = mask(1, 1, 0, 0)
    sharp, blurred = image(0.99, 0.99, 0.01, 0.01), image(0.9, 0.6, 0.4, 0.1)
    assert score_image(blurred, drawn, 1.0).score > score_image(sharp, drawn, 1.0).score + 0.2


@given(st.lists(st.floats(0, 1, width=32), min_size=2, max_size=30))
def test_soft_dice_confidence_is_near_the_expected_dice(peaks: list[float]) -> None:
    """Against Dice averaged over truths that are drawn from the probabilities."""
    probabilities = np.array([peaks * 20], np.float32)
    drawn = probabilities >= 0.5
    if not drawn.any():
        return
    random = np.random.default_rng(0)
    truths = (random.random(probabilities.shape) < probabilities for _ in range(50))
    expected = np.mean([dice(truth, drawn) for truth in truths])
    assert soft_dice_confidence(probabilities, drawn) == pytest.approx(expected, abs=0.08)

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import f1_score, jaccard_score

from dxseg.metrics.overlap import dice, iou, mean_dice

SHAPES = st.tuples(st.integers(1, 12), st.integers(1, 12))
PAIRS = SHAPES.flatmap(lambda shape: st.tuples(arrays(bool, shape), arrays(bool, shape)))


def square(top: int, left: int, side: int = 10) -> np.ndarray:
    mask = np.zeros((40, 50), dtype=np.uint8)
    mask[top : top + side, left : left + side] = 1
    return mask


@pytest.mark.parametrize("shift", [0, 1, 5, 10, 20])
def test_shifted_square_has_its_closed_form(shift):
    truth, prediction = square(5, 5), square(5, 5 + shift)
    common = 10 * max(0, 10 - shift)
    assert dice(truth, prediction) == pytest.approx(2 * common / 200)
    assert iou(truth, prediction) == pytest.approx(common / (200 - common))


def test_empty_mask_cells():
    lesion, empty = square(5, 5), np.zeros((40, 50))
    for metric in (dice, iou):
        assert 0 < metric(lesion, square(7, 7)) < 1
        assert metric(lesion, empty) == 0
        assert metric(empty, lesion) == 0
        assert metric(empty, empty) == 1


@given(PAIRS)
def test_agrees_with_scikit_learn(pair):
    truth, prediction = pair
    empty = not truth.any() and not prediction.any()
    flat = truth.ravel(), prediction.ravel()
    expected = (1.0, 1.0) if empty else (f1_score(*flat), jaccard_score(*flat))
    assert (dice(*pair), iou(*pair)) == pytest.approx(expected)


@given(PAIRS)
def test_symmetric_bounded_and_unmoved_by_flips(pair):
    truth, prediction = pair
    for metric in (dice, iou):
        value = metric(truth, prediction)
        assert 0 <= value <= 1
        assert metric(prediction, truth) == value
        assert metric(truth[::-1], prediction[::-1]) == value
        assert metric(truth.T, prediction.T) == value
    assert dice(*pair) == pytest.approx(2 * iou(*pair) / (1 + iou(*pair)))


def test_mask_values_above_one_and_areas_beyond_eight_bits_count_right():
    truth = np.full((300, 300), 255, dtype=np.uint8)
    prediction = truth.copy()
    prediction[150:] = 0
    assert dice(truth, prediction) == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ((4, 3), (3, 4)),
        ((4, 3), (1, 3)),  # numpy would repeat the row
        ((4, 3), (4, 3, 1)),
        ((4, 3, 2, 1), (4, 3, 2, 1)),
        ((12,), (12,)),
        ((0, 4), (0, 4)),
    ],
)
def test_refuses_masks_that_cannot_be_compared(first, second):
    for metric in (dice, iou):
        with pytest.raises(ValueError, match="masks of one non-empty shape"):
            metric(np.zeros(first), np.zeros(second))


def test_absent_classes_do_not_raise_the_mean():
    truth = np.array([[1, 1, 0, 0]], np.uint8)
    assert mean_dice(truth, np.array([[1, 0, 0, 0]], np.uint8), 3) == pytest.approx(2 / 3)
    assert mean_dice(truth, np.array([[1, 1, 2, 0]], np.uint8), 3) == 0.5
    assert mean_dice(0 * truth, 0 * truth, 3) == 1

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dxseg.metrics.lesions import LesionCounts, match_lesions

SHAPES = st.tuples(st.integers(1, 12), st.integers(1, 12))
PAIRS = SHAPES.flatmap(lambda shape: st.tuples(arrays(bool, shape), arrays(bool, shape)))


def boxes(*corners: tuple[int, int, int, int]) -> np.ndarray:
    mask = np.zeros((40, 40), dtype=np.uint8)
    for top, left, height, width in corners:
        mask[top : top + height, left : left + width] = 1
    return mask


def test_one_of_two_lesions_found_beside_a_false_finding():
    counts = match_lesions(boxes((2, 2, 6, 6), (20, 20, 6, 6)), boxes((3, 3, 6, 6), (30, 2, 4, 4)))
    assert counts == LesionCounts(true=2, predicted=2, matched=1)
    assert (counts.sensitivity, counts.precision, counts.f1) == (0.5, 0.5, 0.5)


def test_the_bound_on_overlap_is_exclusive():
    truth, prediction = boxes((0, 0, 1, 10)), boxes((0, 0, 1, 1))
    assert match_lesions(truth, prediction).matched == 0
    assert match_lesions(truth, boxes((0, 0, 1, 2))).matched == 1
    assert match_lesions(truth, prediction, minimum_iou=0.05).matched == 1


def test_the_overlap_that_is_compared_is_that_of_the_union():
    """Nine of ten pixels shifted by one: 9 in common, 11 in all."""
    truth, prediction = boxes((0, 0, 1, 10)), boxes((0, 1, 1, 10))
    for bound, matched in ((9 / 11 - 0.01, 1), (9 / 11 + 0.01, 0)):
        assert match_lesions(truth, prediction, minimum_iou=bound).matched == matched


def test_any_overlap_matches_at_a_bound_of_zero():
    truth, prediction = boxes((0, 0, 10, 10)), boxes((9, 9, 10, 10))
    assert match_lesions(truth, prediction).matched == 0
    assert match_lesions(truth, prediction, minimum_iou=0).matched == 1
    assert match_lesions(truth, boxes((20, 20, 2, 2)), minimum_iou=0).matched == 0


def test_a_finding_over_two_lesions_finds_one():
    counts = match_lesions(boxes((0, 0, 5, 5), (0, 7, 5, 5)), boxes((0, 0, 5, 12)))
    assert counts == LesionCounts(true=2, predicted=1, matched=1)


def test_a_lesion_in_two_pieces_leaves_a_false_finding():
    counts = match_lesions(boxes((0, 0, 5, 12)), boxes((0, 0, 5, 5), (0, 7, 5, 5)))
    assert counts == LesionCounts(true=1, predicted=2, matched=1)


def test_the_matching_is_the_largest_not_the_first_that_fits():
    # The first finding overlaps both lesions, the second only the first lesion: both can match.
    truth = boxes((0, 0, 4, 10), (0, 12, 4, 4))
    prediction = boxes((1, 8, 2, 8), (0, 0, 4, 4))
    prediction[:, 7] = 0
    assert match_lesions(truth, prediction).matched == 2


def test_diagonal_pixels_are_one_lesion():
    assert match_lesions(np.eye(5), np.eye(5)) == LesionCounts(1, 1, 1)


def test_empty_mask_cells():
    lesion, empty = boxes((2, 2, 6, 6)), boxes()
    missed, spurious, nothing = (
        match_lesions(lesion, empty),
        match_lesions(empty, lesion),
        match_lesions(empty, empty),
    )
    assert (missed.sensitivity, missed.f1) == (0, 0)
    assert np.isnan(missed.precision)
    assert (spurious.precision, spurious.f1) == (0, 0)
    assert np.isnan(spurious.sensitivity)
    assert np.isnan([nothing.sensitivity, nothing.precision, nothing.f1]).all()


def test_counts_add_up():
    assert LesionCounts(1, 2, 1) + LesionCounts(3, 5, 2) == LesionCounts(4, 7, 3)


@settings(deadline=None)
@given(PAIRS)
def test_symmetric_bounded_and_unmoved_by_flips(pair):
    truth, prediction = pair
    counts = match_lesions(truth, prediction)
    assert 0 <= counts.matched <= min(counts.true, counts.predicted)
    swapped = match_lesions(prediction, truth)
    assert swapped == LesionCounts(counts.predicted, counts.true, counts.matched)
    assert match_lesions(truth[::-1], prediction[::-1]) == counts
    itself = match_lesions(truth, truth)
    assert itself.matched == itself.true


def test_speckle_of_ten_thousand_components_is_quick():
    generator = np.random.default_rng(0)
    truth, prediction = (generator.random((2, 600, 600)) > 0.9).astype(np.uint8)
    start = time.perf_counter()
    assert match_lesions(truth, prediction).true > 5000
    assert time.perf_counter() - start < 5


@pytest.mark.parametrize("bound", [-0.1, 1.0])
def test_refuses_a_bound_that_is_no_overlap(bound):
    with pytest.raises(ValueError, match="minimum_iou"):
        match_lesions(boxes(), boxes(), minimum_iou=bound)


def test_voxels_that_share_a_corner_are_one_lesion():
    truth = np.zeros((4, 5, 5), dtype=bool)
    truth[0, 1, 1] = truth[1, 2, 2] = truth[3, 4, 4] = True
    assert match_lesions(truth, truth) == LesionCounts(2, 2, 2)
    assert match_lesions(truth[:1], np.zeros((1, 5, 5))) == LesionCounts(1, 0, 0)

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage
from scipy.spatial.distance import cdist
from skimage.metrics import hausdorff_distance

from dxseg.metrics.surface import hd95, image_diagonal, nsd

SHAPES = st.tuples(st.integers(1, 12), st.integers(1, 12))
PAIRS = SHAPES.flatmap(lambda shape: st.tuples(arrays(bool, shape), arrays(bool, shape)))
SPACINGS = st.tuples(*[st.sampled_from([0.1, 0.5, 1.0, 2.5])] * 2)


def disc(radius: float, center: tuple[float, float] = (50, 60)) -> np.ndarray:
    y, x = np.ogrid[:100, :120]
    return (y - center[0]) ** 2 + (x - center[1]) ** 2 <= radius**2


def outline(mask: np.ndarray) -> np.ndarray:
    return np.argwhere(mask & ~ndimage.binary_erosion(mask))


def reference_hd95(truth: np.ndarray, prediction: np.ndarray, spacing) -> float:
    distances = cdist(outline(truth) * spacing, outline(prediction) * spacing)
    return max(np.percentile(distances.min(1), 95), np.percentile(distances.min(0), 95))


def test_empty_mask_cells():
    lesion, empty = disc(20), np.zeros((100, 120), dtype=bool)
    diagonal = np.hypot(100, 120)
    assert hd95(lesion, empty) == pytest.approx(diagonal)
    assert hd95(empty, lesion) == pytest.approx(diagonal)
    assert hd95(lesion, empty, (2, 0.5)) == pytest.approx(np.hypot(200, 60))
    assert hd95(empty, empty) == 0
    assert nsd(lesion, empty) == 0
    assert nsd(empty, lesion) == 0
    assert nsd(empty, empty) == 1


def test_missing_a_lesion_is_never_better_than_drawing_it_in_the_wrong_place():
    lesion, wrong = np.zeros((40, 40), dtype=bool), np.zeros((40, 40), dtype=bool)
    lesion[0, 0] = wrong[39, 39] = True
    assert hd95(lesion, np.zeros_like(lesion)) > hd95(lesion, wrong)


@pytest.mark.parametrize("spacing", [None, (1.0, 1.0), (0.2, 0.7), (3.0, 0.4)])
def test_concentric_discs_are_as_far_apart_as_their_radii(spacing):
    step = spacing or (1.0, 1.0)
    distance = hd95(disc(20), disc(30), spacing)
    assert distance == pytest.approx(reference_hd95(disc(20), disc(30), step), rel=1e-5)
    if step == (1.0, 1.0):
        assert distance == pytest.approx(10, abs=1)


@pytest.mark.parametrize(("axis", "millimeters"), [(0, 1.5), (1, 0.4)])
def test_anisotropic_spacing_counts_along_the_right_axis(axis, millimeters):
    truth = np.zeros((60, 60), dtype=bool)
    truth[20:30, 20:30] = True
    shifted = np.roll(truth, 6, axis)
    assert hd95(truth, shifted, (1.5, 0.4)) == pytest.approx(6 * millimeters)
    assert nsd(truth, shifted, (1.5, 0.4), tolerance=6 * millimeters) == 1
    assert nsd(truth, shifted, (1.5, 0.4), tolerance=0.3) < 0.6


def test_surface_dice_of_a_shifted_square_is_the_share_of_outline_in_reach():
    truth = np.zeros((80, 80), dtype=bool)
    truth[20:60, 20:60] = True
    shifted = np.roll(truth, 10, 1)
    # Of each outline of 160: top and bottom agree over 30 columns and 2 further in reach, and the
    # side inside the other square is in reach for 2 rows below the top and above the bottom.
    assert nsd(truth, shifted, tolerance=2) == pytest.approx((2 * 32 + 2 * 2) / 160, abs=0.02)
    assert nsd(truth, shifted, tolerance=10) == 1


def test_surface_dice_weighs_outline_by_length_where_pixels_are_not_square():
    truth = np.zeros((60, 60), dtype=bool)
    truth[20:40, 20:40] = True
    taller = truth.copy()
    taller[40:50, 20:40] = True  # 10 mm further down; 1 mm columns are 0.1 mm wide
    # In millimeters: truth 20 x 2, prediction 30 x 2; agreed is all but one 2 mm end of the truth
    # and one end with its two 10 mm sides of the prediction.
    expected = (44 - 2 + 64 - 2 - 20) / (44 + 64)
    assert nsd(truth, taller, (1.0, 0.1), tolerance=0.05) == pytest.approx(expected, abs=0.03)


@settings(max_examples=60, deadline=None)
@given(PAIRS, SPACINGS)
def test_agrees_with_a_dense_distance_matrix(pair, spacing):
    truth, prediction = pair
    if truth.any() and prediction.any():
        assert hd95(*pair, spacing) == pytest.approx(reference_hd95(*pair, spacing), abs=1e-4)
        full = hausdorff_distance(*(m & ~ndimage.binary_erosion(m) for m in pair))
        assert hd95(*pair) <= full + 1e-4


@settings(max_examples=60, deadline=None)
@given(PAIRS, SPACINGS)
def test_symmetric_bounded_and_unmoved_by_flips(pair, spacing):
    truth, prediction = pair
    distance, share = hd95(*pair, spacing), nsd(*pair, spacing, tolerance=0.5)
    assert 0 <= distance <= image_diagonal(truth.shape, spacing)
    assert 0 <= share <= 1
    assert hd95(prediction, truth, spacing) == pytest.approx(distance)
    assert nsd(prediction, truth, spacing, tolerance=0.5) == pytest.approx(share, abs=1e-5)
    assert hd95(truth[:, ::-1], prediction[:, ::-1], spacing) == pytest.approx(distance)
    assert nsd(truth[::-1], prediction[::-1], spacing, tolerance=0.5) == pytest.approx(
        share, abs=1e-5
    )
    assert hd95(truth.T, prediction.T, spacing[::-1]) == pytest.approx(distance, rel=1e-5)


@given(arrays(bool, SHAPES))
@settings(max_examples=40, deadline=None)
def test_a_perfect_mask_scores_perfectly_wherever_it_touches_the_border(mask):
    assert hd95(mask, mask) == 0
    assert nsd(mask, mask, tolerance=0) == pytest.approx(1)


def test_a_sliver_of_the_outline_is_outside_the_95th_percentile():
    truth = disc(30)
    speck = truth.copy()
    speck[0, 0] = True
    assert hd95(truth, speck) < 1


def test_raises_no_warning_of_its_libraries():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        hd95(disc(20), disc(22))
        nsd(disc(20), disc(22))


@pytest.mark.parametrize("spacing", [(0, 1), (1, -1), (1, float("nan")), (1, 1, 1)])
def test_refuses_spacing_that_is_no_length(spacing):
    with pytest.raises(ValueError, match="spacing"):
        hd95(disc(5), disc(5), spacing)


def test_refuses_a_negative_tolerance():
    with pytest.raises(ValueError, match="tolerance"):
        nsd(disc(5), disc(5), tolerance=-1)


VOLUMES = st.tuples(*[st.integers(1, 6)] * 3).flatmap(
    lambda shape: st.tuples(arrays(bool, shape), arrays(bool, shape))
)


@settings(max_examples=60, deadline=None)
@given(VOLUMES, st.tuples(*[st.sampled_from([0.5, 1.0, 5.0])] * 3))
def test_surfaces_of_volumes_agree_with_a_dense_distance_matrix(pair, spacing):
    truth, prediction = pair
    distance = hd95(truth, prediction, spacing)
    if truth.any() and prediction.any():
        expected = reference_hd95(truth, prediction, spacing)
        assert distance == pytest.approx(expected, rel=1e-5)
        assert 0 <= nsd(truth, prediction, spacing) <= 1
    else:
        one_empty = truth.any() or prediction.any()
        assert distance == (image_diagonal(truth.shape, spacing) if one_empty else 0)


def test_slices_five_millimeters_apart_count_five_millimeters():
    truth = np.zeros((8, 20, 20), dtype=bool)
    truth[2:5, 5:15, 5:15] = True
    for axis, step in enumerate((5.0, 1.0, 0.5)):
        moved = np.roll(truth, 1, axis)
        assert hd95(truth, moved, (5.0, 1.0, 0.5)) == pytest.approx(step)
        assert nsd(truth, moved, (5.0, 1.0, 0.5), tolerance=step) == 1
    # Without its first slice, a box of three has a face 5 mm away, and a strip of its sides.
    short = truth.copy()
    short[2] = False
    assert hd95(truth, short, (5.0, 1.0, 0.5)) == pytest.approx(5)
    assert nsd(truth, short, (5.0, 1.0, 0.5), tolerance=5) == 1
    assert 0.6 < nsd(truth, short, (5.0, 1.0, 0.5), tolerance=1) < 0.9
    with pytest.raises(ValueError, match="3 positive finite numbers"):
        hd95(truth, short, (1.0, 1.0))

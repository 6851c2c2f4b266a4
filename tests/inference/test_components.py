"""Components of a mask that are removed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dxseg.inference.components import ComponentFilter
from dxseg.inference.model_info import ModelInfo

MASK = np.zeros((20, 20), np.uint8)
MASK[1:5, 1:5] = 1
MASK[8:10, 8:10] = 1
MASK[10, 10] = 1
"""Touches the square before it at a corner."""
MASK[15, 15] = 1
MASK[15, 2:5] = 2


def test_areas_of_each_class_are_compared() -> None:
    expected = MASK.copy()
    expected[15, 15] = 0
    np.testing.assert_array_equal(ComponentFilter(min_area=2).apply(MASK), expected)
    expected[15, 2:5] = 0
    np.testing.assert_array_equal(ComponentFilter(min_area=5).apply(MASK), expected)
    expected[8:11, 8:11] = 0
    np.testing.assert_array_equal(ComponentFilter(min_area=5.1).apply(MASK), expected)


def test_the_largest_of_each_class_stays() -> None:
    kept = ComponentFilter(largest_only=True).apply(MASK)
    assert (np.count_nonzero(kept == 1), np.count_nonzero(kept == 2)) == (16, 3)


def test_areas_are_of_the_networks_input() -> None:
    assert ComponentFilter(min_area=4).apply(MASK, scale=4.0).sum() == 16
    assert (ComponentFilter(min_area=64).apply(MASK, scale=0.25) > 0).sum() == 16


def test_volumes_are_of_known_voxels() -> None:
    chosen = ComponentFilter(by_volume=True, min_volume_mm3=8)
    stack = MASK[None]
    assert (chosen.apply(stack, voxel_mm3=0.5, scale=9.0) > 0).sum() == 16
    assert (chosen.apply(stack, voxel_mm3=2.0) > 0).sum() == 16 + 5
    np.testing.assert_array_equal(chosen.apply(stack), stack)


def test_a_known_lesion_stays() -> None:
    filter_ = ComponentFilter(min_area=100)
    assert not filter_.apply(MASK).any()
    assert np.count_nonzero(filter_.apply(MASK, keep_one_of=[1, 2])) == 16
    assert not filter_.apply(np.zeros_like(MASK), keep_one_of=[1, 2]).any()


def test_an_organ_that_stays_is_no_lesion() -> None:
    """Class 1 is the organ; of class 2 the largest component stays, too."""
    filter_ = ComponentFilter(min_area=4)
    assert set(np.unique(filter_.apply(MASK))) == {0, 1}
    kept = filter_.apply(MASK, keep_one_of=[2])
    assert (np.count_nonzero(kept == 1), np.count_nonzero(kept == 2)) == (21, 3)


def test_more_components_than_two_bytes_can_number() -> None:
    mask = np.zeros((520, 520), np.uint8)
    mask[::2, ::2] = 1
    mask[:2, :2] = 1
    assert np.count_nonzero(mask) - 3 > np.iinfo(np.uint16).max
    np.testing.assert_array_equal(ComponentFilter(min_area=1).apply(mask), mask)
    assert np.argwhere(ComponentFilter(largest_only=True).apply(mask)).max() == 2


@given(arrays(np.uint8, (9, 9), elements=st.integers(0, 2)), st.booleans(), st.floats(0, 20))
def test_nothing_is_added_and_a_second_time_changes_nothing(
    mask: Any, largest_only: bool, min_area: float
) -> None:
    filter_ = ComponentFilter(largest_only=largest_only, min_area=min_area)
    kept = filter_.apply(mask)
    assert np.all((kept == mask) | (kept == 0))
    np.testing.assert_array_equal(filter_.apply(kept), kept)


@pytest.mark.parametrize("size", [32, 96])
def test_the_path_of_every_prediction_removes_them(make_predictor: Any, size: int) -> None:
    image = np.full((size, size, 1), 10, np.uint8)
    image[: size // 2, : size // 2] = 250
    image[-size // 16 :, -size // 16 :] = 250
    predictor = make_predictor(size=32)
    [whole] = predictor.predict([image])
    # 4 pixels of the network's input, whatever the size of the image.
    info: ModelInfo = predictor.info.model_copy(update={"components": ComponentFilter(min_area=5)})
    predictor._pipeline.info = info
    [kept] = predictor.predict([image])
    removed = (whole.mask > 0) & (kept.mask == 0)
    assert removed[-1, -1]
    assert not removed[: size // 2 + 2, : size // 2 + 2].any()
    np.testing.assert_array_equal(kept.probabilities, whole.probabilities)

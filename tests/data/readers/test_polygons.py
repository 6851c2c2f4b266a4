"""Polygons filled by the even-odd rule at the centers of pixels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dxseg.data.readers.polygons import inside_polygon, max_distance
from dxseg.errors import DxsegError


@given(
    st.floats(20, 60), st.floats(20, 60), st.floats(8, 19), st.integers(3, 40), st.floats(0, 6.3)
)
def test_a_regular_polygon_has_its_area(
    x: float, y: float, radius: float, corners: int, turn: float
) -> None:
    angles = turn + np.arange(corners) * 2 * np.pi / corners
    polygon = np.stack([x + radius * np.cos(angles), y + radius * np.sin(angles)], axis=1)
    area = corners / 2 * radius**2 * np.sin(2 * np.pi / corners)
    # Pixels that the edge crosses may fall either way; there are at most that many of them.
    perimeter = 2 * corners * radius * np.sin(np.pi / corners)
    assert abs(inside_polygon(polygon, 80, 80).sum() - area) <= perimeter


def test_the_parity_of_crossings_decides() -> None:
    star = np.array([[10 + 9 * np.sin(a), 10 - 9 * np.cos(a)] for a in np.arange(5) * 0.8 * np.pi])
    inside = inside_polygon(star, 21, 21)
    assert not inside[10, 10], "the middle of a pentagram is crossed twice"
    assert inside[4, 10]
    outside = np.array([[-30, -30], [-20, -30], [-20, -20.0]])
    assert not inside_polygon(outside, 21, 21).any()


@given(st.lists(st.tuples(st.floats(-5, 25), st.floats(-5, 25)), min_size=1, max_size=9))
def test_each_pixel_is_inside_by_the_crossings_to_its_left(
    corners: list[tuple[float, float]],
) -> None:
    inside = inside_polygon(np.array(corners), 20, 18)
    for row, column in ((0, 0), (7, 11), (19, 17), (12, 3)):
        crossings = 0
        for (x0, y0), (x1, y1) in zip(corners, [*corners[1:], corners[0]], strict=True):
            if (y0 <= row) != (y1 <= row):
                crossings += x0 + (row - y0) * (x1 - x0) / (y1 - y0) <= column
        assert inside[row, column] == crossings % 2


@pytest.mark.parametrize("corner", [np.nan, np.inf, -np.inf, 1e300, 1e9])
def test_corners_that_are_nowhere_are_refused(corner: float) -> None:
    with pytest.raises(DxsegError, match="not finite, or millions of pixels away"):
        inside_polygon(np.array([[0, 0], [corner, 3], [4, 4.0]]), 8, 8)


def test_a_polygon_without_end_is_refused_before_it_is_filled() -> None:
    zigzag = np.stack([np.arange(20_000.0), 4000.0 * (np.arange(20_000) % 2)], axis=1)
    with pytest.raises(DxsegError, match="simplify it"):
        inside_polygon(zigzag, 4000, 4000)


def test_distances_from_an_outline() -> None:
    square = np.array([[0, 0], [4, 0], [4, 4], [0, 4.0]])
    points = np.array([[2, 0], [2, 1.5], [7, 8.0]])
    assert max_distance(points[:1], square) == 0
    assert max_distance(points[:2], square) == 1.5
    assert max_distance(points, square) == 5

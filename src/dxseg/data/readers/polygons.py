"""Polygons filled on the grid of an image.

Own code, because the rule for the edge decides which pixels are lesion: a pixel is inside if its
center is, by the even-odd rule. Pillow and scikit-image round corners or include the border.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dxseg.errors import DxsegError

Polygon = npt.NDArray[np.float64]
"""(N, 2) corners (column, row); whole numbers are centers of pixels."""

_CROSSING_LIMIT = 2**24
_FARTHEST = 2.0**24


def inside_polygon(polygon: Polygon, height: int, width: int) -> npt.NDArray[np.bool_]:
    """Find the pixels whose center a closed polygon encloses, by the even-odd rule.

    Args:
        polygon: At least one corner; those outside the image are allowed.
        height: In pixels.
        width: In pixels.

    Returns:
        (height, width).

    Raises:
        DxsegError: A corner is not finite or absurdly far away, or the polygon is so intricate
            that filling it would take unbounded time.
    """
    if not (np.abs(polygon) < _FARTHEST).all():
        raise DxsegError("a polygon has corners that are not finite, or millions of pixels away")
    (x0, y0), (x1, y1) = polygon.T, np.roll(polygon, -1, axis=0).T
    # Half-open, so that a corner on a row counts once.
    first = np.ceil(np.minimum(y0, y1)).clip(0, height).astype(np.int64)
    crossed = np.ceil(np.maximum(y0, y1)).clip(0, height).astype(np.int64) - first
    total = int(crossed.sum())
    if total > _CROSSING_LIMIT:
        raise DxsegError(
            f"a polygon of {len(polygon)} corners crosses rows {total} times; expected at most "
            f"{_CROSSING_LIMIT}; simplify it"
        )
    edge = np.repeat(np.arange(len(polygon)), crossed)
    row = first[edge] + np.arange(total) - np.repeat(crossed.cumsum() - crossed, crossed)
    at = x0[edge] + (row - y0[edge]) * (x1[edge] - x0[edge]) / (y1[edge] - y0[edge])
    column = np.ceil(at).clip(0, width).astype(np.int64)
    inside = np.zeros((height, width), np.bool_)
    if total:
        # Only the rows of the polygon: an image may have many small ones.
        top, rows = int(row.min()), int(row.max() - row.min()) + 1
        flips = np.bincount((row - top) * (width + 1) + column, minlength=rows * (width + 1))
        crossings = flips.reshape(rows, width + 1).cumsum(axis=1)[:, :width]
        inside[top : top + rows] = crossings % 2 == 1
    return inside


def max_distance(points: Polygon, polygon: Polygon) -> float:
    """Maximum distance of points from the outline of a polygon, in pixels.

    Args:
        points: (N, 2).
        polygon: (M, 2); time and memory grow with N x M.
    """
    start, along = polygon, np.roll(polygon, -1, axis=0) - polygon
    length = np.maximum((along**2).sum(axis=1), np.finfo(np.float64).tiny)
    offset = points[:, None] - start
    part = ((offset * along).sum(axis=2) / length).clip(0, 1)
    nearest = np.linalg.norm(offset - part[:, :, None] * along, axis=2).min(axis=1)
    return float(nearest.max())

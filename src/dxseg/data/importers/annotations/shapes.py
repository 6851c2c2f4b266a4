"""Annotated images, and shapes that know how to fill themselves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dxseg.data.exporters.coco_rle import decode_runs
from dxseg.data.importers.report import LeftOut
from dxseg.data.readers.polygons import Polygon, inside_polygon
from dxseg.errors import DxsegError

Fill = Callable[[int, int], NDArray[np.bool_]]
"""Fills (H, W) of a height and width."""

BOX, LINE, POINT = "boxes", "lines", "points"
UNREADABLE = "unreadable shapes"


@dataclass(frozen=True)
class Shape:
    """A shape on an image.

    Attributes:
        label: Its label in the annotation tool; "" if it has none.
        fill: Fills its pixels; None if it is no region, such as a box around one.
        kind: What it is, if it is no region; in the plural.
    """

    label: str
    fill: Fill | None
    kind: str = ""


@dataclass
class AnnotatedImage:
    """An image in a file of annotations.

    Attributes:
        name: Its path or name there, with "/".
        source: The file of annotations.
        size: Height and width that it had when it was annotated; None if unknown.
        shapes: Its shapes.
    """

    name: str
    source: Path
    size: tuple[int, int] | None = None
    shapes: list[Shape] = field(default_factory=list)


@dataclass
class Annotations:
    """The content of files of annotations.

    Attributes:
        images: The images.
        skipped: Files and entries left out, and why.
        notes: Lines of the report.
    """

    images: list[AnnotatedImage] = field(default_factory=list)
    skipped: LeftOut = field(default_factory=LeftOut)
    notes: list[str] = field(default_factory=list)


def polygon_shape(
    label: str, polygons: Sequence[Sequence[Sequence[float]]], *, relative: bool = False
) -> Shape:
    """Make a shape of the union of polygons.

    Args:
        label: Its label.
        polygons: Corners (x, y) from the upper left corner of the image; three or more each.
        relative: Whether they are fractions of the image's width and height, not pixels.
    """
    corners = [np.asarray(polygon, np.float64).reshape(-1, 2) for polygon in polygons]
    if not corners or min(map(len, corners)) < 3:
        return Shape(label, None, UNREADABLE)
    return Shape(label, partial(_fill_polygons, corners, relative))


def ellipse_shape(
    label: str,
    center: tuple[float, float],
    radii: tuple[float, float],
    angle: float = 0.0,
    *,
    relative: bool = False,
) -> Shape:
    """Make a shape of an ellipse.

    Args:
        label: Its label.
        center: x and y.
        radii: Along x and y, before it is turned.
        angle: By which it is turned clockwise, radians.
        relative: Whether lengths are fractions of the image's width and height, not pixels.
    """
    if min(radii) <= 0 or not np.isfinite([*center, *radii, angle]).all():
        return Shape(label, None, UNREADABLE)
    return Shape(label, partial(_fill_ellipse, center, radii, angle, relative))


def runs_shape(label: str, counts: str | Sequence[int], size: tuple[int, int]) -> Shape:
    """Make a shape of COCO's run lengths.

    Args:
        label: Its label.
        counts: Run lengths, or their text.
        size: Height and width that they are for.
    """

    def fill(height: int, width: int) -> NDArray[np.bool_]:
        if size != (height, width):
            raise DxsegError(f"run lengths for {size} pixels; expected {(height, width)}")
        return decode_runs(counts, height, width)

    return Shape(label, fill)


def _fill_polygons(
    polygons: Sequence[Polygon], relative: bool, height: int, width: int
) -> NDArray[np.bool_]:
    filled = np.zeros((height, width), np.bool_)
    scale = np.array([width, height]) if relative else 1.0
    for polygon in polygons:
        # Tools count from the edge of the first pixel, its center is at one half.
        filled |= inside_polygon(polygon * scale - 0.5, height, width)
    return filled


def _fill_ellipse(
    center: tuple[float, float],
    radii: tuple[float, float],
    angle: float,
    relative: bool,
    height: int,
    width: int,
) -> NDArray[np.bool_]:
    scale_x, scale_y = (width, height) if relative else (1, 1)
    x = np.arange(width) + 0.5 - center[0] * scale_x
    y = np.arange(height)[:, None] + 0.5 - center[1] * scale_y
    along = (x * np.cos(angle) + y * np.sin(angle)) / (radii[0] * scale_x)
    across = (y * np.cos(angle) - x * np.sin(angle)) / (radii[1] * scale_y)
    inside: NDArray[np.bool_] = along**2 + across**2 <= 1
    return inside

"""LabelMe: one JSON file per image."""

from __future__ import annotations

from math import dist
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from dxseg.data.importers.annotations.shapes import (
    BOX,
    LINE,
    POINT,
    UNREADABLE,
    AnnotatedImage,
    Annotations,
    Shape,
    ellipse_shape,
    polygon_shape,
)

_KINDS = {"rectangle": BOX, "line": LINE, "linestrip": LINE, "point": POINT, "points": POINT}


class _Shape(BaseModel):
    model_config = ConfigDict(coerce_numbers_to_str=True)

    label: str = ""
    points: list[tuple[float, float]]
    shape_type: str = "polygon"


class _File(BaseModel):
    imagePath: str  # noqa: N815 - the names of the format
    imageHeight: int | None = None  # noqa: N815
    imageWidth: int | None = None  # noqa: N815
    shapes: list[dict[str, Any]]


def read_labelme(content: dict[str, Any], source: Path) -> Annotations:
    """Read polygons and circles; masks stored as PNG within the JSON are not read.

    Args:
        content: The JSON file.
        source: The file.

    Raises:
        ValidationError: It is damaged.
    """
    file = _File.model_validate(content)
    size = (file.imageHeight, file.imageWidth) if file.imageHeight and file.imageWidth else None
    shapes = [_shape(item) for item in file.shapes]
    return Annotations([AnnotatedImage(file.imagePath, source, size, shapes)])


def _shape(item: dict[str, Any]) -> Shape:
    try:
        shape = _Shape.model_validate(item)
    except ValidationError:
        return Shape(str(item.get("label", "")), None, UNREADABLE)
    if shape.shape_type == "polygon":
        return polygon_shape(shape.label, [shape.points])
    if shape.shape_type == "circle" and len(shape.points) == 2:
        radius = dist(*shape.points)
        return ellipse_shape(shape.label, shape.points[0], (radius, radius))
    return Shape(shape.label, None, _KINDS.get(shape.shape_type, UNREADABLE))

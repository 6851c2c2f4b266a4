"""VGG Image Annotator (VIA), projects and exported annotations of versions 1 and 2, as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

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

_KINDS = {"rect": BOX, "polyline": LINE, "point": POINT}


class _Place(BaseModel):
    name: str
    all_points_x: list[float] = []
    all_points_y: list[float] = []
    cx: float = 0
    cy: float = 0
    r: float = 0
    rx: float = 0
    ry: float = 0
    theta: float = 0


class _Region(BaseModel):
    shape_attributes: _Place
    region_attributes: dict[str, Any] = {}


class _Entry(BaseModel):
    filename: str
    regions: list[Any] | dict[str, Any] = []


def read_via(content: dict[str, Any], source: Path) -> Annotations:
    """Read polygons, circles and ellipses; the label is the first attribute of a region.

    Args:
        content: The JSON file.
        source: The file.

    Raises:
        ValidationError: An image is damaged.
    """
    found = Annotations()
    for item in content.get("_via_img_metadata", content).values():
        entry = _Entry.model_validate(item)
        regions = entry.regions.values() if isinstance(entry.regions, dict) else entry.regions
        shapes = [_shape(region) for region in regions]
        found.images.append(AnnotatedImage(entry.filename, source, None, shapes))
    return found


def _shape(item: Any) -> Shape:
    try:
        region = _Region.model_validate(item)
    except ValidationError:
        return Shape("", None, UNREADABLE)
    place, label = region.shape_attributes, _label(region.region_attributes)
    if place.name == "polygon" and len(place.all_points_x) == len(place.all_points_y):
        points = list(zip(place.all_points_x, place.all_points_y, strict=True))
        return polygon_shape(label, [points])
    if place.name == "circle":
        return ellipse_shape(label, (place.cx, place.cy), (place.r, place.r))
    if place.name == "ellipse":
        return ellipse_shape(label, (place.cx, place.cy), (place.rx, place.ry), place.theta)
    return Shape(label, None, _KINDS.get(place.name, UNREADABLE))


def _label(attributes: dict[str, Any]) -> str:
    for value in attributes.values():
        # Check boxes are an object of names and true or false.
        names = [name for name, on in value.items() if on] if isinstance(value, dict) else [value]
        if names and str(names[0]).strip():
            return str(names[0]).strip()
    return ""

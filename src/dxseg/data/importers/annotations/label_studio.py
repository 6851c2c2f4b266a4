"""Label Studio: polygons, ellipses and brush masks of a JSON export."""

from __future__ import annotations

from math import radians
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError

from dxseg.data.exporters.brush_rle import decode_brush
from dxseg.data.importers.annotations.shapes import (
    BOX,
    POINT,
    UNREADABLE,
    AnnotatedImage,
    Annotations,
    Shape,
    ellipse_shape,
    polygon_shape,
)

_ABOUT_THE_IMAGE = ("choices", "textarea", "rating", "number", "taxonomy")
_KINDS = {"rectanglelabels": BOX, "rectangle": BOX, "keypointlabels": POINT, "keypoint": POINT}


class _Value(BaseModel):
    points: list[tuple[float, float]] = []
    x: float = 0
    y: float = 0
    radiusX: float = 0  # noqa: N815 - the names of the format
    radiusY: float = 0  # noqa: N815
    rotation: float = 0
    rle: list[int] = []
    polygonlabels: list[str] = []
    ellipselabels: list[str] = []
    brushlabels: list[str] = []
    rectanglelabels: list[str] = []
    keypointlabels: list[str] = []

    @property
    def label(self) -> str:
        lists = (
            self.polygonlabels,
            self.ellipselabels,
            self.brushlabels,
            self.rectanglelabels,
            self.keypointlabels,
        )
        return next((names[0] for names in lists if names), "")


class _Region(BaseModel):
    type: str = ""
    original_width: int = 0
    original_height: int = 0
    value: _Value = _Value()


class _Annotation(BaseModel):
    was_cancelled: bool = False
    updated_at: str = ""
    result: list[Any] = []


class _Task(BaseModel):
    data: dict[str, Any]
    annotations: list[_Annotation]


def read_label_studio(content: list[Any], source: Path) -> Annotations:
    """Read the tasks of an export; the last annotation of a task counts, skipped ones do not.

    Args:
        content: The JSON file.
        source: The file.

    Raises:
        ValidationError: A task is damaged.
    """
    found = Annotations()
    several = 0
    for item in content:
        task = _Task.model_validate(item)
        given = [one for one in task.annotations if not one.was_cancelled]
        name = next((str(v) for v in task.data.values() if isinstance(v, str) and "." in v), "")
        if not given:
            found.skipped.append((name or str(source), "a task that is not annotated"))
            continue
        several += len(given) > 1
        last = max(given, key=lambda one: one.updated_at)
        image = AnnotatedImage(_file_name(name), source)
        for region in last.result:
            _add(region, image)
        found.images.append(image)
    if several:
        found.notes.append(f"{several} tasks have several annotations; the last one is used")
    return found


def _add(item: Any, image: AnnotatedImage) -> None:
    try:
        region = _Region.model_validate(item)
    except ValidationError:
        image.shapes.append(Shape("", None, UNREADABLE))
        return
    if region.type in _ABOUT_THE_IMAGE:
        return
    if region.original_height and region.original_width:
        image.size = region.original_height, region.original_width
    image.shapes.append(_shape(region))


def _shape(region: _Region) -> Shape:
    value = region.value
    if region.type in ("polygonlabels", "polygon"):
        points = [(x / 100, y / 100) for x, y in value.points]
        return polygon_shape(value.label, [points], relative=True)
    if region.type in ("ellipselabels", "ellipse") and not value.rotation:
        center, radii = (value.x / 100, value.y / 100), (value.radiusX / 100, value.radiusY / 100)
        return ellipse_shape(value.label, center, radii, relative=True)
    if region.type in ("ellipselabels", "ellipse"):
        # A turned ellipse needs pixels: percents of width and height differ.
        width, height = region.original_width / 100, region.original_height / 100
        center, radii = (
            (value.x * width, value.y * height),
            (value.radiusX * width, value.radiusY * height),
        )
        return ellipse_shape(value.label, center, radii, radians(value.rotation))
    if region.type in ("brushlabels", "brush"):

        def fill(height: int, width: int) -> NDArray[np.bool_]:
            return decode_brush(value.rle, height, width)

        return Shape(value.label, fill)
    return Shape(value.label, None, _KINDS.get(region.type, UNREADABLE))


def _file_name(address: str) -> str:
    """The file of a task: `/data/local-files/?d=a/b.png`, an upload, or any address."""
    parts = urlsplit(address)
    local = parse_qs(parts.query).get("d")
    return local[0] if local else PurePosixPath(unquote(parts.path)).name

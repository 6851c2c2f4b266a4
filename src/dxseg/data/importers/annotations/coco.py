"""COCO: images, annotations and categories in one JSON file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from dxseg.data.importers.annotations.shapes import (
    BOX,
    UNREADABLE,
    AnnotatedImage,
    Annotations,
    Shape,
    polygon_shape,
    runs_shape,
)

_Id = int | str


class _Image(BaseModel):
    id: _Id
    file_name: str
    height: int | None = None
    width: int | None = None


class _Category(BaseModel):
    model_config = ConfigDict(coerce_numbers_to_str=True)

    id: _Id
    name: str


class _Runs(BaseModel):
    size: tuple[int, int]
    counts: str | list[int]


class _Annotation(BaseModel):
    image_id: _Id
    category_id: _Id | None = None
    segmentation: _Runs | list[list[float]] | list[float] | None = None


def read_coco(content: dict[str, Any], source: Path) -> Annotations:
    """Read polygons and run lengths, of crowds too; annotations of a box alone stay boxes.

    Args:
        content: The JSON file.
        source: The file.

    Raises:
        ValidationError: Images or categories are damaged.
    """
    found = Annotations()
    categories = [_Category.model_validate(item) for item in content.get("categories") or ()]
    names = {category.id: category.name for category in categories}
    images: dict[_Id, AnnotatedImage] = {}
    for item in content["images"]:
        image = _Image.model_validate(item)
        size = (image.height, image.width) if image.height and image.width else None
        images[image.id] = AnnotatedImage(image.file_name, source, size)
    unlisted = 0
    for item in content["annotations"]:
        owner = images.get(_id(item, "image_id")) if isinstance(item, dict) else None
        if owner is None:
            unlisted += 1
        else:
            owner.shapes.append(_shape(item, names))
    found.images.extend(images.values())
    unnamed = sorted(
        {shape.label for image in images.values() for shape in image.shapes} - set(names.values())
    )
    if any(unnamed):
        found.notes.append(f"categories that the file does not list: {', '.join(unnamed[:20])}")
    if unlisted:
        found.skipped.append((str(source), f"{unlisted} annotations of images that are not listed"))
    return found


def _id(item: dict[str, Any], key: str) -> _Id:
    value = item.get(key)
    return value if isinstance(value, (int, str)) else ""


def _shape(item: dict[str, Any], names: dict[_Id, str]) -> Shape:
    category = _id(item, "category_id")
    label = names.get(category, f"category {category}" if category != "" else "")
    try:
        drawn = _Annotation.model_validate(item).segmentation
    except ValidationError:
        return Shape(label, None, UNREADABLE)
    if isinstance(drawn, _Runs):
        return runs_shape(label, drawn.counts, drawn.size)
    if not drawn:
        return Shape(label, None, BOX)
    # A single polygon is often written without the list around it.
    nested = [part for part in drawn if isinstance(part, list)]
    polygons = nested or [[part for part in drawn if isinstance(part, float)]]
    if any(len(polygon) % 2 for polygon in polygons):
        return Shape(label, None, UNREADABLE)
    pairs = [list(zip(part[::2], part[1::2], strict=True)) for part in polygons]
    return polygon_shape(label, pairs)

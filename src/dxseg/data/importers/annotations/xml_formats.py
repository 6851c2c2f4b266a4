"""CVAT for images 1.1, and Pascal VOC with polygons, as XML."""

from __future__ import annotations

from functools import partial
from math import radians
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
from dxseg.errors import DxsegError, UsageError

_BYTES = 2**28
_CVAT_KINDS = {"box": BOX, "polyline": LINE, "points": POINT, "cuboid": BOX, "skeleton": POINT}


def read_xml(source: Path) -> Annotations:
    """Read an XML file of CVAT or in the layout of Pascal VOC.

    Args:
        source: The file. Entities, which may expand without end or name other files, are refused.

    Raises:
        UsageError: defusedxml is not installed.
        DxsegError: It is neither, damaged, too large or of video.
    """
    try:
        from defusedxml.ElementTree import parse
    except ModuleNotFoundError as error:
        raise UsageError(
            "XML needs defusedxml, which is not installed; pip install 'dxseg[annotations]'"
        ) from error
    try:
        if source.stat().st_size > _BYTES:
            raise DxsegError(f"{source}: larger than {_BYTES} bytes; export fewer images at a time")
        root = parse(source).getroot()
    except OSError as error:
        raise DxsegError(f"{source}: cannot be read ({error.strerror})") from error
    except (ValueError, SyntaxError, RecursionError, LookupError) as error:
        # defusedxml's own errors are ValueErrors, those of the parser SyntaxErrors.
        raise DxsegError(
            f"{source}: damaged or hostile XML ({type(error).__name__}); export it again"
        ) from None
    if root.tag == "annotations":
        return _read_cvat(root, source)
    if root.tag == "annotation":
        return _read_voc(root, source)
    raise DxsegError(
        f"{source}: XML of <{root.tag[:40]}>; expected <annotations> of CVAT or <annotation> of "
        "Pascal VOC; export it as one of these"
    )


def _read_cvat(root: Any, source: Path) -> Annotations:
    if root.find("track") is not None:
        raise DxsegError(f"{source}: tracks of a video; expected 'CVAT for images'; export as that")
    found = Annotations()
    for item in root.iter("image"):
        size = _whole(item.get("height")), _whole(item.get("width"))
        shapes = [_cvat_shape(part) for part in item if part.tag != "tag"]
        known = size if min(size) > 0 else None
        found.images.append(AnnotatedImage(item.get("name", ""), source, known, shapes))
    return found


def _cvat_shape(part: Any) -> Shape:
    label = part.get("label", "")
    try:
        if part.tag == "polygon":
            pairs = [point.split(",") for point in part.get("points").split(";")]
            return polygon_shape(label, [[(float(x), float(y)) for x, y in pairs]])
        if part.tag == "ellipse":
            cx, cy, rx, ry = (float(part.get(name)) for name in ("cx", "cy", "rx", "ry"))
            return ellipse_shape(label, (cx, cy), (rx, ry), radians(float(part.get("rotation", 0))))
        if part.tag == "mask":
            box = [int(part.get(name)) for name in ("left", "top", "width", "height")]
            runs = [int(run) for run in part.get("rle").split(",")]
            return Shape(label, partial(_fill_cvat_mask, runs, *box))
    except (ValueError, TypeError, AttributeError):
        return Shape(label, None, UNREADABLE)
    return Shape(label, None, _CVAT_KINDS.get(part.tag, UNREADABLE))


def _fill_cvat_mask(
    runs: list[int],
    left: int,
    top: int,
    box_width: int,
    box_height: int,
    height: int,
    width: int,
) -> NDArray[np.bool_]:
    """Fill a mask of CVAT: runs of 0 and 1 in turn, row by row, within a box."""
    inside = 0 <= left <= left + box_width <= width and 0 <= top <= top + box_height <= height
    if not inside or min(runs) < 0 or sum(runs) != box_width * box_height:
        raise DxsegError("run lengths that do not fill their box within the image")
    filled = np.zeros((height, width), np.bool_)
    box = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(box_height, box_width)
    filled[top : top + box_height, left : left + box_width] = box
    return filled


def _read_voc(root: Any, source: Path) -> Annotations:
    size = _whole(root.findtext("size/height")), _whole(root.findtext("size/width"))
    image = AnnotatedImage(
        root.findtext("filename", "").strip(), source, size if min(size) > 0 else None
    )
    # The old LabelMe, with the same root, marks objects as deleted.
    image.shapes.extend(
        _voc_shape(item) for item in root.iter("object") if item.findtext("deleted") != "1"
    )
    return Annotations([image])


def _voc_shape(item: Any) -> Shape:
    label = item.findtext("name", "").strip()
    polygon = item.find("polygon")
    if polygon is None:
        return Shape(label, None, BOX if item.find("bndbox") is not None else UNREADABLE)
    points = polygon.findall("pt")
    try:
        if points:
            pairs = [(float(point.findtext("x")), float(point.findtext("y"))) for point in points]
        else:
            values = {part.tag: float(part.text) for part in polygon if part.tag[:1] in "xy"}
            count = sum(tag.startswith("x") for tag in values)
            pairs = [(values[f"x{n}"], values[f"y{n}"]) for n in range(1, count + 1)]
    except (ValueError, TypeError, KeyError):
        return Shape(label, None, UNREADABLE)
    return polygon_shape(label, [pairs])


def _whole(text: str | None) -> int:
    return int(text) if text and text.strip().isdecimal() and len(text) < 10 else 0

"""YOLO: one text file per image, with classes in data.yaml or classes.txt."""

from __future__ import annotations

from pathlib import Path

from dxseg.data.importers.annotations.shapes import (
    BOX,
    UNREADABLE,
    AnnotatedImage,
    Annotations,
    Shape,
    polygon_shape,
)
from dxseg.errors import DxsegError
from dxseg.io.yaml import parse_yaml, read_small_text

CLASS_FILES = ("classes.txt", "obj.names", "names.txt")
SPECS = ("data.yaml", "dataset.yaml")
_BYTES = 2**26
_BOX_VALUES = 5


def read_yolo(folder: Path, files: list[Path]) -> Annotations:
    """Read polygons, of which a line is a class and fractions of width and height.

    An image is found beside its text file, or in `images` where that is in `labels`.

    Args:
        folder: The folder.
        files: Its text files that are no lists of classes.

    Raises:
        DxsegError: The list of classes is damaged.
    """
    names = _class_names(folder)
    found = Annotations()
    for path in files:
        try:
            if path.stat().st_size > _BYTES:
                raise ValueError
            lines = path.read_text("utf-8").splitlines()
        except (OSError, ValueError):
            found.skipped.append((str(path), "no readable text; expected lines of a class and x y"))
            continue
        parts = list(path.relative_to(folder).with_suffix("").parts)
        if "labels" in parts[:-1]:
            last = len(parts) - 2 - parts[-2::-1].index("labels")
            parts[last] = "images"
        shapes = [_shape(line.split(), names) for line in lines if line.strip()]
        found.images.append(AnnotatedImage("/".join(parts), path, None, shapes))
    labels = {shape.label for image in found.images for shape in image.shapes}
    unnamed = sorted(labels - set(names.values()) - {""})
    if names and unnamed:
        found.notes.append(f"classes that the list does not name: {', '.join(unnamed[:20])}")
    return found


def _shape(values: list[str], names: dict[int, str]) -> Shape:
    try:
        number, numbers = int(values[0]), [float(value) for value in values[1:]]
    except ValueError:
        return Shape("", None, UNREADABLE)
    label = names.get(number, f"class {number}")
    if len(values) == _BOX_VALUES:
        return Shape(label, None, BOX)
    if len(numbers) % 2:
        return Shape(label, None, UNREADABLE)
    points = list(zip(numbers[::2], numbers[1::2], strict=True))
    return polygon_shape(label, [points], relative=True)


def _class_names(folder: Path) -> dict[int, str]:
    for name in SPECS:
        if (folder / name).is_file():
            path = folder / name
            content = parse_yaml(read_small_text(path, "the classes of YOLO"), str(path))
            try:
                names = content["names"]
                pairs = names.items() if isinstance(names, dict) else enumerate(names)
                return {int(number): str(name) for number, name in pairs}
            except (ValueError, TypeError, LookupError, AttributeError) as error:
                raise DxsegError(f"{path}: names: expected a list of the classes") from error
    for name in CLASS_FILES:
        for path in (folder / name, folder / "labels" / name):
            if path.is_file():
                lines = path.read_text("utf-8", errors="replace").splitlines()
                return dict(enumerate(line.strip() for line in lines))
    return {}

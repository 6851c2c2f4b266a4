"""Finding files of annotations and the reader of each, by content."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from dxseg.data.importers.annotations.coco import read_coco
from dxseg.data.importers.annotations.label_studio import read_label_studio
from dxseg.data.importers.annotations.labelme import read_labelme
from dxseg.data.importers.annotations.shapes import Annotations
from dxseg.data.importers.annotations.via import read_via
from dxseg.data.importers.annotations.xml_formats import read_xml
from dxseg.data.importers.annotations.yolo import CLASS_FILES, read_yolo
from dxseg.data.importers.names import natural_key
from dxseg.errors import DxsegError, UsageError
from dxseg.io.json_io import read_json

FORMATS = "COCO, LabelMe, VIA or Label Studio (JSON), CVAT or Pascal VOC (XML), YOLO (folder)"


def read_annotations(source: Path) -> Annotations:
    """Read a file of annotations, or all of a folder.

    Args:
        source: A JSON or XML file, or a folder of such files or of YOLO's text files.

    Raises:
        UsageError: There is nothing to read, or a package is not installed.
        DxsegError: The file is damaged or of another format; in a folder that file is left out.
    """
    if source.is_file():
        return _read_file(source)
    if not source.is_dir():
        raise DxsegError(f"{source}: no such file or folder; expected {FORMATS}")
    files = _files(source)
    documents = [path for path in files if path.suffix.lower() in (".json", ".xml")]
    texts = [
        path for path in files if path.suffix.lower() == ".txt" and path.name not in CLASS_FILES
    ]
    found = Annotations()
    for path in documents:
        try:
            _extend(found, _read_file(path))
        except UsageError:
            raise
        except DxsegError as error:
            found.skipped.append((str(path), str(error).removeprefix(f"{path}: ")))
    if not found.images and texts:
        _extend(found, read_yolo(source, texts))
    if not found.images:
        first = "".join(f"; first reason: {reason}" for _, reason in found.skipped[:1])
        raise UsageError(f"{source}: no annotations there{first}; expected {FORMATS}")
    return found


def _read_file(path: Path) -> Annotations:
    suffix = path.suffix.lower()
    if suffix == ".xml":
        return read_xml(path)
    if suffix != ".json":
        raise DxsegError(f"{path}: unknown type {suffix or 'without a suffix'}; expected {FORMATS}")
    content = read_json(path, "export it again")
    try:
        return _read_content(content, path)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise DxsegError(f"{path}: {place}: {first['msg']}; export it again") from error


def _read_content(content: Any, path: Path) -> Annotations:
    if isinstance(content, list) and content and all(isinstance(one, dict) for one in content):
        if "data" in content[0]:
            return read_label_studio(content, path)
    elif isinstance(content, dict):
        if all(isinstance(content.get(key), list) for key in ("images", "annotations")):
            return read_coco(content, path)
        if "shapes" in content and "imagePath" in content:
            return read_labelme(content, path)
        entries = content.get("_via_img_metadata", content)
        if isinstance(entries, dict) and entries and all(map(_is_via, entries.values())):
            return read_via(content, path)
    raise DxsegError(f"{path}: JSON of an unknown format; expected {FORMATS}; export it as one")


def _is_via(entry: object) -> bool:
    return isinstance(entry, dict) and "filename" in entry and "regions" in entry


def _files(folder: Path) -> list[Path]:
    found = []
    for base, folders, names in os.walk(folder):
        folders[:] = sorted((name for name in folders if not name.startswith(".")), key=natural_key)
        found += [
            Path(base, name) for name in sorted(names, key=natural_key) if not name.startswith(".")
        ]
    return found


def _extend(found: Annotations, more: Annotations) -> None:
    found.images += more.images
    found.skipped.extend(more.skipped)
    found.notes += more.notes

"""Which importer fits a folder, and what it would find there; only names and headers are read."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from dxseg.data.exporters.nnunet_format import DESCRIPTION_FILE
from dxseg.data.importers.annotations.read import read_annotations
from dxseg.data.importers.busi import LABELS as BUSI_LABELS
from dxseg.data.importers.folder import find_in_folders
from dxseg.data.importers.mask_owner import MaskNaming
from dxseg.data.importers.report import LeftOut, describe_left_out
from dxseg.data.readers.dicom.objects import is_dicom
from dxseg.data.readers.images import is_supported
from dxseg.data.readers.volume_files import is_volume_file
from dxseg.data.table.spec import SPEC_FILE
from dxseg.errors import DxsegError

_LOOKED_AT = 200
_TABLES = (".csv", ".tsv", ".xlsx")
_EXAMPLES = 5
_TRIED = 5


@dataclass
class Layout:
    """What a folder looks like, and the command that imports it.

    Attributes:
        importer: Name of the importer, such as `folder`.
        command: The full command.
        notes: What the importer will make of the folder, as lines of text.
    """

    importer: str
    command: str
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [*(f"- {note}" for note in self.notes), "Import it with:", f"  {self.command}"]
        return "\n".join([*lines, "First see what it will do: add --dry-run"])


def find_layout(source: str | Path) -> Layout:
    """Find the importer that fits a folder.

    Args:
        source: The folder, or a table that lists images.

    Raises:
        DxsegError: There is no such folder, or no importer fits.
    """
    path = Path(source)
    target = f"data/{path.resolve().stem}"
    if path.is_file() and path.suffix.lower() in _TABLES:
        command = _command(
            "csv", path, target, "--column", "image=COLUMN", "--column", "label=COLUMN"
        )
        return Layout("csv", command, ["a table: name its columns of images and labels"])
    if not path.is_dir():
        raise DxsegError(f"{path}: no such folder; expected a folder of images, or a table of them")
    if (path / SPEC_FILE).exists():
        raise DxsegError(f"{path}: is a dataset already; nothing to import; `dxseg check {path}`")
    found = _count(path)
    if (path / DESCRIPTION_FILE).exists():
        importer = "nnunet" if "channel_names" in _beginning(path / DESCRIPTION_FILE) else "msd"
        return Layout(importer, _command(importer, path, target), [f"has a {DESCRIPTION_FILE}"])
    if all((path / label).is_dir() for label in BUSI_LABELS):
        note = "folders benign, malignant and normal, as BUSI has them"
        return Layout("busi", _command("busi", path, target), [note])
    if found["volume"]:
        note = f"{found['volume']} volumes"
        return Layout(
            "volumes", _command("volumes", path, target), [note, *_others(found, "volume")]
        )
    if found["dicom"] > found["image"]:
        note = f"DICOM: {found['dicom']} of the first {_LOOKED_AT} files"
        return Layout("dicom", _command("dicom", path, target), [note])
    if not found["image"]:
        raise DxsegError(
            f"{path}: no image, volume or DICOM file; `dxseg import --help` lists them"
        )
    annotations = _find_annotations(path)
    if annotations is not None:
        command = _command("annotations", annotations, target, "--images-root", str(path))
        note = f"annotations: {annotations}; images of that folder without them are left out"
        return Layout("annotations", command, [f"{found['image']} images", note])
    return _describe_folder(path, target, found)


def _describe_folder(path: Path, target: str, found: dict[str, int]) -> Layout:
    left_out = LeftOut()
    images = find_in_folders(path, None, MaskNaming(), target, left_out)
    masked = [case for case in images.cases if case.masks]
    labels = ", ".join(images.labels[:20]) or "none: images are unlabeled"
    notes = [
        f"{len(images.cases)} images, {len(masked)} with a mask; labels: {labels}",
        *images.notes,
        *(
            f"  {case.image.relative_to(images.root)} <- "
            f"{', '.join(str(mask.relative_to(images.root)) for mask in case.masks)}"
            for case in masked[:_EXAMPLES]
        ),
        *describe_left_out(left_out, "left out"),
        *_others(found, "image"),
    ]
    tables = sorted(p.name for p in path.iterdir() if p.suffix.lower() in _TABLES)
    if tables:
        notes.append(f"tables beside them: {', '.join(tables[:5])}; `dxseg import csv` reads one")
    return Layout("folder", _command("folder", path, target), notes)


def _find_annotations(folder: Path) -> Path | None:
    """Find a file of polygons, or their folder if there are several."""
    files = [path for path in _files(folder) if path.suffix.lower() in (".json", ".xml")]
    for path in files[:_TRIED]:
        with suppress(DxsegError):
            read_annotations(path)
            return path if len(files) == 1 else folder
    return None


def _others(found: dict[str, int], kind: str) -> list[str]:
    other = [f"{count} {name} files" for name, count in found.items() if count and name != kind]
    return [f"not imported by this command: {', '.join(other)}"] if other else []


def _count(folder: Path) -> dict[str, int]:
    """Count files by kind; DICOM without a suffix only among the first ones, as it is opened."""
    found = {"volume": 0, "image": 0, "dicom": 0}
    for path in _files(folder):
        if is_volume_file(path):
            found["volume"] += 1
        elif is_supported(path) and path.suffix.lower() != ".dcm":
            found["image"] += 1
    found["dicom"] = sum(is_dicom(path) for path in islice(_files(folder), _LOOKED_AT))
    return found


def _files(folder: Path) -> Iterator[Path]:
    for base, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(base, name) for name in sorted(names) if not name.startswith("."))


def _beginning(path: Path) -> str:
    try:
        with path.open(encoding="utf-8", errors="replace") as stream:
            return stream.read(2**20)
    except OSError as error:
        raise DxsegError(f"{path}: cannot be read ({error.strerror})") from error


def _command(importer: str, path: Path, target: str, *options: str) -> str:
    return shlex.join(["dxseg", "import", importer, str(path), target, *options])

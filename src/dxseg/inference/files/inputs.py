"""Find the images and volumes to predict, and give each a unique name in the output folder."""

from __future__ import annotations

import glob
import os
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dxseg.data.readers.dicom.objects import is_dicom
from dxseg.data.readers.dicom.series import holds_slices
from dxseg.data.readers.images import READERS, is_supported
from dxseg.data.readers.volume_files import (
    VOLUME_FORMATS,
    group_sequences,
    is_volume_file,
    volume_format,
    volume_stem,
)
from dxseg.errors import DxsegError, UsageError
from dxseg.io.csv_io import escape_formula, escape_unprintable


@dataclass(frozen=True)
class PredictionInput:
    r"""One image or volume to predict.

    Attributes:
        name: Its path relative to the folder that all inputs share, with `/`; unique. Bytes that
            are not UTF-8 and control characters are escaped: `\xff.png`.
        source: Its absolute path; a folder where it is a DICOM series, the first file of several
            sequences.
        is_series: Whether it is a DICOM series.
        sequences: File of each sequence where a volume has several, None for one that is absent.
            The name is what they have in common.
    """

    name: str
    source: Path
    is_series: bool = False
    sequences: tuple[Path | None, ...] = ()

    @property
    def is_volume(self) -> bool:
        """Whether it is sliced; its result is one label map."""
        return self.is_series or is_volume_file(self.source)

    @property
    def files(self) -> list[Path]:
        """All its files, those of a series with their folder, of a header with its voxels."""
        if self.is_series:
            return [self.source, *self.source.iterdir()]
        named = [path for path in self.sequences if path is not None] or [self.source]
        return [part for path in named for part in _files_of(path)]

    @property
    def mask_suffix(self) -> str:
        """Suffix of its mask; a volume's is of its own format, of DICOM in NIfTI."""
        if not self.is_volume:
            return ".png"
        return ".nii.gz" if self.is_series else volume_format(self.source).mask_suffix

    @property
    def is_dicom(self) -> bool:
        """Whether it is DICOM, by its content."""
        return self.is_series or is_dicom(self.source)

    @property
    def shown_source(self) -> str:
        """The path as tables show it, escaped like the name."""
        return escape_unprintable(str(self.source))

    @property
    def stem(self) -> str:
        """The name without its suffix: where results go below `masks/` and `overlays/`."""
        if self.is_series or self.sequences:
            return self.name
        if self.is_volume:
            return volume_stem(self.name)
        return self.name[: len(self.name) - len(escape_unprintable(self.source.suffix))]


def find_images(
    inputs: Sequence[str | Path],
    *,
    skip: Sequence[Path] = (),
    series: bool = False,
    suffixes: Mapping[str, str] | None = None,
    passed_over: list[Path] | None = None,
    of_no_sequence: list[Path] | None = None,
) -> list[PredictionInput]:
    """Expand files, folders and patterns.

    Folders are searched through all levels for known suffixes; hidden files and links to folders
    are skipped. A file that is named itself is taken whatever its suffix.

    Args:
        inputs: Files, folders, or patterns with `*`, `?`, `[...]` or `**`.
        skip: Folders whose files are skipped (earlier results).
        series: Whether folders of DICOM slices are volumes; else each slice is an image.
        suffixes: End of the name of the file of each sequence; None: a volume is one file.
        passed_over: List to which files are added that are no image of a known type, nor the
            voxels of a header.
        of_no_sequence: List to which volumes are added whose name has none of the suffixes.

    Returns:
        Each image and volume once, sorted by name.

    Raises:
        UsageError: An input has no image, or two images would share one result file.
    """
    bases: list[Path] = []
    found: dict[Path, None] = {}
    skipped = [folder.resolve() for folder in skip]
    for given in inputs:
        base, files = _expand(given, series)
        kept = []
        for path in files:
            resolved = path.resolve()
            if any(resolved.is_relative_to(folder) for folder in skipped):
                continue
            # What is named itself is taken whatever its type.
            if path.is_dir() or _is_image(path) or path == base / Path(given).name:
                kept.append(path)
            elif passed_over is not None and path not in passed_over:
                passed_over.append(path)
        if not kept:
            raise UsageError(
                f"{given}: no image there; expected a file, a folder or a quoted pattern with "
                f"{', '.join(sorted((*READERS, *VOLUME_FORMATS)))}"
            )
        bases.append(base)
        found.update(dict.fromkeys(kept))
    if passed_over:
        parts = {part for path in found for part in _files_of(path)}
        passed_over[:] = [path for path in passed_over if path not in parts]
    if not found:
        raise UsageError("no input; give a file, a folder or a quoted pattern")
    root = Path(os.path.commonpath(bases))
    if suffixes:
        items = _group(found, suffixes, root, [] if of_no_sequence is None else of_no_sequence)
    else:
        items = [
            PredictionInput(_table_name(path.relative_to(root)), path, path.is_dir())
            for path in found
        ]
    items.sort(key=lambda item: item.name)
    _refuse_collisions(items)
    return items


def _group(
    found: Iterable[Path], suffixes: Mapping[str, str], root: Path, of_no_sequence: list[Path]
) -> list[PredictionInput]:
    volumes = [path for path in found if is_volume_file(path) and path.is_file()]
    groups, others = group_sequences(volumes, suffixes)
    of_no_sequence.extend(others)
    items = [
        PredictionInput(_table_name(path.relative_to(root)), path, path.is_dir())
        for path in set(found).difference(volumes)
    ]
    for common, group in groups.items():
        name = Path(common.name) if common == root else common.relative_to(root)
        sequences = tuple(group.get(sequence) for sequence in suffixes)
        first = next(path for path in sequences if path is not None)
        items.append(PredictionInput(_table_name(name), first, sequences=sequences))
    if not items:
        shown = ", ".join(f"{name}: *{suffix}" for name, suffix in suffixes.items())
        raise UsageError(
            f"{others[0]}: of no sequence of the model ({shown}); rename the files, or give their "
            "endings with --channel"
        )
    return items


def _table_name(path: Path) -> str:
    return escape_formula(escape_unprintable(path.as_posix()))


def _expand(given: str | Path, series: bool) -> tuple[Path, list[Path]]:
    """The folder that names are relative to, and the files, all absolute without `..`."""
    # Not resolved: a link keeps the name that the user sees.
    path = Path(os.path.abspath(given))  # noqa: PTH100 - resolve() follows links
    if path.is_dir():
        files = _walk(path, series)
        # A series is named by its folder.
        return (path.parent if path in files else path), files
    if path.exists():
        return path.parent, [path]
    if not glob.has_magic(str(given)):
        raise UsageError(f"{given}: no such file or folder")
    fixed = path
    while glob.has_magic(str(fixed)):
        fixed = fixed.parent
    matches = (Path(match) for match in glob.iglob(str(path), recursive=True))  # noqa: PTH207 - Path.glob takes no absolute pattern
    return fixed, [match for match in matches if match.is_file()]


def _walk(folder: Path, series: bool) -> list[Path]:
    files = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths = [Path(parent, name) for name in names if not name.startswith(".")]
        if series and holds_slices(Path(parent)):
            files.append(Path(parent))
            paths = [path for path in paths if not is_dicom(path)]
        files += [path for path in paths if path.is_file() or _is_broken_link(path)]
    return files


def _is_image(path: Path) -> bool:
    known = is_supported(path) or is_volume_file(path)
    return known and (path.is_file() or _is_broken_link(path))


def _files_of(path: Path) -> list[Path]:
    """All files of an image or volume; of a damaged one itself, which the prediction reports."""
    if not is_volume_file(path):
        return [path]
    try:
        return volume_format(path).files(path)
    except DxsegError:
        return [path]


def _is_broken_link(path: Path) -> bool:
    """Whether a file is missing that is listed: its prediction fails and says so."""
    return path.is_symlink() and not path.exists()


def _refuse_collisions(items: Sequence[PredictionInput]) -> None:
    seen: dict[str, PredictionInput] = {}
    for item in items:
        # Some file systems ignore case, and whether accents are composed.
        key = unicodedata.normalize("NFC", item.stem).casefold()
        other = seen.setdefault(key, item)
        if other is not item:
            raise UsageError(
                f"{other.source} and {item.source} would both write {item.stem}; "
                "predict them into different output folders, or rename one"
            )

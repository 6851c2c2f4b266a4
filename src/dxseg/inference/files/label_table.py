"""A table of diagnoses beside the files to predict: which row speaks of which file."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from dxseg.data.table.cases import STUDY_LEVEL
from dxseg.errors import UsageError
from dxseg.inference.files.inputs import PredictionInput
from dxseg.inference.label_prompt import has_lesion, label_names, label_text
from dxseg.inference.model_folder import ModelInfo
from dxseg.io.csv_io import read_table, separator_of

KEYS = ("file", "image", "path", "name", "case_id", "volume_id")
"""Columns that may name the file of a row; the first that a table has is used."""


@dataclass
class LabelJoin:
    """What a table says of the files.

    Attributes:
        by_name: `PredictionInput.name` to its label, as `cases.csv` writes it.
        unmatched: Rows that fit no file, as places in the table.
    """

    by_name: dict[str, str] = field(default_factory=dict)
    unmatched: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Row:
    where: str
    key: str
    label: str
    of_study: bool = False


def known_labels(
    labels: str | Path | Mapping[str, str], items: Sequence[PredictionInput], info: ModelInfo
) -> LabelJoin:
    """Join known labels to files.

    A row names its file by a path (from the table's folder, or in full), by the name that
    `predictions.csv` has for it, or by its file name alone; the suffix may be left out. A row
    without a label says nothing. Of an image, a label of study level says only if it is
    lesion-free.

    Args:
        labels: A CSV with comma, semicolon or tab, one of the columns `KEYS`, the column label and
            perhaps label_level, such as a dataset's `cases.csv`; or the labels by file.
        items: The images and volumes.
        info: Of the model.

    Raises:
        UsageError: A column is missing, a label is not one of the model's, a row fits several
            files, two rows contradict each other, or no row fits any file.
        DxsegError: The table cannot be read.
    """
    if isinstance(labels, Mapping):
        source, folder = "labels", Path.cwd()
        rows = [_Row(repr(key), key, label) for key, label in labels.items()]
    else:
        source, folder = str(labels), Path(labels).parent
        rows = _read(Path(labels))
    rows = [row for row in rows if row.label]
    index = _Index(items, folder)
    known = LabelJoin()
    told: dict[str, str] = {}
    for row in rows:
        text = _checked(row, source, info)
        item = index.find(row, source)
        if item is None:
            known.unmatched.append(row.where)
        elif item.is_volume or not row.of_study or not has_lesion(label_names(text, info), info):
            first = told.setdefault(item.name, row.where)
            if known.by_name.setdefault(item.name, text) != text:
                raise UsageError(
                    f"{source}: {first} and {row.where} give {item.name} different labels; "
                    "correct one"
                )
    if rows and len(known.unmatched) == len(rows):
        raise UsageError(
            f"{source}: none of its {len(rows)} labels is of a file to predict; {rows[0].where} "
            f"names {rows[0].key!r}, expected paths or names such as {items[0].name!r}"
        )
    return known


def _read(path: Path) -> list[_Row]:
    table = read_table(path, separator=separator_of(path))
    key = next((name for name in KEYS if name in table), None)
    if key is None or "label" not in table:
        raise UsageError(
            f"{path}: its columns are {', '.join(map(str, table.columns))}; expected label, and "
            f"one of {', '.join(KEYS)}"
        )
    level = table["label_level"] if "label_level" in table else [""] * len(table)
    cells = zip(table.index, table[key], table["label"], level, strict=True)
    return [
        _Row(f"row {line}", name, label.strip(), of_level == STUDY_LEVEL)
        for line, name, label, of_level in cells
    ]


def _checked(row: _Row, source: str, info: ModelInfo) -> str:
    """The label as `cases.csv` writes it."""
    try:
        return label_text(label_names(row.label, info))
    except UsageError as error:
        raise UsageError(f"{source}: {row.where} ({row.key}): {error}") from error


class _Index:
    """Finds files by what a table may call them, the most exact way first."""

    def __init__(self, items: Sequence[PredictionInput], folder: Path) -> None:
        self._folder = folder
        self._ways: list[dict[str, list[PredictionInput]]] = [{} for _ in range(5)]
        for item in items:
            name = PurePosixPath(item.name).name
            stem = PurePosixPath(item.stem).name
            for way, key in zip(
                self._ways, (str(item.source), item.name, item.stem, name, stem), strict=True
            ):
                way.setdefault(key, []).append(item)

    def find(self, row: _Row, source: str) -> PredictionInput | None:
        # Not resolved: a link keeps the name that the user sees, as in `find_images`.
        path = os.path.abspath(self._folder / row.key)  # noqa: PTH100
        for way, key in zip(self._ways, (path, *[row.key] * 4), strict=True):
            found = way.get(key, [])
            if len(found) > 1:
                several = ", ".join(item.name for item in found[:3])
                raise UsageError(
                    f"{source}: {row.where}: {row.key!r} fits several files ({several}); "
                    "give the path"
                )
            if found:
                return found[0]
        return None

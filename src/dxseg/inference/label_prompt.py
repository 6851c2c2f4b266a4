"""Label prompts: image-level labels that are known before prediction, and tables of them (ours)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dxseg.data.table.volumes import BAG_LEVELS
from dxseg.data.table.words import is_missing
from dxseg.errors import UsageError, quote
from dxseg.inference.model_info import ModelInfo
from dxseg.io.user_tables import read_user_table

if TYPE_CHECKING:
    from dxseg.inference.files.inputs import PredictionInput

LabelNames = tuple[str, ...]
"""Labels of an image in the model's order; empty without a label prompt."""

KEYS = ("file", "image", "path", "name", "case_id", "volume_id")
"""Columns that may name the file of a row; the first that a table has is used."""


def parse_label_prompt(text: str | None, info: ModelInfo) -> LabelNames:
    """Parse a label prompt in the notation of `cases.csv`.

    Args:
        text: A label; where an image may have several, all of its labels, separated by ";". None
            or "" without a label prompt.
        info: Of the model.

    Raises:
        UsageError: The model does not have the label.
    """
    if not text:
        return ()
    if not info.labels:
        raise UsageError(f"label {quote(text)}: the model has no labels; predict without labels")
    given = {part.strip() for part in text.split(";")} if info.multi_label else {text}
    unexpected = sorted(given - set(info.labels))
    if unexpected:
        several = ", several with ';' between them" if info.multi_label else ""
        raise UsageError(
            f"label {quote(unexpected[0])} is not one of the model's: "
            f"{', '.join(info.labels)}{several}"
        )
    return tuple(name for name in info.labels if name in given)


def format_label_prompt(names: LabelNames) -> str:
    """Format labels in the notation of `cases.csv`; "" for none."""
    return ";".join(names)


def labels_imply_lesion(names: LabelNames, info: ModelInfo) -> bool | None:
    """Whether labels imply a lesion, or an empty mask; None where they imply neither.

    As in a dataset, labels mean lesion-free if all of them do. Without a lesion, organs may still
    have masks: such labels imply neither.
    """
    if set(names) <= set(info.without_lesion):
        return False if names and set(names) <= set(info.lesion_free) else None
    return True


def encode_label_prompts(prompts: Sequence[LabelNames], info: ModelInfo) -> Tensor | None:
    """Encode the label prompts of a batch for `SegmentationModel.forward`.

    Args:
        prompts: The labels of each image.
        info: Of the model.

    Returns:
        (B,) int64 or (B, L) float32. None where no image has a label prompt, or the model has no
        labels of its own; the rules of `dxseg.inference.postprocess` apply all the same.
    """
    if not info.model.predicts_labels or not any(prompts):
        return None
    if not info.multi_label:
        return torch.tensor([info.labels.index(names[0]) if names else -1 for names in prompts])
    unknown = [float("nan")] * len(info.labels)
    return torch.tensor(
        [
            [float(label in names) for label in info.labels] if names else unknown
            for names in prompts
        ]
    )


@dataclass
class LabelJoin:
    """Labels joined to input files.

    Attributes:
        by_name: Label prompts in the notation of `cases.csv`, by `PredictionInput.name`.
        unmatched: Rows that match no file, as places in the table.
    """

    by_name: dict[str, str] = field(default_factory=dict)
    unmatched: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Row:
    where: str
    key: str
    label: str
    of_study: bool = False


def join_labels(
    labels: str | Path | Mapping[str, str | None], items: Sequence[PredictionInput], info: ModelInfo
) -> LabelJoin:
    """Join labels to input files.

    A row names its file by a path (relative to the table's folder, or absolute), by the name that
    `predictions.csv` has for it, or by its file name alone; the suffix may be left out. A row
    without a label is ignored. A label of study level applies to an image only if it is
    lesion-free.

    Args:
        labels: A CSV with comma, semicolon or tab, one of the columns `KEYS`, the column label and
            perhaps label_level, such as a dataset's `cases.csv`; or the labels by file, None or ""
            where one is not known.
        items: The images and volumes.
        info: Of the model.

    Raises:
        UsageError: A column is missing, a label is not one of the model's, a row matches several
            files, two rows contradict each other, or no row matches any file.
        DxsegError: The table cannot be read.
    """
    if isinstance(labels, Mapping):
        source, folder = "labels", Path.cwd()
        rows = [_Row(repr(key), key, label or "") for key, label in labels.items()]
    else:
        source, folder = str(labels), Path(labels).parent
        rows = _read_rows(Path(labels))
    rows = [row for row in rows if row.label in info.labels or not is_missing(row.label)]
    index = _FileIndex(items, folder)
    joined = LabelJoin()
    first_row: dict[str, str] = {}
    for row in rows:
        try:
            names = parse_label_prompt(row.label, info)
        except UsageError as error:
            raise UsageError(f"{source}: {row.where} ({row.key}): {error}") from error
        item, text = index.find(row, source), format_label_prompt(names)
        if item is None:
            joined.unmatched.append(row.where)
        elif item.is_volume or not row.of_study or not labels_imply_lesion(names, info):
            first = first_row.setdefault(item.name, row.where)
            if joined.by_name.setdefault(item.name, text) != text:
                raise UsageError(
                    f"{source}: {first} and {row.where} give {item.name} different labels; "
                    "correct one"
                )
    if rows and len(joined.unmatched) == len(rows):
        raise UsageError(
            f"{source}: none of its {len(rows)} labels is of a file to predict; {rows[0].where} "
            f"names {rows[0].key!r}, expected paths or names such as {items[0].name!r}"
        )
    return joined


def _read_rows(path: Path) -> list[_Row]:
    table = read_user_table(path)
    key = next((name for name in KEYS if name in table), None)
    if key is None or "label" not in table:
        raise UsageError(
            f"{path}: its columns are {', '.join(map(str, table.columns))}; expected label, and "
            f"one of {', '.join(KEYS)}"
        )
    level = table["label_level"] if "label_level" in table else [""] * len(table)
    cells = zip(table.index, table[key], table["label"], level, strict=True)
    return [
        _Row(f"row {line}", name, label.strip(), of_level in BAG_LEVELS)
        for line, name, label, of_level in cells
    ]


class _FileIndex:
    """Finds input files by the names that a table may use, the most exact one first."""

    def __init__(self, items: Sequence[PredictionInput], folder: Path) -> None:
        self._folder = folder
        self._by_key: list[dict[str, list[PredictionInput]]] = [{} for _ in range(5)]
        for item in items:
            name = PurePosixPath(item.name).name
            stem = PurePosixPath(item.stem).name
            keys = (str(item.source), item.name, item.stem, name, stem)
            for files, key in zip(self._by_key, keys, strict=True):
                files.setdefault(key, []).append(item)

    def find(self, row: _Row, source: str) -> PredictionInput | None:
        # Not resolved: a link keeps the name that the user sees, as in `find_images`.
        path = os.path.abspath(self._folder / row.key)  # noqa: PTH100
        for files, key in zip(self._by_key, (path, *[row.key] * 4), strict=True):
            found = files.get(key, [])
            if len(found) > 1:
                several = ", ".join(item.name for item in found[:3])
                raise UsageError(
                    f"{source}: {row.where}: {row.key!r} matches several files ({several}); "
                    "give the path"
                )
            if found:
                return found[0]
        return None

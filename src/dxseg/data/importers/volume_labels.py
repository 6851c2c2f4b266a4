"""Labels of volumes from a table: of slices, of slabs, or of a volume, study or patient."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pandas as pd

from dxseg.data.table.volumes import SLABS
from dxseg.data.table.words import Words
from dxseg.errors import DxsegError
from dxseg.io.user_tables import read_user_table

if TYPE_CHECKING:
    from dxseg.data.importers.dicom_images import KeyedImage
    from dxseg.data.readers.volume import FoundVolume

_VALUES = ("label", "slice_index", "slab", "patient_id", "annotated_slices")
_RANGES = re.compile(r"\s*\d{1,6}(\s*-\s*\d{1,6})?\s*([;,]\s*\d{1,6}(\s*-\s*\d{1,6})?\s*)*")
_LISTED = 10

_Key = TypeVar("_Key")


@dataclass
class JoinedLabels:
    """The labels of a table, joined to the volumes that were found.

    Attributes:
        labels: Label by volume_id and slice_index; slice_index None: label of the whole volume.
        slabs: Label by volume_id and slab, from 0.
        patients: Patient of a volume, by volume_id.
        annotated: Slices of a volume that somebody annotated, as `3-7;12`, by volume_id; no entry:
            all.
        keys: Keys of the rows that label a volume, by volume_id.
        notes: Rows without a volume and words for nothing, as lines of text that contain no key.
    """

    labels: dict[tuple[str, int | None], str] = field(default_factory=dict)
    slabs: dict[tuple[str, int], str] = field(default_factory=dict)
    patients: dict[str, str] = field(default_factory=dict)
    annotated: dict[str, str] = field(default_factory=dict)
    keys: dict[str, set[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def names(self) -> set[str]:
        """Labels of all volumes, slabs and slices."""
        return {*self.labels.values(), *self.slabs.values()}

    def annotated_slices(self, volume_id: str) -> set[int] | None:
        """The slices of a volume that somebody annotated; None: all."""
        text = self.annotated.get(volume_id)
        if text is None:
            return None
        return {index for first, last in _ranges(text) for index in range(first, last + 1)}


def _ranges(text: str) -> list[tuple[int, int]]:
    """First and last number of each range of `3-7;12`."""
    ends = [part.split("-") for part in re.split("[;,]", text)]
    return [(int(end[0]), int(end[-1])) for end in ends]


def read_labels(
    path: Path,
    columns: Mapping[str, str],
    found: Sequence[FoundVolume | KeyedImage],
    given: Sequence[str] = (),
) -> JoinedLabels:
    """Read a table of labels and join it to the volumes.

    A row labels every volume that matches all keys in it: `volume_id`, and those of the importer
    (`FoundVolume.keys`, such as patient, study and accession). With a `slice_index` it labels that
    slice, with a `slab` (0, 1 or 2) that third of the slices, else the whole volume.
    `annotated_slices`, such as `3-7;12`, lists the slices of
    the volume whose mask is complete; of the others nothing is known.

    Args:
        path: CSV file with comma, semicolon or tab.
        columns: Columns of the table for label, slice_index, slab, patient_id, annotated_slices and
            the keys, where the names differ. Other columns are ignored.
        found: The volumes.
        given: Labels that the user has named, which stay as they are.

    Raises:
        DxsegError: The table has no key or no label, a row has no key, or a wrong slice_index or
            slab, or rows contradict each other. Rows are reported by line: keys may identify
            patients.
    """
    keys = {volume.volume_id: {**volume.keys, "volume_id": volume.volume_id} for volume in found}
    known = {name for own in keys.values() for name in own}
    table, notes = _table(path, columns, known, given)
    joins = [name for name in table.columns if name not in _VALUES]
    joined = JoinedLabels(notes=notes)
    unmatched: list[int] = []
    first_lines: dict[tuple[object, str], int] = {}
    for filled, rows in table.groupby(_filled(table[joins]), sort=False):
        used = [name for name, given in zip(joins, filled, strict=True) if given]
        if not used:
            raise DxsegError(f"{path}: row {rows.index[0]}: has none of {', '.join(joins)}")
        volumes: dict[tuple[str, ...], list[str]] = {}
        for volume_id, own in keys.items():
            volumes.setdefault(tuple(own.get(name, "") for name in used), []).append(volume_id)
        for line, row in zip(rows.index, rows.to_dict("records"), strict=True):
            matches = volumes.get(tuple(row[name] for name in used), [])
            if not matches:
                unmatched.append(int(line))
            for volume_id in matches:
                _record_row(joined, row, volume_id, path, int(line), first_lines)
                if row.get("label"):
                    joined.keys.setdefault(volume_id, set()).update(used)
    if unmatched:
        lines = ", ".join(str(line) for line in sorted(unmatched)[:_LISTED])
        more = ", ..." if len(unmatched) > _LISTED else ""
        joined.notes.append(
            f"{path.name}: {len(unmatched)} rows match no volume: lines {lines}{more}"
        )
    return joined


def _filled(table: pd.DataFrame) -> pd.Series[Any]:
    """Which columns of each row are not empty, one tuple per row."""
    return pd.Series([tuple(bool(value) for value in row) for row in table.to_numpy()], table.index)


def _table(
    path: Path, columns: Mapping[str, str], known: set[str], given: Sequence[str]
) -> tuple[pd.DataFrame, list[str]]:
    table = read_user_table(path)
    unknown = sorted(set(columns) - known - set(_VALUES))
    absent = sorted(set(columns.values()) - set(table.columns))
    if unknown or absent:
        raise DxsegError(
            f"{path}: no column {', '.join(absent) or 'is missing'}; unknown fields: "
            f"{', '.join(unknown) or 'none'}; expected {', '.join((*_VALUES, *sorted(known)))} "
            f"mapped to columns of {', '.join(map(str, table.columns[:30]))}"
        )
    names = {name: name for name in (*_VALUES, *sorted(known)) if name in table} | dict(columns)
    chosen = pd.DataFrame({name: table[given].str.strip() for name, given in names.items()})
    if not {"label", "annotated_slices"} & set(chosen.columns) or not known & set(chosen.columns):
        raise DxsegError(
            f"{path}: has the columns {', '.join(map(str, table.columns[:30]))}; expected label "
            f"or annotated_slices, and at least one of {', '.join(sorted(known))}; rename them or "
            "map them with --column"
        )
    notes: list[str] = []
    for words in (Words("label", given=given), Words("patient_id", names_shown=False)):
        if words.column in chosen:
            values = chosen[words.column]
            chosen[words.column] = values.map(words.spellings(values))
            notes.extend(words.notes())
    return chosen, notes


def _record_row(
    joined: JoinedLabels,
    row: Mapping[object, str],
    volume_id: str,
    path: Path,
    line: int,
    first_lines: dict[tuple[object, str], int],
) -> None:
    """Record the label and patient of a row; a contradiction to an earlier row is an error."""
    label, patient, index = (row.get(name, "") for name in ("label", "patient_id", "slice_index"))
    if index and not (index.isascii() and index.isdecimal()):
        raise DxsegError(
            f"{path}: row {line}: slice_index {index!r}: expected a whole number from 0, or nothing"
        )
    slab = row.get("slab", "")
    if slab and (index or slab not in map(str, range(SLABS))):
        raise DxsegError(
            f"{path}: row {line}: slab {slab!r}: expected the number of a third of the slices, 0 "
            f"to {SLABS - 1}, and no slice_index beside it; or nothing"
        )
    annotated = row.get("annotated_slices", "")
    if annotated and not (
        _RANGES.fullmatch(annotated) and all(first <= last for first, last in _ranges(annotated))
    ):
        raise DxsegError(
            f"{path}: row {line}: annotated_slices {annotated!r}: expected numbers of slices and "
            "ranges, counted from 0, such as 3-7;12, or nothing for all"
        )
    _record_value(
        joined.annotated, volume_id, annotated, "annotated_slices", path, line, first_lines
    )
    if slab:
        part = volume_id, int(slab)
        _record_value(joined.slabs, part, label, "label of a slab", path, line, first_lines)
    else:
        where = volume_id, int(index) if index else None
        _record_value(joined.labels, where, label, "label", path, line, first_lines)
    _record_value(joined.patients, volume_id, patient, "patient_id", path, line, first_lines)


def _record_value(
    values: dict[_Key, str],
    key: _Key,
    value: str,
    what: str,
    path: Path,
    line: int,
    first_lines: dict[tuple[object, str], int],
) -> None:
    if not value:
        return
    first = first_lines.setdefault((key, what), line)
    if values.setdefault(key, value) != value:
        raise DxsegError(
            f"{path}: rows {first} and {line} have different values of {what} for the same volume "
            "or slice; correct one"
        )

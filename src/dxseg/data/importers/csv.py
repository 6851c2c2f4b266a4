"""Importing any CSV of images, with its columns mapped to those of dxseg."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from dxseg.data.importers.image_dataset import FoundCase, write_dataset
from dxseg.data.importers.report import ImportReport, Progress
from dxseg.data.readers.images import READERS
from dxseg.data.table.cases import COLUMNS, validate_cases
from dxseg.data.table.spec import make_spec
from dxseg.errors import DxsegError
from dxseg.io.csv_io import escape_formula, read_table, separator_of

_LISTED = 10


def import_csv(
    csv: str | Path,
    destination: str | Path,
    *,
    columns: Mapping[str, str],
    images_root: str | Path | None = None,
    name: str | None = None,
    labels: Sequence[str] | None = None,
    lesion_free: Sequence[str] = (),
    multi_label: bool = False,
    mask_classes: Sequence[str] = ("lesion",),
    modality: str = "unknown",
    spacing_unit: str | None = None,
    provenance: str = "",
    licence: str = "",
    overwrite: bool = False,
    progress: Progress | None = None,
) -> ImportReport:
    """Import images that a CSV file lists, with its columns mapped to those of dxseg.

    The separator may be a comma, a semicolon or a tab. Several rows of one image, one for each
    mask, become one case with the masks merged; their other values must be equal. Images are not
    copied. Paths without a suffix get that of the file that exists.

    Args:
        csv: CSV file, UTF-8 with a header.
        destination: Folder of the new dataset.
        columns: Column of the table for each field of `cases.csv`, as in `{"image": "file"}`;
            image is required. Other columns are ignored.
        images_root: Folder that paths are relative to; default: the table's.
        name: Dataset name; default: name of the table's folder.
        labels: Labels in their order; default: those in the table, sorted.
        lesion_free: Labels whose images have no lesion, so that their masks are empty.
        multi_label: Labels are written "a;b".
        mask_classes: Names of the mask values 1, 2, ...
        modality: Free text, such as "CT".
        spacing_unit: "mm" or "pixel"; default: mm if there are spacing columns.
        provenance: Where the images come from.
        licence: Terms of use of the images.
        overwrite: Replace the dataset in `destination` if it has the same name.
        progress: Called with (done, total) after each image.

    Raises:
        DxsegError: A column is not in the table, values are wrong (reported by line), rows of one
            image contradict each other, or the destination has other files.
    """
    csv = Path(csv).resolve()
    root = csv.parent if images_root is None else Path(images_root).resolve()
    if not root.is_dir():
        raise DxsegError(f"{root}: no such folder; expected the folder that paths are relative to")
    table = _read(csv, columns)
    spaced = "spacing_y" in table or "spacing_x" in table
    fields: dict[str, Any] = {
        "name": name or csv.parent.name,
        "modality": modality,
        "labels": list(labels) if labels is not None else _labels(table, multi_label),
        "lesion_free": list(lesion_free),
        "multi_label": multi_label,
        "mask_classes": list(mask_classes),
        "spacing_unit": spacing_unit or ("mm" if spaced else "pixel"),
        "provenance": provenance,
        "licence": licence,
    }
    _relative(table, root)
    _refuse_contradictions(table, csv)
    _validate(table, fields, csv)
    skipped: list[tuple[str, str]] = []
    found = _gather(table, root, skipped)
    return write_dataset(
        found,
        root,
        Path(destination),
        fields,
        skipped=skipped,
        overwrite=overwrite,
        progress=progress,
    )


def _read(csv: Path, columns: Mapping[str, str]) -> pd.DataFrame:
    """Read the mapped columns under their names in `cases.csv`."""
    unknown = [column for column in columns if column not in COLUMNS]
    if unknown or "image" not in columns:
        raise DxsegError(
            f"column mapping {dict(columns)}: expected image and any of {', '.join(COLUMNS)}"
            + (f"; unknown: {', '.join(unknown)}" if unknown else "")
        )
    table = read_table(csv, separator=separator_of(csv))
    absent = sorted(set(columns.values()) - set(table.columns))
    if absent:
        raise DxsegError(
            f"{csv}: no column {', '.join(map(repr, absent))}; it has "
            f"{', '.join(str(column) for column in table.columns[:30])}; correct the mapping"
        )
    if table.empty:
        raise DxsegError(f"{csv}: no rows; expected one row per image")
    chosen = {column: table[given].str.strip() for column, given in columns.items()}
    return pd.DataFrame(chosen, index=table.index)


def _labels(table: pd.DataFrame, multi_label: bool) -> list[str]:
    if "label" not in table:
        return []
    texts = [str(text) for text in table["label"].unique()]
    parts = [
        part.strip() for text in texts for part in (text.split(";") if multi_label else [text])
    ]
    return sorted({part for part in parts if part})


def _relative(table: pd.DataFrame, root: Path) -> None:
    """Make absolute paths below the root relative; others stay and are errors."""
    for column in ("image", "mask"):
        if column in table:
            prefix = f"{root.as_posix()}/"
            relative = table[column].str.removeprefix(prefix).str.removeprefix("./")
            table[column] = relative.map(escape_formula)


def _validate(table: pd.DataFrame, fields: dict[str, Any], csv: Path) -> None:
    """Check the values while lines are still those of the user's file."""
    checked = table.drop_duplicates("image")
    if "case_id" not in checked:
        checked = checked.assign(case_id=[f"row {line}" for line in checked.index])
    validate_cases(checked, make_spec(fields, str(csv)), csv)


def _gather(table: pd.DataFrame, root: Path, skipped: list[tuple[str, str]]) -> list[FoundCase]:
    own = [column for column in table.columns if column not in ("image", "mask", "label")]
    cases: dict[str, FoundCase] = {}
    for row in table.to_dict("records"):
        key = str(row["image"])
        if key not in cases:
            values = {column: row[column] for column in own}
            label = str(row.get("label", ""))
            cases[key] = FoundCase(image=_existing(root / key), label=label, values=values)
        mask = _existing(root / str(row["mask"])) if row.get("mask") else None
        if mask is None or mask in cases[key].masks:
            continue
        if mask.is_file():
            cases[key].masks.append(mask)
        else:
            skipped.append((str(mask), "no such mask; its image is imported without it"))
    return list(cases.values())


def _refuse_contradictions(table: pd.DataFrame, csv: Path) -> None:
    rest = [column for column in table.columns if column not in ("image", "mask", "case_id")]
    several = table[table.duplicated("image", keep=False)]
    if not rest or several.empty:
        return
    # All images at once: one by one takes minutes for a million rows.
    differing = several.groupby("image", sort=False)[rest].nunique().gt(1).any(axis=1)
    several = several[several["image"].isin(differing.index[differing])]
    problems = []
    for image, rows in several.groupby("image", sort=False):
        for column in rest:
            if rows[column].nunique() > 1:
                lines = ", ".join(str(line) for line in rows.index[:5])
                values = " and ".join(repr(value) for value in rows[column].unique()[:5])
                problems.append(f"rows {lines}: image {image!r} has {column} {values}")
    if problems:
        shown = [*problems[:_LISTED]]
        if len(problems) > _LISTED:
            shown.append(f"... and {len(problems) - _LISTED} more")
        raise DxsegError(
            "\n  ".join([f"{csv}: rows of one image contradict each other; correct them", *shown])
        )


def _existing(path: Path) -> Path:
    """Complete a path without a known suffix, as in lists of identifiers."""
    if path.suffix.lower() in READERS or path.is_file():
        return path
    completed = (path.with_name(path.name + suffix) for suffix in READERS)
    return next((candidate for candidate in completed if candidate.is_file()), path)

"""Images that a table lists, with its columns mapped to those of dxseg."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from dxseg.data.importers.file_index import FileIndex
from dxseg.data.importers.image_dataset import FoundCase
from dxseg.data.importers.labels import check_lesion_free, read_labels
from dxseg.data.importers.mask_owner import MaskNaming
from dxseg.data.importers.mask_search import find_masks
from dxseg.data.importers.one_hot import SEPARATOR, read_one_hot
from dxseg.data.importers.report import LeftOut
from dxseg.data.importers.table_paths import relative_paths
from dxseg.data.readers.mask_like import looks_like_mask
from dxseg.data.table.cases import COLUMNS, validate_cases
from dxseg.data.table.label_lists import split_list
from dxseg.data.table.spec import make_spec
from dxseg.data.table.words import Words, is_missing
from dxseg.errors import DxsegError, UsageError
from dxseg.io.user_tables import read_user_table

_LISTED = 10
_LIKE = (
    "looks like a mask, and is named like one of another image; list it in a column of masks "
    "(--column mask=COLUMN), or --keep-mask-like makes it an image"
)


@dataclass(frozen=True)
class TableRules:
    """How a table is read.

    Attributes:
        columns: Column of the table for each field of `cases.csv`; image is required.
        labels: The labels in the order wanted; None: those in the table, sorted.
        lesion_free: Labels of images without a lesion.
        multi_label: Whether a value may list several labels.
        separator: What separates them; None: the one that the column uses.
        one_hot: Columns that are labels; empty: all that hold only 0, 1, -1 and nothing; None:
            the table is not one-hot.
        missing: Words that mean nothing besides the usual ones.
    """

    columns: Mapping[str, str]
    labels: Sequence[str] | None = None
    lesion_free: Sequence[str] = ()
    multi_label: bool = False
    separator: str | None = None
    one_hot: Sequence[str] | None = None
    missing: Sequence[str] = ()


@dataclass
class ListedImages:
    """The images of a table.

    Attributes:
        cases: The images with their masks; rows of one image are one case.
        fields: The fields `labels`, `lesion_free` and `multi_label` of `DatasetSpec`.
        notes: What was changed or guessed, as lines for the report.
    """

    cases: list[FoundCase]
    fields: dict[str, Any]
    notes: list[str] = field(default_factory=list)


def find_listed(
    csv: Path,
    root: Path,
    rules: TableRules,
    fields: Mapping[str, Any],
    left_out: LeftOut,
    *,
    keep_mask_like: bool = False,
) -> ListedImages:
    """Find the images and masks of a table; rows of one image become one case.

    Args:
        csv: The table, as `read_user_table` reads it.
        root: Folder that paths are relative to; a name that differs from the file's only in
            Unicode form or case is found, and one without a suffix gets that of the file.
        rules: How the table is read.
        fields: Fields of `DatasetSpec` that the values have to fit, without those of the labels.
        left_out: Gets the masks that do not exist, and images that look like masks of others.
        keep_mask_like: Whether an image that looks like the mask of another row's is an image.

    Raises:
        DxsegError: The root or a column is missing, values are wrong, a file is image and mask, or
            rows of one image contradict each other; reported by line.
    """
    if not root.is_dir():
        raise DxsegError(f"{root}: no such folder; expected the folder that paths are relative to")
    table, label_fields, notes = _read(csv, rules)
    index = FileIndex(root)
    for column in ("image", "mask"):
        if column in table:
            table[column] = relative_paths(table[column], root, index, csv)
    _refuse_masks_as_images(table, csv)
    _refuse_contradictions(table, csv)
    _validate(table, {**fields, **label_fields}, csv)
    repeated = int(table.duplicated().sum())
    if repeated:
        notes.append(f"{repeated} rows repeat an earlier row")
    notes.extend(index.notes())
    cases = _gather(table, root, left_out)
    if not keep_mask_like:
        cases = _leave_out_masks(cases, root, left_out)
    return ListedImages(cases, label_fields, notes)


def _read(csv: Path, rules: TableRules) -> tuple[pd.DataFrame, dict[str, Any], list[str]]:
    """Read the mapped columns under their names in `cases.csv`, the fields of labels, and notes."""
    columns = rules.columns
    unknown = [column for column in columns if column not in COLUMNS]
    if unknown or "image" not in columns:
        raise DxsegError(
            f"column mapping {dict(columns)}: expected image and any of {', '.join(COLUMNS)}"
            + (f"; unknown: {', '.join(unknown)}" if unknown else "")
        )
    if rules.one_hot is not None and "label" in columns:
        raise UsageError("--one-hot and --column label=...: labels come from one of them")
    table = read_user_table(csv)
    absent = sorted(set(columns.values()) - set(table.columns))
    if absent:
        raise DxsegError(
            f"{csv}: no column {', '.join(map(repr, absent))}; it has "
            f"{', '.join(str(column) for column in table.columns[:30])}; correct the mapping"
        )
    if table.empty:
        raise DxsegError(f"{csv}: no rows; expected one row per image")
    chosen = pd.DataFrame(
        {column: table[given].str.strip() for column, given in columns.items()}, index=table.index
    )
    label_fields, notes = _read_labels(chosen, table, csv, rules)
    for column in chosen.columns.difference(["image", "case_id", "label"]):
        words = Words(column, rules.missing, names_shown=column != "patient_id")
        if column == "patient_id":
            chosen[column] = chosen[column].map(words.spellings(chosen[column]))
            notes.extend(words.notes())
        else:
            chosen[column] = chosen[column].map(
                lambda text: "" if is_missing(text, rules.missing) else text
            )
    return chosen, label_fields, notes


def _read_labels(
    chosen: pd.DataFrame, table: pd.DataFrame, csv: Path, rules: TableRules
) -> tuple[dict[str, Any], list[str]]:
    """Read the labels into the column label; return the fields of the dataset, and notes."""
    multi_label, separator, notes = rules.multi_label, rules.separator, []
    if rules.one_hot is not None:
        one_hot = read_one_hot(table, rules.one_hot, set(rules.columns.values()), csv)
        chosen["label"], separator = one_hot.labels, SEPARATOR
        multi_label, notes = multi_label or one_hot.several, one_hot.notes
    labels = list(rules.labels or ())
    words = Words("label", rules.missing, [*labels, *rules.lesion_free])
    if "label" in chosen:
        chosen["label"] = read_labels(
            chosen["label"], words, multi_label=multi_label, separator=separator
        )
        found = {name for text in chosen["label"].unique() for name in split_list(text, ";")}
        found = found if multi_label else set(chosen["label"].unique())
        labels = labels or sorted(found - {""})
    check_lesion_free(labels, rules.lesion_free)
    fields = {
        "labels": labels,
        "lesion_free": list(rules.lesion_free),
        "multi_label": multi_label,
    }
    return fields, [*notes, *words.notes()]


def _validate(table: pd.DataFrame, fields: dict[str, Any], csv: Path) -> None:
    """Check the values while lines are still those of the user's file."""
    checked = table.drop_duplicates("image")
    if "case_id" not in checked:
        checked = checked.assign(case_id=[f"row {line}" for line in checked.index])
    validate_cases(checked, make_spec(fields, str(csv)), csv)


def _gather(table: pd.DataFrame, root: Path, left_out: LeftOut) -> list[FoundCase]:
    own = [column for column in table.columns if column not in ("image", "mask", "label")]
    cases: dict[str, FoundCase] = {}
    for row in table.to_dict("records"):
        key = str(row["image"])
        if key not in cases:
            values = {column: row[column] for column in own}
            label = str(row.get("label", ""))
            cases[key] = FoundCase(image=root / key, label=label, values=values)
        mask = root / str(row["mask"]) if row.get("mask") else None
        if mask is None or mask in cases[key].masks:
            continue
        if mask.is_file():
            cases[key].masks.append(mask)
        else:
            left_out.mask(mask, "no such mask; its image is imported without it")
            cases[key].lacks_masks = True
    return list(cases.values())


def _leave_out_masks(cases: list[FoundCase], root: Path, left_out: LeftOut) -> list[FoundCase]:
    """Leave out the images that look like masks of other images, by name and by pixels."""
    pairing = find_masks([case.image for case in cases], root, MaskNaming())
    kept = []
    for case in cases:
        if case.image in pairing.masks or not looks_like_mask(case.image):
            kept.append(case)
        else:
            left_out.image(case.image, _LIKE)
            left_out.masks += len(case.masks)
    return kept


def _refuse_masks_as_images(table: pd.DataFrame, csv: Path) -> None:
    if "mask" not in table:
        return
    both = table[table["image"].isin(set(table["mask"]) - {""})]
    if not both.empty:
        line, name = both.index[0], both["image"].iloc[0]
        other = table.index[table["mask"] == name][0]
        raise DxsegError(
            f"{csv}: {len(both)} files are both an image and a mask, such as {name!r} (image of "
            f"row {line}, mask of row {other}); expected each in one column; correct the table "
            "or the mapping"
        )


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

"""Raw datasets of nnU-Net v2, with the image-level labels that nnU-Net cannot use."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from dxseg.data.exporters.nnunet_format import (
    Description,
    distinct,
    find_channel_files,
)
from dxseg.data.importers.image_dataset import FoundCase
from dxseg.data.importers.names import natural_key, plain_name
from dxseg.data.importers.nifti import volume_of_files
from dxseg.data.importers.report import LeftOut
from dxseg.data.readers.volume import FoundVolume
from dxseg.data.table.cases import validate_cases
from dxseg.data.table.spec import make_spec
from dxseg.data.table.words import Words
from dxseg.errors import DxsegError
from dxseg.io.user_tables import read_user_table

Skipped = list[tuple[str, str]]

LABEL_COLUMNS = ("case_id", "label", "patient_id")

_FOLDERS = (("imagesTr", "labelsTr"), ("imagesTs", "labelsTs"))


def find_raw_volumes(folder: Path, description: Description, skipped: Skipped) -> list[FoundVolume]:
    """Find the NIfTI volumes of a raw dataset and their label maps.

    Args:
        folder: The raw dataset; resolved.
        description: Its `dataset.json`.
        skipped: List to which files left out are added.
    """
    expected = len(description.channel_names)
    found: dict[str, FoundVolume] = {}
    for images, masks in _FOLDERS:
        files = find_channel_files(folder / images, description.file_ending, skipped)
        for case_id, channels in files.items():
            mask = folder / masks / f"{case_id}{description.file_ending}"
            if len(channels) != expected:
                reason = f"case {case_id} has {len(channels)} channel(s); expected {expected}"
                skipped.append((str(channels[0]), reason))
            elif case_id in found:
                skipped.append((str(channels[0]), f"case {case_id} is in imagesTr too"))
            elif not _leads_outside(folder, [*channels, mask], skipped):
                if not mask.is_file() and masks == "labelsTr":
                    skipped.append((str(mask), "no such mask; its image is imported without it"))
                own = mask if mask.is_file() else None
                found[case_id] = volume_of_files(case_id, tuple(channels), own)
    return list(found.values())


def channel_suffixes(description: Description) -> dict[str, str] | None:
    """End of the name of the file of each channel, by the channel's name; None for a single one.

    Args:
        description: The `dataset.json`.
    """
    if len(description.channel_names) == 1:
        return None
    numbers = sorted(description.channel_names, key=natural_key)
    names = distinct([description.channel_names[number] for number in numbers])
    return {name: f"_{position:04d}" for position, name in enumerate(names)}


def find_raw_images(folder: Path, description: Description, skipped: Skipped) -> list[FoundCase]:
    """Find the images of a raw dataset and their masks.

    Args:
        folder: The raw dataset.
        description: Its `dataset.json`.
        skipped: List to which files left out are added.

    Raises:
        DxsegError: There is no image.
    """
    ending = description.file_ending
    expected = len(description.channel_names)
    # nnU-Net takes one color file for three or four channels.
    counts = {expected, 1} if expected in (3, 4) else {expected}
    cases: dict[str, FoundCase] = {}
    for images, masks in _FOLDERS:
        for case_id, files in find_channel_files(folder / images, ending, skipped).items():
            if len(files) not in counts:
                reason = f"case {case_id} has {len(files)} channel(s); expected {expected}"
                skipped.append((str(files[0]), reason))
            elif case_id in cases:
                skipped.append((str(files[0]), f"case {case_id} is in imagesTr too"))
            else:
                mask = folder / masks / f"{case_id}{ending}"
                if not mask.is_file() and masks == "labelsTr":
                    skipped.append((str(mask), "no such mask; its image is imported without it"))
                cases[case_id] = FoundCase(
                    image=files[0],
                    more_channels=files[1:],
                    masks=[mask] if mask.is_file() else [],
                    values={"case_id": case_id},
                )
    if not cases:
        raise DxsegError(f"{folder}: no image in imagesTr or imagesTs; expected CASE_0000{ending}")
    return list(cases.values())


def note_unused_masks(folder: Path, ending: str, cases: Collection[str], left_out: LeftOut) -> None:
    """Count and name the masks that are of no case, such as `CASE_0000` instead of `CASE`.

    Args:
        folder: The raw dataset.
        ending: Suffix of its files.
        cases: The cases that were found.
        left_out: List to which the masks are added.
    """
    for _, masks in _FOLDERS:
        for path in sorted((folder / masks).glob("[!.]*")):
            if not path.name.endswith(ending):
                left_out.file(path, f"expected a mask of the type {ending}")
            elif plain_name(path.name.removesuffix(ending)) not in cases:
                left_out.mask(
                    path, f"mask of no imported case; expected the name CASE{ending}, no channel"
                )


def assign_labels(
    found: list[FoundCase], labels: str | Path, fields: dict[str, Any]
) -> tuple[list[str], list[str]]:
    """Assign the labels and patients of a table to images.

    Args:
        found: The images; those that are not in the table stay unlabeled.
        labels: CSV file with the columns case_id and label, optionally patient_id.
        fields: Fields of `DatasetSpec`, without the labels.

    Returns:
        The labels, sorted; and what was changed, as lines for the report of an import.

    Raises:
        DxsegError: The table is wrong or has an unknown case.
    """
    path = Path(labels)
    table, notes = _read_labels(path, fields["lesion_free"])
    names = sorted(set(table["label"]) - {""})
    validate_cases(table, make_spec({**fields, "labels": names}, str(labels)), path)
    _assign(found, table, path)
    return names, notes


def _leads_outside(folder: Path, files: list[Path], skipped: Skipped) -> bool:
    outside = [path for path in files if not path.resolve().is_relative_to(folder)]
    skipped.extend((str(path), f"a link leads outside {folder}") for path in outside)
    return bool(outside)


def _read_labels(path: Path, given: Sequence[str]) -> tuple[pd.DataFrame, list[str]]:
    """Read the label of each case, in a form that `validate_cases` checks."""
    table = read_user_table(path)
    absent = [column for column in ("case_id", "label") if column not in table]
    if absent or table.empty:
        raise DxsegError(
            f"{path}: {f'no column {absent[0]}' if absent else 'no rows'}; expected the columns "
            "case_id and label, optionally patient_id, and one row per case"
        )
    kept = [column for column in LABEL_COLUMNS if column in table]
    stripped = {column: table[column].str.strip() for column in kept}
    notes: list[str] = []
    for words in (Words("label", given=given), Words("patient_id", names_shown=False)):
        if words.column in stripped:
            spelled = words.spellings(stripped[words.column])
            stripped[words.column] = stripped[words.column].map(spelled)
            notes.extend(words.notes())
    # Any distinct name works: the images are not known yet.
    images = "case " + table["case_id"].str.strip()
    return pd.DataFrame({**stripped, "image": images}), notes


def _assign(found: list[FoundCase], table: pd.DataFrame, path: Path) -> None:
    """Assign rows to cases; a row without a case is probably a misspelt name."""
    cases = {str(case.values["case_id"]): case for case in found}
    unknown = table[~table["case_id"].isin(cases)]
    if len(unknown):
        first = unknown["case_id"].head(5)
        shown = ", ".join(f"row {line}: {name!r}" for line, name in first.items())
        raise DxsegError(
            f"{path}: column case_id: {len(unknown)} rows match no image ({shown}); expected the "
            f"file name without _0000 and suffix, such as {next(iter(cases))!r}; "
            "correct or remove these rows"
        )
    for row in table.to_dict("records"):
        case = cases[str(row["case_id"])]
        case.label = str(row["label"])
        case.values["patient_id"] = str(row.get("patient_id", ""))

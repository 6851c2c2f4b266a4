"""Importing a raw dataset of nnU-Net v2, with the image-level labels that nnU-Net cannot use."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from dxseg.data.exporters.nnunet_format import (
    DESCRIPTION_FILE,
    NIFTI_ENDINGS,
    Description,
    class_names,
    find_channel_files,
    read_description,
)
from dxseg.data.importers.image_dataset import FoundCase, write_dataset
from dxseg.data.importers.msd import import_raw_volumes
from dxseg.data.importers.report import ImportReport, Progress
from dxseg.data.readers.slicing import Slicing
from dxseg.data.table.cases import validate_cases
from dxseg.data.table.spec import make_spec
from dxseg.errors import DxsegError, UsageError
from dxseg.io.csv_io import read_table, separator_of

LABEL_COLUMNS = ("case_id", "label", "patient_id")

_FOLDERS = (("imagesTr", "labelsTr"), ("imagesTs", "labelsTs"))


def import_nnunet(
    source: str | Path,
    destination: str | Path,
    *,
    labels: str | Path | None = None,
    lesion_free: Sequence[str] = (),
    slicing: Slicing | None = None,
    lesion_classes: Sequence[str] = (),
    name: str | None = None,
    modality: str = "unknown",
    provenance: str = "",
    licence: str = "",
    overwrite: bool = False,
    progress: Progress | None = None,
) -> ImportReport:
    """Import a raw dataset of nnU-Net v2, a folder DatasetXXX_Name.

    Images of imagesTr get their mask from labelsTr, images of imagesTs from labelsTs if there is
    one. Channels in separate files (CASE_0000, CASE_0001) are stacked into one TIFF in the
    dataset's folder; other images are not copied. A mask with the value "ignore" is incomplete: its
    image is imported without a mask. Splits are not imported. NIfTI volumes are sliced as in
    `write_volumes`, with the class names of `dataset.json`.

    Args:
        source: Folder with `dataset.json`.
        destination: Folder of the new dataset.
        labels: CSV file with the columns case_id and label, optionally patient_id; other
            images stay unlabelled.
        lesion_free: Labels whose images have no lesion, so that their masks are empty.
        slicing: Rule by which volumes become images; volumes only.
        lesion_classes: Mask classes that are lesions, if others are organs; volumes only.
        name: Dataset name; default: folder name.
        modality: Free text, such as "ultrasound".
        provenance: Where the images come from.
        licence: Terms of use of the images.
        overwrite: Replace the dataset in `destination` if it has the same name.
        progress: Called with (done, total) after each image.

    Raises:
        UsageError: Options for volumes are given for images.
        DxsegError: `dataset.json` is absent or wrong, classes are regions, the table of labels is
            wrong or has an unknown case, or the destination has other files.
    """
    folder = Path(source).resolve()
    description = read_description(folder)
    fields: dict[str, Any] = {
        "name": name or folder.name,
        "modality": modality,
        "provenance": provenance,
        "licence": licence,
    }
    if description.file_ending in NIFTI_ENDINGS:
        return import_raw_volumes(
            folder,
            Path(destination),
            description,
            fields,
            slicing=slicing,
            lesion_classes=lesion_classes,
            lesion_free=lesion_free,
            labels=None if labels is None else Path(labels),
            overwrite=overwrite,
            progress=progress,
        )
    if slicing is not None or lesion_classes:
        raise UsageError(f"{folder}: contains images; slicing and lesion classes are for volumes")
    classes, ignore = class_names(description.labels, folder / DESCRIPTION_FILE)
    skipped: list[tuple[str, str]] = []
    found = _find(folder, description, skipped)
    table = None if labels is None else _read_labels(Path(labels))
    fields |= {
        "labels": [] if table is None else sorted(set(table["label"]) - {""}),
        "lesion_free": list(lesion_free),
        "mask_classes": classes,
    }
    if table is not None:
        validate_cases(table, make_spec(fields, str(labels)), Path(str(labels)))
        _assign(found, table, Path(str(labels)))
    report = write_dataset(
        found,
        folder,
        Path(destination),
        fields,
        skipped=skipped,
        overwrite=overwrite,
        progress=progress,
    )
    if ignore is not None:
        report.notes.append(f"masks with the value {ignore} (ignore) are among those skipped")
    return report


def _find(
    folder: Path, description: Description, skipped: list[tuple[str, str]]
) -> list[FoundCase]:
    ending = description.file_ending
    expected = len(description.channel_names)
    # nnU-Net takes one colour file for three or four channels.
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


def _read_labels(path: Path) -> pd.DataFrame:
    """Read the label of each case, in a form that `validate_cases` checks."""
    table = read_table(path, separator=separator_of(path))
    absent = [column for column in ("case_id", "label") if column not in table]
    if absent or table.empty:
        raise DxsegError(
            f"{path}: {f'no column {absent[0]}' if absent else 'no rows'}; expected the columns "
            "case_id and label, optionally patient_id, and one row per case"
        )
    kept = [column for column in LABEL_COLUMNS if column in table]
    stripped = {column: table[column].str.strip() for column in kept}
    # Any distinct name works: the images are not known yet.
    return pd.DataFrame({**stripped, "image": "case " + table["case_id"].str.strip()})


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

"""Commands that import images: `dxseg import busi`, `folder`, `csv` and `label-studio`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from dxseg.commands.options import (
    Columns,
    LesionFree,
    MaskClasses,
    Missing,
    OneHot,
    PatientPattern,
    PatientTable,
    StrPath,
    Suffix,
)
from dxseg.errors import UsageError

if TYPE_CHECKING:
    from dxseg.data.importers.label_studio import LabelStudioImport
    from dxseg.data.importers.report import ImportReport
else:
    ImportReport = LabelStudioImport = Any


def import_busi(
    source: StrPath,
    destination: StrPath,
    *,
    name: str = "BUSI",
    overwrite: bool = False,
) -> ImportReport:
    """Import BUSI breast ultrasound as published; several masks of an image are merged.

    BUSI has no patient identifiers and no pixel spacing: splits go by groups of near-duplicates,
    and distances are in pixels.

    Args:
        source: Folder with `benign/`, `malignant/`, `normal/`, or the one above it.
        destination: Folder of the new dataset.
        name: Dataset name.
        overwrite: Replace the dataset in `destination`.

    Raises:
        DxsegError: A class folder is missing, or the destination has other files.
    """
    from dxseg.data.importers.busi import FIELDS, find_busi
    from dxseg.data.importers.image_dataset import write_dataset
    from dxseg.data.importers.report import LeftOut
    from dxseg.io.progress import console, reporting

    left_out = LeftOut()
    found = find_busi(source, left_out)
    with reporting(console, "Importing") as progress:
        return write_dataset(
            found.cases,
            found.root,
            destination,
            {"name": name, **FIELDS},
            skipped=left_out,
            overwrite=overwrite,
            progress=progress,
        )


def import_folder(
    source: StrPath,
    destination: StrPath,
    *,
    name: str | None = None,
    lesion_free: LesionFree = (),
    masks_root: StrPath | None = None,
    mask_suffix: Suffix | None = None,
    keep_mask_like: bool = False,
    mask_classes: MaskClasses = ("lesion",),
    patients: PatientTable | None = None,
    patient_pattern: PatientPattern | None = None,
    modality: str = "unknown",
    provenance: str = "",
    licence: str = "",
    overwrite: bool = False,
) -> ImportReport:
    """Import a folder of images with their masks; subfolders may be the labels.

    Masks are found by any usual name, beside the images or in a folder of their own:
    `NAME_mask.png`, `seg-NAME.png`, `NAME_GT_2.png`, `masks/NAME.png`, `labelsTr/NAME.png`; the
    file type may differ. The report shows how they are named. What looks like a mask, but is not
    named so, is left out with a question. Folders such as `images` and `train` are no labels.
    Several masks of an image are merged. Images are not copied. Hidden files are ignored.

    Args:
        source: Folder of images, searched through all levels; subfolders are labels.
        destination: Folder of the new dataset.
        name: Dataset name; default: folder name.
        lesion_free: A label whose images have no lesion, so that their masks are empty. May be
            repeated.
        masks_root: Folder of the masks, in subfolders as the images or in none; default: search in
            `source`.
        mask_suffix: The only text that a mask adds to the name of its image, such as `_outline`;
            default: any usual word.
        keep_mask_like: Import what looks like a mask, but is not named so, as an image.
        mask_classes: Name of a mask value, for the values 1, 2, ... May be repeated.
        patients: Table of patients: the columns `patient_id` and `image`, or `folder`; default:
            derived from folders and `sub-*`, which is a guess.
        patient_pattern: Regular expression that is searched in the path of an image; its first
            group, or the match, is the patient.
        modality: Free text, such as `ultrasound`.
        provenance: Where the images come from.
        licence: Terms of use of the images.
        overwrite: Replace the dataset in `destination`.

    Raises:
        DxsegError: There is no image, `masks_root` has no mask of any, a lesion-free label has no
            folder, or the destination has other files.
    """
    from dxseg.data.importers.folder import find_in_folders
    from dxseg.data.importers.image_dataset import write_dataset
    from dxseg.data.importers.labels import describe_labels, read_case_labels
    from dxseg.data.importers.mask_owner import MaskNaming
    from dxseg.data.importers.patients import PatientRules, fill_patients
    from dxseg.data.importers.report import LeftOut
    from dxseg.data.table.words import Words
    from dxseg.io.progress import console, reporting

    patient_table = None if patients is None else Path(patients)
    rules = PatientRules(patient_table, patient_pattern, Path(source).resolve())
    left_out = LeftOut()
    found = find_in_folders(
        source,
        masks_root,
        MaskNaming(mask_suffix),
        destination,
        left_out,
        keep_mask_like=keep_mask_like,
    )
    known = fill_patients(found.cases, rules, found.labels)
    words = Words("label", given=lesion_free)
    labels = read_case_labels(found.cases, found.labels, words)
    fields = {
        "name": name or Path(source).resolve().name,
        "modality": modality,
        "labels": found.labels,
        "lesion_free": list(lesion_free),
        "mask_classes": list(mask_classes),
        "provenance": provenance,
        "licence": licence,
        "patients_from": known.derived_from,
    }
    with reporting(console, "Importing") as progress:
        report = write_dataset(
            found.cases,
            found.root,
            destination,
            fields,
            skipped=left_out,
            overwrite=overwrite,
            progress=progress,
            notes=found.notes,
        )
    notes = describe_labels(labels, lesion_free, multi_label=False)
    report.notes.extend([*known.notes, *words.notes(), *notes])
    return report


def import_csv(
    table: StrPath,
    destination: StrPath,
    *,
    columns: Columns,
    images_root: StrPath | None = None,
    name: str | None = None,
    labels: Annotated[Sequence[str] | None, Parameter(name="--label", metavar="LABEL")] = None,
    lesion_free: LesionFree = (),
    multi_label: bool = False,
    label_separator: str | None = None,
    one_hot: OneHot = None,
    missing: Missing = (),
    patients: PatientTable | None = None,
    patient_pattern: PatientPattern | None = None,
    mask_classes: MaskClasses = ("lesion",),
    modality: str = "unknown",
    spacing_unit: Literal["mm", "pixel"] | None = None,
    provenance: str = "",
    licence: str = "",
    overwrite: bool = False,
) -> ImportReport:
    """Import images that a table lists, with its columns mapped to those of dxseg.

    The table is CSV, separated by commas, semicolons, tabs or "|", or an Excel workbook (extra
    `excel`). Several rows of one image, one for each mask, become one case with the masks merged.
    Images are not copied. Paths without a file type get that of the file that exists; names that
    differ from the file's in Unicode form or case are found.

    Words for nothing (NA, nan, none, null, unknown, ?, ...) are empty values, unless `labels` or
    `lesion_free` names them. Labels and patients that differ only in case, blanks or `.0` are one.
    The report tells both.

    Args:
        table: The table, with a header.
        destination: Folder of the new dataset.
        columns: Column of the table for a field of `cases.csv`, such as `label=diagnosis`; `image`
            is required. May be repeated. In Python a mapping: `{"image": "file"}`.
        images_root: Folder that paths are relative to; default: the table's.
        name: Dataset name; default: name of the table's folder.
        labels: A label, in the order wanted; default: those in the table, sorted. May be repeated.
        lesion_free: A label whose images have no lesion, so that their masks are empty. May be
            repeated.
        multi_label: A value may list several labels, such as `a;b` or `a|b`.
        label_separator: Text between the labels of a list; default: the one that the column uses.
        one_hot: Columns that are labels, with 1 where an image has it, as in the tables of ISIC and
            CheXpert; without a name all columns that hold only 0, 1, -1 (uncertain: the image is
            then unlabelled) and nothing.
        missing: A word that means nothing, besides the usual ones. May be repeated.
        patients: Table of patients: the columns `patient_id` and `image`, or `folder`; default:
            the column that is mapped, else derived from folders and `sub-*`, which is a guess.
        patient_pattern: Regular expression that is searched in the path of an image; its first
            group, or the match, is the patient.
        mask_classes: Name of a mask value, for the values 1, 2, ... May be repeated.
        modality: Free text, such as `ultrasound`.
        spacing_unit: Unit of the spacing; default: mm if there are spacing columns.
        provenance: Where the images come from.
        licence: Terms of use of the images.
        overwrite: Replace the dataset in `destination`.

    Raises:
        UsageError: Labels are given in two ways.
        DxsegError: A column is missing, values are wrong (named by line), rows of one image
            contradict each other, or the destination has other files.
    """
    from dxseg.data.importers.csv import TableRules, find_listed
    from dxseg.data.importers.image_dataset import write_dataset
    from dxseg.data.importers.labels import describe_labels
    from dxseg.data.importers.patients import BY_NAMES, PatientRules, Patients, fill_patients
    from dxseg.io.progress import console, reporting

    csv = Path(table).resolve()
    root = csv.parent if images_root is None else Path(images_root).resolve()
    rules = TableRules(
        columns,
        labels=labels,
        lesion_free=lesion_free,
        multi_label=multi_label,
        separator=label_separator,
        one_hot=one_hot,
        missing=missing,
    )
    patient_rules = PatientRules(None if patients is None else Path(patients), patient_pattern)
    spaced = not {"spacing_y", "spacing_x"}.isdisjoint(columns)
    fields = {
        "name": name or csv.parent.name,
        "modality": modality,
        "mask_classes": list(mask_classes),
        "spacing_unit": spacing_unit or ("mm" if spaced else "pixel"),
        "provenance": provenance,
        "licence": licence,
    }
    skipped: list[tuple[str, str]] = []
    found = find_listed(csv, root, rules, fields, skipped)
    known = Patients([])
    if patient_rules != BY_NAMES or "patient_id" not in columns:
        known = fill_patients(
            found.cases, replace(patient_rules, root=root), found.fields["labels"]
        )
    with reporting(console, "Importing") as progress:
        report = write_dataset(
            found.cases,
            root,
            destination,
            {**fields, **found.fields, "patients_from": known.derived_from},
            skipped=skipped,
            overwrite=overwrite,
            progress=progress,
        )
    report.notes.extend([*found.notes, *known.notes, *describe_labels(**found.fields)])
    return report


def import_label_studio(
    export: StrPath,
    dataset: StrPath,
    *,
    role: Literal["radiologist", "clinician", "radiographer", "researcher", "trainee", "other"],
) -> LabelStudioImport:
    """Import masks drawn or corrected in Label Studio into the dataset of their cases.

    A task belongs to the case that its data names as `case_id`, as `dxseg export label-studio`
    writes it. Of several annotations the last one counts; skipped ones do not. A mask replaces the
    one the case has, and `annotations.csv` records it; repeated, the import changes nothing.

    Args:
        export: The JSON file that Label Studio exported (not JSON-MIN).
        dataset: Dataset that gets the masks.
        role: Role of the annotator; names are not kept.

    Raises:
        UsageError: The role is unknown.
        DxsegError: The export or the dataset cannot be read or written. A task that is wrong is
            reported, and the others are imported.
    """
    from dxseg.data.importers.label_studio import read_tasks, save_masks
    from dxseg.data.table.dataset import Dataset
    from dxseg.data.table.records import ROLES
    from dxseg.io.progress import console, reporting

    if role not in ROLES:
        raise UsageError(f"role {role!r}: expected one of {', '.join(ROLES)}; names are not stored")
    data = Dataset.load(dataset)
    tasks = read_tasks(Path(export))
    with reporting(console, "Importing") as progress:
        return save_masks(tasks, data, role, progress)

"""The command `dxseg import csv`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from dxseg.commands.dry_run import with_dry_run
from dxseg.commands.options import (
    Columns,
    LesionFree,
    MaskClasses,
    MaskColors,
    Missing,
    OneHot,
    PatientPattern,
    PatientTable,
    StrPath,
)
from dxseg.errors import UsageError

if TYPE_CHECKING:
    from dxseg.data.importers.report import ImportReport
else:
    ImportReport = Any


@with_dry_run
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
    keep_mask_like: bool = False,
    mask_classes: MaskClasses = ("lesion",),
    mask_colors: MaskColors | None = None,
    modality: str = "unknown",
    spacing_unit: Literal["mm", "pixel"] | None = None,
    provenance: str = "",
    licence: str = "",
    overwrite: bool = False,
    dry_run: bool = False,  # noqa: ARG001 - with_dry_run obeys it
) -> ImportReport:
    """Import images that a table lists, with its columns mapped to those of dxseg.

    The table is CSV, separated by commas, semicolons, tabs or "|", or an Excel workbook (extra
    `excel`). Several rows of one image, one for each mask, become one case with the masks merged.
    Images are not copied. Paths without a file type get that of the file that exists; names that
    differ from the file's in Unicode form or case are found.

    Words for nothing (NA, nan, none, null, unknown, ?, ...) are empty values, unless `labels` or
    `lesion_free` names them. Labels and patients that differ only in case, blanks or `.0` are one.
    The report says both. An image that looks like the mask of another row's is left out.

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
            then unlabeled) and nothing.
        missing: A word that means nothing, besides the usual ones. May be repeated.
        patients: Table of patients: the columns `patient_id` and `image`, or `folder`; default:
            the column that is mapped, else derived from folders and `sub-*`, which is a guess.
        patient_pattern: Regular expression that is searched in the path of an image; its first
            group, or the match, is the patient.
        keep_mask_like: Import an image that looks like the mask of another row's image.
        mask_classes: Name of a mask value, for the values 1, 2, ...; or `VALUE=CLASS`, such as
            `76=lesion`. May be repeated.
        mask_colors: Class of a color of color masks, such as `#00ff00=lesion`. May be repeated. In
            Python a mapping.
        modality: Free text, such as `ultrasound`.
        spacing_unit: Unit of the spacing; default: mm if there are spacing columns.
        provenance: Where the images come from.
        licence: Terms of use of the images.
        overwrite: Replace the dataset in `destination`.
        dry_run: Import into a temporary folder and report, with five examples; nothing stays.

    Raises:
        UsageError: Labels are given in two ways.
        DxsegError: A column is missing, values are wrong (named by line), rows of one image
            contradict each other, or the destination has other files.
    """
    from dxseg.data.importers.csv import TableRules, find_listed
    from dxseg.data.importers.image_dataset import write_dataset
    from dxseg.data.importers.labels import describe_labels
    from dxseg.data.importers.mask_values import parse_rule
    from dxseg.data.importers.patients import PatientRules, Patients, fill_patients
    from dxseg.data.importers.report import LeftOut
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
    patients_from = PatientRules(patients, patient_pattern, root)
    rule = parse_rule(mask_classes, mask_colors or {})
    if rule.structures:
        raise UsageError(f"--mask-class {mask_classes[0]}: expected CLASS or VALUE=CLASS")
    spaced = not {"spacing_y", "spacing_x"}.isdisjoint(columns)
    fields = {
        "name": name or csv.parent.name,
        "modality": modality,
        "mask_classes": rule.classes,
        "spacing_unit": spacing_unit or ("mm" if spaced else "pixel"),
        "provenance": provenance,
        "licence": licence,
    }
    left_out = LeftOut()
    found = find_listed(csv, root, rules, fields, left_out, keep_mask_like=keep_mask_like)
    known = Patients([])
    if not patients_from.are_derived or "patient_id" not in columns:
        known = fill_patients(found.cases, patients_from, found.fields["labels"])
    with reporting(console, "Importing") as progress:
        report = write_dataset(
            found.cases,
            root,
            destination,
            {**fields, **found.fields, "patients_from": known.derived_from},
            skipped=left_out,
            overwrite=overwrite,
            progress=progress,
            rule=rule,
        )
    report.notes.extend([*found.notes, *known.notes, *describe_labels(**found.fields)])
    return report

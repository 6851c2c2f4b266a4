"""Commands that import images: `dxseg import busi`, `folder` and `label-studio`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dxseg.commands.dry_run import with_dry_run
from dxseg.commands.options import (
    LesionFree,
    MaskClasses,
    MaskColors,
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


@with_dry_run
def import_busi(
    source: StrPath,
    destination: StrPath,
    *,
    name: str = "BUSI",
    overwrite: bool = False,
    dry_run: bool = False,  # noqa: ARG001 - with_dry_run obeys it
) -> ImportReport:
    """Import BUSI breast ultrasound as published; several masks of an image are merged.

    BUSI has no patient identifiers and no pixel spacing: splits go by groups of near-duplicates,
    and distances are in pixels.

    Args:
        source: Folder with `benign/`, `malignant/`, `normal/`, or the one above it.
        destination: Folder of the new dataset.
        name: Dataset name.
        overwrite: Replace the dataset in `destination`.
        dry_run: Import into a temporary folder and report, with five examples; nothing stays.

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


@with_dry_run
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
    mask_colors: MaskColors | None = None,
    patients: PatientTable | None = None,
    patient_pattern: PatientPattern | None = None,
    modality: str = "unknown",
    provenance: str = "",
    licence: str = "",
    overwrite: bool = False,
    dry_run: bool = False,  # noqa: ARG001 - with_dry_run obeys it
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
        mask_classes: Name of a mask value, for the values 1, 2, ...; or `VALUE=CLASS`, such as
            `76=lesion`; or `STRUCTURE=CLASS`, where masks of several structures are files of their
            own. May be repeated.
        mask_colors: Class of a color of color masks, such as `#00ff00=lesion`. May be repeated. In
            Python a mapping.
        patients: Table of patients: the columns `patient_id` and `image`, or `folder`; default:
            derived from folders and `sub-*`, which is a guess.
        patient_pattern: Regular expression that is searched in the path of an image; its first
            group, or the match, is the patient.
        modality: Free text, such as `ultrasound`.
        provenance: Where the images come from.
        licence: Terms of use of the images.
        overwrite: Replace the dataset in `destination`.
        dry_run: Import into a temporary folder and report, with five examples; nothing stays.

    Raises:
        DxsegError: There is no image, `masks_root` has no mask of any, a lesion-free label has no
            folder, or the destination has other files.
    """
    from dxseg.data.importers.folder import choose_structures, find_in_folders
    from dxseg.data.importers.image_dataset import write_dataset
    from dxseg.data.importers.labels import check_lesion_free, describe_labels, read_case_labels
    from dxseg.data.importers.mask_owner import MaskNaming
    from dxseg.data.importers.mask_values import DEFAULT_CLASSES, parse_rule
    from dxseg.data.importers.patients import PatientRules, fill_patients
    from dxseg.data.importers.report import LeftOut
    from dxseg.data.table.words import Words
    from dxseg.io.progress import console, reporting

    rules = PatientRules(patients, patient_pattern, Path(source).resolve())
    left_out = LeftOut()
    found = find_in_folders(
        source,
        masks_root,
        MaskNaming(mask_suffix),
        destination,
        left_out,
        keep_mask_like=keep_mask_like,
        known_labels=lesion_free,
    )
    known = fill_patients(found.cases, rules, found.labels)
    words = Words("label", given=lesion_free)
    labels = read_case_labels(found.cases, found.labels, words)
    check_lesion_free(labels, lesion_free)
    is_default = tuple(mask_classes) == DEFAULT_CLASSES and not mask_colors
    rule = parse_rule(mask_classes, mask_colors or {})
    rule = choose_structures(found, rule, is_default, left_out)
    fields = {
        "name": name or Path(source).resolve().name,
        "modality": modality,
        "labels": found.labels,
        "lesion_free": list(lesion_free),
        "mask_classes": rule.classes,
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
            rule=rule,
        )
    notes = describe_labels(labels, lesion_free, multi_label=False)
    report.notes.extend([*known.notes, *words.notes(), *notes])
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

"""The command that imports polygons: `dxseg import annotations`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from dxseg.commands.dry_run import with_dry_run
from dxseg.commands.options import LesionFree, PatientPattern, PatientTable, Regions, StrPath
from dxseg.errors import DxsegError, UsageError

if TYPE_CHECKING:
    from dxseg.data.importers.report import ImportReport
else:
    ImportReport = Any


@with_dry_run
def import_annotations(
    source: StrPath,
    destination: StrPath,
    *,
    images_root: StrPath | None = None,
    regions: Regions | None = None,
    lesion_free: LesionFree = (),
    patients: PatientTable | None = None,
    patient_pattern: PatientPattern | None = None,
    name: str | None = None,
    modality: str = "unknown",
    provenance: str = "",
    licence: str = "",
    overwrite: bool = False,
    dry_run: bool = False,  # noqa: ARG001 - with_dry_run obeys it
) -> ImportReport:
    """Import images with polygons or run lengths of annotation tools, which become masks.

    COCO, LabelMe, VIA and Label Studio (JSON), CVAT for images and Pascal VOC (XML), YOLO (folder).
    An image has the labels of its shapes. Boxes, lines and points are no masks: an image with some
    keeps its labels and has no mask. Images are not copied.

    Args:
        source: File of annotations, or a folder of them.
        destination: Folder of the new dataset.
        images_root: Folder of the images, searched through all levels; default: that of `source`.
        regions: Mask class of a label, such as `polyp=lesion`; others are left out. Default: each
            label is a mask class. May be repeated.
        lesion_free: Label of images that are listed without a shape, if that means that they have
            no lesion; default: they are unlabeled.
        patients: Table of patients: the columns `patient_id` and `image`, or `folder`; default:
            derived from folders and `sub-*`, which is a guess.
        patient_pattern: Regular expression that is searched in the path of an image; its first
            group, or the match, is the patient.
        name: Dataset name; default: name of `source` without its suffix.
        modality: Free text, such as `ultrasound`.
        provenance: Where the images come from.
        licence: Terms of use of the images.
        overwrite: Replace the dataset in `destination`.
        dry_run: Import into a temporary folder and report, with five examples; nothing stays.

    Raises:
        UsageError: There are no annotations, a label does not occur, `lesion_free` names several,
            or a package is missing.
        DxsegError: The file is damaged, no shape can be drawn, or the destination has other files.
    """
    from dxseg.data.importers.annotations.masks import (
        DrawnMasks,
        draw_all,
        join_labels,
        mask_values,
    )
    from dxseg.data.importers.annotations.read import read_annotations
    from dxseg.data.importers.destination import open_destination
    from dxseg.data.importers.image_dataset import write_dataset
    from dxseg.data.importers.patients import PatientRules, fill_patients
    from dxseg.io.progress import console, reporting

    if len(lesion_free) > 1:
        raise UsageError(
            f"--lesion-free {', '.join(lesion_free)}: images without a shape get one label; give "
            "only that"
        )
    path, target = Path(source).resolve(), Path(destination).resolve()
    root = Path(images_root).resolve() if images_root else path if path.is_dir() else path.parent
    if not root.is_dir():
        raise DxsegError(f"{root}: no such folder; expected the folder of the images")
    rules = PatientRules(patients, patient_pattern, root)
    annotations = read_annotations(path)
    joined = join_labels(annotations, [*(regions or {}), *lesion_free])
    classes, values = mask_values(annotations, regions or {})
    title = name or path.stem
    open_destination(target, title, overwrite)
    free = lesion_free[0] if lesion_free else ""
    masks = DrawnMasks(root, target, classes, values, free, annotations.skipped)
    found = list(draw_all(annotations, masks))
    if not any(case.masks for case in found):
        reasons = [*masks.notes(), *(f"{name}: {reason}" for name, reason in masks.skipped[:3])]
        raise DxsegError(f"{path}: no mask could be drawn; {'; '.join(reasons)}")
    known = fill_patients(found, rules)
    used = {label for case in found for label in case.label.split(";") if label}
    fields = {
        "name": title,
        "modality": modality,
        "labels": [label for label in (free, *classes) if label in used],
        "lesion_free": [free] if free in used else [],
        "multi_label": any(";" in case.label for case in found),
        "mask_classes": classes,
        "provenance": provenance,
        "licence": licence,
        "patients_from": known.derived_from,
    }
    with reporting(console, "Importing") as progress:
        return write_dataset(
            found,
            root,
            target,
            fields,
            skipped=annotations.skipped,
            overwrite=overwrite,
            progress=progress,
            notes=[*masks.notes(), *joined, *annotations.notes, *known.notes],
        )

"""Commands that import volumes as slices: `dxseg import volumes` and `msd`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from dxseg.commands.dry_run import with_dry_run
from dxseg.commands.import_dicom import import_dicom
from dxseg.commands.options import (
    Channels,
    Columns,
    LesionClasses,
    LesionFree,
    MaskValues,
    PatientPattern,
    PatientTable,
    Regions,
    Replacement,
    SlicingOptions,
    StrPath,
    Suffix,
)
from dxseg.errors import UsageError, refuse_unused

if TYPE_CHECKING:
    from dxseg.data.importers.report import ImportReport
else:
    ImportReport = Any


@with_dry_run
def import_volumes(
    source: StrPath,
    destination: StrPath,
    *,
    name: str | None = None,
    channels: Channels | None = None,
    masks_root: StrPath | None = None,
    mask_suffix: Suffix | None = None,
    mask_replace: Replacement | None = None,
    keep_mask_like: bool = False,
    masks_by_voxel: bool = False,
    mask_values: MaskValues | None = None,
    regions: Regions | None = None,
    lesion_classes: LesionClasses = (),
    lesion_label: str | None = None,
    lesion_free: LesionFree = (),
    slice_labels_known: bool = False,
    ignore_value: int | None = None,
    labels: StrPath | None = None,
    label_columns: Columns | None = None,
    patients: PatientTable | None = None,
    patient_pattern: PatientPattern | None = None,
    modality: str = "unknown",
    provenance: str = "",
    licence: str = "",
    overwrite: bool = False,
    dry_run: bool = False,  # noqa: ARG001 - with_dry_run obeys it
    **slicing: Unpack[SlicingOptions],
) -> ImportReport:
    """Import volumes (CT, MR) as slices, with their label maps.

    Label maps are found by any usual name, beside the volumes or in a folder of their own:
    `NAME_seg.nii`, `labelsTr/NAME.nii.gz`. Several files of one volume are structures
    (TotalSegmentator's `CASE/segmentations/liver.nii.gz`), each a mask class. A volume that looks
    like a label map, but is not named so, is left out with a question. Files are NIfTI, or
    with the extra `itk` NRRD and MetaImage. A folder with none of them but with DICOM series is
    imported as by `dxseg import dicom`.

    Args:
        source: Folder of volumes or DICOM series, searched through all levels.
        destination: Folder of the new dataset.
        name: Dataset name; default: folder name.
        channels: Name of a sequence and the end of the name of its file, such as `flair=_flair`,
            where a volume has several files on one grid; in the order of the channels. May be
            repeated. In Python a mapping.
        masks_root: Folder of the label maps, in subfolders as the volumes or in none; default:
            search in `source`.
        mask_suffix: The only text that a label map adds to the name of its volume, such as
            `_outline`; default: any usual word.
        mask_replace: Text of a volume's name and what the label map has instead, such as
            `volume=segmentation`, in place of such an added text. In Python a pair of texts.
        keep_mask_like: Import a volume that looks like a label map, but is not named so.
        masks_by_voxel: Lay a label map of its volume's shape on it voxel by voxel where the headers
            place them apart, as of some volumes of LiTS; default: it is left out.
        mask_values: Mask class of a value of the label maps, such as `2=tumour`; default:
            `1=lesion`. May be repeated. In Python a mapping: `{2: "tumour"}`.
        regions: Mask class of a structure that has its own file, such as `lesion=lesion`; default:
            each is one. May be repeated. In Python a mapping.
        lesion_classes: A mask class that is a lesion; default: all, but of structures those whose
            names are lesions. May be repeated.
        lesion_label: Label of slices whose mask shows a lesion, where the table of labels has none;
            default: the lesion class.
        lesion_free: Label of slices without a lesion; default: `no LESION_LABEL`. May be repeated.
        slice_labels_known: The labels of slices, which follow from the label maps, are known
            without these; default: of a volume whose label map is hidden only its own label is.
        ignore_value: Value of the label maps for voxels that nobody has judged, such as 255: the
            masks of slices with such voxels are unknown, not empty.
        labels: Table of labels: of a `slice_index`, of a `slab` (0, 1 or 2: a third of the slices)
            or of all slices; and of `annotated_slices`, such as `3-7;12`: the masks of the other
            slices are unknown, not empty.
        label_columns: Column of that table for a field, such as `label=diagnosis`. May be repeated.
            In Python a mapping.
        patients: Table of patients: the columns `patient_id` and `image`, or `folder`; default:
            derived from folders and `sub-*`, which is a guess.
        patient_pattern: Regular expression that is searched in the path of a volume; its first
            group, or the match, is the patient.
        modality: Free text, such as `CT`.
        provenance: Where the volumes come from.
        licence: Terms of use of the volumes.
        overwrite: Replace the dataset in `destination`.
        dry_run: Import into a temporary folder and report, with five examples; nothing stays.
        **slicing: How volumes become slices; see `SlicingOptions`.

    Raises:
        UsageError: Options exclude each other, or a value is wrong.
        DxsegError: There is no volume, the table of labels is wrong, or the destination has other
            files.
    """
    from dxseg.data.importers.mask_owner import MaskNaming
    from dxseg.data.importers.nifti import find_volumes
    from dxseg.data.importers.patients import PatientRules
    from dxseg.data.importers.report import LeftOut
    from dxseg.data.importers.volume_dataset import DEFAULT_MASK_VALUES, write_volumes
    from dxseg.data.readers.slicing import make_slicing
    from dxseg.io.progress import console, reporting

    rule = make_slicing(sequences=channels, **slicing)
    rules = PatientRules(patients, patient_pattern, Path(source).resolve())
    left_out = LeftOut()
    found = find_volumes(
        source,
        masks_root,
        MaskNaming(mask_suffix, mask_replace),
        destination,
        left_out,
        suffixes=rule.suffixes,
        regions=regions,
        lesion_classes=lesion_classes,
        ignore_value=ignore_value,
        keep_mask_like=keep_mask_like,
        masks_by_voxel=masks_by_voxel,
    )
    if not found.volumes:
        refuse_unused(
            f"{source}: of DICOM series each is a volume, its masks are SEG or RTSTRUCT objects "
            "beside it, and its patient and modality are named (dcm2niix converts series)",
            {
                "--channel": channels,
                "--masks-root": masks_root,
                "--mask-suffix": mask_suffix,
                "--mask-replace": mask_replace,
                "--masks-by-voxel": masks_by_voxel,
                "--ignore-value": ignore_value is not None,
                "--modality": modality != "unknown",
                "--patients": patients,
                "--patient-pattern": patient_pattern,
            },
        )
        named = {str(value): name for value, name in (mask_values or {}).items()}
        return import_dicom(
            source,
            destination,
            volumes_only=True,
            keep_mask_like=keep_mask_like,
            regions={**named, **(regions or {})} or None,
            lesion_classes=lesion_classes,
            lesion_label=lesion_label,
            lesion_free=lesion_free,
            slice_labels_known=slice_labels_known,
            labels=labels,
            label_columns=label_columns,
            name=name,
            provenance=provenance,
            licence=licence,
            overwrite=overwrite,
            **slicing,
        )
    if found.structures and mask_values is not None:
        raise UsageError("--mask-value: label maps are one file per structure; give --region")
    values = DEFAULT_MASK_VALUES if mask_values is None else mask_values
    values = found.structures or values
    fields = {
        "name": name or Path(source).resolve().name,
        "modality": modality,
        "provenance": provenance,
        "licence": licence,
    }
    with reporting(console, "Importing volumes") as progress:
        return write_volumes(
            found.volumes,
            destination,
            fields,
            slicing=rule,
            mask_values=values,
            lesion_classes=lesion_classes or found.lesions,
            lesion_label=lesion_label,
            lesion_free=lesion_free,
            slice_labels_known=slice_labels_known,
            ignore_value=ignore_value,
            labels=labels,
            label_columns=label_columns,
            patients=rules,
            skipped=left_out,
            overwrite=overwrite,
            progress=progress,
            notes=found.notes,
        )


@with_dry_run
def import_msd(
    source: StrPath,
    destination: StrPath,
    *,
    name: str | None = None,
    lesion_classes: LesionClasses = (),
    slice_labels_known: bool = False,
    labels: StrPath | None = None,
    patients: PatientTable | None = None,
    patient_pattern: PatientPattern | None = None,
    overwrite: bool = False,
    dry_run: bool = False,  # noqa: ARG001 - with_dry_run obeys it
    **slicing: Unpack[SlicingOptions],
) -> ImportReport:
    """Import a task of the Medical Segmentation Decathlon as slices.

    Several modalities, the fourth dimension of the files, become channels.

    Args:
        source: Folder of the task, with `dataset.json`.
        destination: Folder of the new dataset.
        name: Dataset name; default: folder name.
        lesion_classes: A mask class that is a lesion; default: all. May be repeated.
        slice_labels_known: The labels of slices are known without the label maps; default: of a
            volume whose label map is hidden only its own label is known.
        labels: Table with the columns `volume_id` and `label`, for test volumes.
        patients: Table of patients: the columns `patient_id` and `image`; default: derived from
            names, which is a guess.
        patient_pattern: Regular expression that is searched in the name of a volume; its first
            group, or the match, is the patient.
        overwrite: Replace the dataset in `destination`.
        dry_run: Import into a temporary folder and report, with five examples; nothing stays.
        **slicing: How volumes become slices; see `SlicingOptions`.

    Raises:
        UsageError: A lesion class is not in `dataset.json`, or a value is wrong.
        DxsegError: `dataset.json` is wrong, or the destination has other files.
    """
    from dxseg.data.importers.msd import find_task_volumes, read_task
    from dxseg.data.importers.patients import PatientRules
    from dxseg.data.importers.volume_dataset import write_volumes
    from dxseg.data.readers.slicing import make_slicing
    from dxseg.io.progress import console, reporting

    folder = Path(source).resolve()
    rules = PatientRules(patients, patient_pattern, folder)
    task = read_task(folder)
    several = dict.fromkeys(task.sequences) if len(task.sequences) > 1 else None
    rule = make_slicing(sequences=several, **slicing)
    fields = {
        "name": name or folder.name,
        "modality": ", ".join(task.sequences),
        "provenance": task.reference,
        "licence": task.licence,
    }
    found = find_task_volumes(folder, task)
    with reporting(console, "Importing volumes") as progress:
        return write_volumes(
            found,
            destination,
            fields,
            slicing=rule,
            mask_values={value: name for value, name in task.labels.items() if value != 0},
            lesion_classes=lesion_classes,
            slice_labels_known=slice_labels_known,
            labels=labels,
            patients=rules,
            overwrite=overwrite,
            progress=progress,
        )

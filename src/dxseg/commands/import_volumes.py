"""Commands that import volumes as slices: `dxseg import volumes`, `dicom` and `msd`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from dxseg.commands.imports import LesionClasses, LesionFree, Suffix
from dxseg.commands.options import (
    Axis,
    Bits,
    Columns,
    MaskValues,
    Regions,
    Replacement,
    StrPath,
)

if TYPE_CHECKING:
    from dxseg.data.importers.report import ImportReport
else:
    ImportReport = Any

DEFAULT_MASK_VALUES: Mapping[int, str] = {1: "lesion"}


def import_volumes(
    source: StrPath,
    destination: StrPath,
    *,
    name: str | None = None,
    masks_root: StrPath | None = None,
    mask_suffix: Suffix = "_mask",
    mask_replace: Replacement | None = None,
    axis: Axis = "through-plane",
    window: str = "percentiles",
    neighbours: int = 0,
    bits: Bits = 8,
    mask_values: MaskValues | None = None,
    lesion_classes: LesionClasses = (),
    lesion_label: str | None = None,
    lesion_free: LesionFree = (),
    labels: StrPath | None = None,
    label_columns: Columns | None = None,
    modality: str = "unknown",
    provenance: str = "",
    licence: str = "",
    overwrite: bool = False,
) -> ImportReport:
    """Import NIfTI volumes (CT, MR) as slices, with their label maps.

    A label map has its volume's path, below `masks_root` if that is given; its name adds
    `mask_suffix`, or follows `mask_replace`, or (in a parallel folder) is the same. A folder
    without NIfTI but with DICOM series is imported as by `dxseg import dicom`.

    Args:
        source: Folder of NIfTI files or DICOM series, searched through all levels.
        destination: Folder of the new dataset.
        name: Dataset name; default: folder name.
        masks_root: Root of label maps in a parallel folder; default: beside the volumes.
        mask_suffix: `NAME_mask.nii` is the label map of `NAME.nii`.
        mask_replace: Text of a volume's name and what the label map has instead, such as
            `volume=segmentation`; replaces `mask_suffix`. In Python a pair of texts.
        axis: Plane of the slices; `through-plane` cuts along the axis of the coarsest spacing.
        window: Grey-value window: `liver`, `lung`, `brain`, `abdomen`, `LEVEL,WIDTH`, or
            `percentiles` of the volume.
        neighbours: Neighbouring slices added as channels on each side (2.5D).
        bits: Bit depth of the slice images.
        mask_values: Mask class of a value of the label maps, such as `2=tumour`; default:
            `1=lesion`. May be repeated. In Python a mapping: `{2: "tumour"}`.
        lesion_classes: A mask class that is a lesion; default: all. May be repeated.
        lesion_label: Label of slices whose mask shows a lesion; default: the lesion class.
        lesion_free: Label of slices without a lesion; default: `no LESION_LABEL`. May be repeated.
        labels: Table of labels, for volumes without a label map.
        label_columns: Column of that table for a field, such as `label=diagnosis`. May be repeated.
            In Python a mapping.
        modality: Free text, such as `CT`.
        provenance: Where the volumes come from.
        licence: Terms of use of the volumes.
        overwrite: Replace the dataset in `destination`.

    Raises:
        UsageError: Options exclude each other, or a value is wrong.
        DxsegError: There is no volume, the table of labels is wrong, or the destination has other
            files.
    """
    from dxseg.data.importers.nifti import import_volumes as run
    from dxseg.data.readers.slicing import make_slicing
    from dxseg.io.progress import console, reporting

    slicing = make_slicing(axis=axis, window=window, neighbours=neighbours, bits=bits)
    with reporting(console, "Importing volumes") as progress:
        return run(
            source,
            destination,
            name=name,
            masks_root=masks_root,
            mask_suffix=mask_suffix,
            mask_replace=mask_replace,
            slicing=slicing,
            mask_values=mask_values or DEFAULT_MASK_VALUES,
            lesion_classes=lesion_classes,
            lesion_label=lesion_label,
            lesion_free=lesion_free,
            labels=labels,
            label_columns=label_columns,
            modality=modality,
            provenance=provenance,
            licence=licence,
            overwrite=overwrite,
            progress=progress,
        )


def import_dicom(
    source: StrPath,
    destination: StrPath,
    *,
    key: StrPath | None = None,
    modalities: Annotated[Sequence[str], Parameter(name="--modality", metavar="TEXT")] = (),
    volumes_only: bool = False,
    regions: Regions | None = None,
    axis: Axis = "through-plane",
    window: str = "percentiles",
    neighbours: int = 0,
    bits: Bits = 8,
    lesion_classes: LesionClasses = (),
    lesion_label: str | None = None,
    lesion_free: LesionFree = (),
    labels: StrPath | None = None,
    label_columns: Columns | None = None,
    label_level: Literal["image", "study"] | None = None,
    name: str | None = None,
    provenance: str = "",
    licence: str = "",
    overwrite: bool = False,
) -> ImportReport:
    """Import a PACS export: images, CT and MR series, and their masks; patients become pseudonyms.

    The dataset has pixels, spacing and pseudonyms: keyed hashes in place of patient, study and
    object. Names, dates, numbers and free text of the files and their paths are not copied. Text
    that is drawn into the pixels stays. Masks come from DICOM SEG and RTSTRUCT objects that refer
    to the images. Nothing is resampled: a series that is not a regular grid, or a mask on another
    grid, is left out and reported.

    Args:
        source: Folder of the export, searched through all levels; links are not followed.
        destination: Folder of the new dataset, outside the export.
        key: Pseudonymisation key file, made if absent; default: `DESTINATION.key`.
        modalities: A modality to import, such as `US`; needed if there are several. May be
            repeated.
        volumes_only: Import only what becomes slices of volumes.
        regions: Mask class of a segment or region, by its number or label, such as `1=tumour`;
            needed if a mask has several. May be repeated. In Python a mapping.
        axis: Plane of the slices; `through-plane` cuts along the axis of the coarsest spacing.
        window: Grey-value window: `liver`, `lung`, `brain`, `abdomen`, `LEVEL,WIDTH`, or
            `percentiles` of the volume.
        neighbours: Neighbouring slices added as channels on each side (2.5D).
        bits: Bit depth of the slice images.
        lesion_classes: A mask class that is a lesion; default: all. May be repeated.
        lesion_label: Label of slices whose mask shows a lesion; default: the lesion class.
        lesion_free: A label that means "no lesion". May be repeated.
        labels: Table of labels, joined by patient, study, accession, series or (images) instance.
        label_columns: Column of that table for a field, such as `patient=PatID`. May be repeated.
            In Python a mapping.
        label_level: Level of the labels in the table; default: study, unless images are named by
            instance.
        name: Dataset name; default: name of the destination.
        provenance: Where the images come from.
        licence: Terms of use of the images.
        overwrite: Replace the dataset in `destination`.

    Raises:
        UsageError: Options do not fit the export or each other.
        DxsegError: No image can be read, or the destination has other files.
    """
    from dxseg.data.importers.dicom import import_dicom as run
    from dxseg.data.readers.slicing import make_slicing
    from dxseg.io.progress import console, reporting

    slicing = make_slicing(axis=axis, window=window, neighbours=neighbours, bits=bits)
    with reporting(console, "Importing DICOM") as progress:
        return run(
            source,
            destination,
            key=key,
            modalities=modalities,
            volumes_only=volumes_only,
            regions=regions,
            slicing=slicing,
            lesion_classes=lesion_classes,
            lesion_label=lesion_label,
            lesion_free=lesion_free,
            labels=labels,
            label_columns=label_columns,
            label_level=label_level,
            name=name,
            provenance=provenance,
            licence=licence,
            overwrite=overwrite,
            progress=progress,
        )


def import_msd(
    source: StrPath,
    destination: StrPath,
    *,
    name: str | None = None,
    axis: Axis = "through-plane",
    window: str = "percentiles",
    neighbours: int = 0,
    bits: Bits = 8,
    lesion_classes: LesionClasses = (),
    labels: StrPath | None = None,
    overwrite: bool = False,
) -> ImportReport:
    """Import a task of the Medical Segmentation Decathlon as slices.

    Args:
        source: Folder of the task, with `dataset.json`.
        destination: Folder of the new dataset.
        name: Dataset name; default: folder name.
        axis: Plane of the slices; `through-plane` cuts along the axis of the coarsest spacing.
        window: Grey-value window: `liver`, `lung`, `brain`, `abdomen`, `LEVEL,WIDTH`, or
            `percentiles` of the volume.
        neighbours: Neighbouring slices added as channels on each side (2.5D).
        bits: Bit depth of the slice images.
        lesion_classes: A mask class that is a lesion; default: all. May be repeated.
        labels: Table with the columns `volume_id` and `label`, for test volumes.
        overwrite: Replace the dataset in `destination`.

    Raises:
        UsageError: A lesion class is not in `dataset.json`, or a value is wrong.
        DxsegError: `dataset.json` is wrong, the volumes have several modalities, or the destination
            has other files.
    """
    from dxseg.data.importers.msd import import_msd as run
    from dxseg.data.readers.slicing import make_slicing
    from dxseg.io.progress import console, reporting

    slicing = make_slicing(axis=axis, window=window, neighbours=neighbours, bits=bits)
    with reporting(console, "Importing volumes") as progress:
        return run(
            source,
            destination,
            name=name,
            slicing=slicing,
            lesion_classes=lesion_classes,
            labels=labels,
            overwrite=overwrite,
            progress=progress,
        )

"""The command `dxseg import dicom`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Unpack

from cyclopts import Parameter

from dxseg.commands.dry_run import with_dry_run
from dxseg.commands.options import (
    Columns,
    LesionClasses,
    LesionFree,
    Regions,
    SlicingOptions,
    StrPath,
)
from dxseg.errors import UsageError, refuse_unused

if TYPE_CHECKING:
    from dxseg.data.importers.report import ImportReport
else:
    ImportReport = Any


@with_dry_run
def import_dicom(
    source: StrPath,
    destination: StrPath,
    *,
    key: StrPath | None = None,
    modalities: Annotated[Sequence[str], Parameter(name="--modality", metavar="TEXT")] = (),
    volumes_only: bool = False,
    keep_mask_like: bool = False,
    regions: Regions | None = None,
    lesion_classes: LesionClasses = (),
    lesion_label: str | None = None,
    lesion_free: LesionFree = (),
    slice_labels_known: bool = False,
    labels: StrPath | None = None,
    label_columns: Columns | None = None,
    label_level: Literal["image", "study"] | None = None,
    name: str | None = None,
    provenance: str = "",
    licence: str = "",
    overwrite: bool = False,
    dry_run: bool = False,
    **slicing: Unpack[SlicingOptions],
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
        key: Pseudonymisation key file, created if missing; default: `DESTINATION.key`.
        modalities: A modality to import, such as `US`; needed if there are several. May be
            repeated.
        volumes_only: Import only what becomes slices of volumes.
        keep_mask_like: Import images and series that look like masks, but are none.
        regions: Mask class of a segment or region, by its number or label, such as `1=tumour`;
            needed if a mask has several. May be repeated. In Python a mapping.
        lesion_classes: A mask class that is a lesion; default: all. May be repeated.
        lesion_label: Label of slices whose mask shows a lesion, where the table of labels has none;
            default: the lesion class.
        lesion_free: A label that means "no lesion". May be repeated.
        slice_labels_known: The labels of slices, which follow from their masks, are known without
            these; default: of a volume whose masks are hidden only its own label is known.
        labels: Table of labels, joined by patient, study, accession, series or (images) instance.
        label_columns: Column of that table for a field, such as `patient=PatID`. May be repeated.
            In Python a mapping.
        label_level: Level of the labels in the table; default: study, unless images are named by
            instance.
        name: Dataset name; default: name of the destination.
        provenance: Where the images come from.
        licence: Terms of use of the images.
        overwrite: Replace the dataset in `destination`.
        dry_run: Import into a temporary folder and report, with five examples; nothing stays.
        **slicing: How volumes become slices; see `SlicingOptions`.

    Raises:
        UsageError: Options do not fit the export or each other.
        DxsegError: No image can be read, or the destination has other files.
    """
    from dxseg.data.importers.dicom_export import (
        find_series,
        open_export,
        privacy_notes,
        read_export,
    )
    from dxseg.data.importers.dicom_images import name_images, write_images
    from dxseg.data.importers.volume_dataset import write_volumes
    from dxseg.data.readers.dicom.identity import Pseudonyms, open_key
    from dxseg.data.readers.slicing import make_slicing
    from dxseg.io.progress import console, reporting

    rule = make_slicing(**slicing)
    target = Path(destination).resolve()
    folder = open_export(source, target)
    if key is None or (dry_run and not Path(key).exists()):  # a new one would stay
        key = target.with_name(f"{target.name}.key")
    key = Path(key)
    pseudonyms = Pseudonyms(open_key(key, target))
    with reporting(console, "Importing DICOM") as progress:
        export = read_export(folder, modalities, volumes_only, regions or {}, progress)
        fields: dict[str, Any] = {
            "name": name or target.name,
            "modality": ", ".join(sorted({header.modality for header in export.chosen})),
            "provenance": provenance,
            "licence": licence,
        }
        if export.chosen[0].is_volume:
            if label_level is not None:
                raise UsageError(
                    "label level: only for images; labels of slices have a slice_index"
                )
            report = write_volumes(
                find_series(
                    export.chosen,
                    pseudonyms,
                    export.masks,
                    export.skipped,
                    unread=export.unread,
                    keep_mask_like=keep_mask_like,
                    resample=bool(rule.resample),
                ),
                target,
                fields,
                slicing=rule,
                mask_values=dict(enumerate(export.mask_classes, start=1)),
                lesion_classes=lesion_classes,
                lesion_label=lesion_label,
                lesion_free=lesion_free,
                slice_labels_known=slice_labels_known,
                labels=labels,
                label_columns=label_columns,
                skipped=export.skipped,
                overwrite=overwrite,
                progress=progress,
            )
        else:
            refuse_unused(
                f"{source}: images, which no volume is made of",
                {
                    "--lesion-class": lesion_classes,
                    "--lesion-label": lesion_label,
                    "--slice-labels-known": slice_labels_known,
                    **{f"--{name}": value for name, value in slicing.items()},
                },
            )
            fields |= {"mask_classes": export.mask_classes, "lesion_free": list(lesion_free)}
            report = write_images(
                name_images(export.chosen, pseudonyms),
                export.masks,
                target,
                fields,
                labels=labels,
                label_columns=label_columns,
                label_level=label_level,
                keep_mask_like=keep_mask_like,
                skipped=export.skipped,
                overwrite=overwrite,
                progress=progress,
            )
    report.notes.extend(privacy_notes(export.chosen, key))
    return report

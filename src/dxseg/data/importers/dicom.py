"""Importing a folder of DICOM files, as a PACS exports them, under pseudonyms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from dxseg.data.importers.dicom_export import find_series, join_keys, patient_pseudonym, read_export
from dxseg.data.importers.dicom_images import INSTANCE, KeyedImage, write_images
from dxseg.data.importers.report import ImportReport, Progress
from dxseg.data.importers.volume_dataset import write_volumes
from dxseg.data.readers.dicom.headers import Header
from dxseg.data.readers.dicom.identity import Pseudonyms, open_key
from dxseg.data.readers.slicing import Slicing
from dxseg.errors import DxsegError, UsageError


def import_dicom(
    source: str | Path,
    destination: str | Path,
    *,
    key: str | Path | None = None,
    modalities: Sequence[str] = (),
    volumes_only: bool = False,
    regions: Mapping[str, str] | None = None,
    slicing: Slicing | None = None,
    lesion_classes: Sequence[str] = (),
    lesion_label: str | None = None,
    lesion_free: Sequence[str] = (),
    labels: str | Path | None = None,
    label_columns: Mapping[str, str] | None = None,
    label_level: str | None = None,
    name: str | None = None,
    provenance: str = "",
    licence: str = "",
    overwrite: bool = False,
    progress: Progress | None = None,
) -> ImportReport:
    """Import DICOM files: CT, MR and PT as slices of volumes, other modalities as images.

    The dataset holds pixels, spacing and pseudonyms: keyed hashes in place of patient, study and
    object. Names, dates, numbers and free text of the files and their paths are not imported, and
    messages identify files by number (see `scan`). Text burnt into the pixels stays.

    Masks come from DICOM SEG and RTSTRUCT objects that refer to the images. Nothing is resampled:
    a series that is not a regular grid, or a mask on another grid, is left out and reported.

    Args:
        source: Folder of the export, searched through all levels; links are not followed.
        destination: Folder of the new dataset, outside the export.
        key: Pseudonymisation key file, created if absent; default: `destination` with `.key` added.
            The same key makes the same pseudonyms.
        modalities: Modalities to import, such as "US"; required if there are several.
        volumes_only: Import only slices of volumes.
        regions: Mask class of each segment or region, by its number or label; required if a mask
            has several. Default: the only one is "lesion".
        slicing: Rule by which volumes become images; default: `Slicing()`.
        lesion_classes: As in `write_volumes`, for volumes.
        lesion_label: As in `write_volumes`, for volumes.
        lesion_free: Labels that mean lesion-free.
        labels: CSV file of labels, joined on patient, study, accession, series or (for images)
            instance; see `read_labels`.
        label_columns: Columns of the table for its fields, where the names differ.
        label_level: Level of the labels of images: "image" or "study"; default: "image" if the
            table has instances, else "study". For volumes, a column slice_index labels slices.
        name: Dataset name; default: name of `destination`.
        provenance: Where the images come from.
        licence: Terms of use of the images.
        overwrite: Replace the dataset in `destination` if it has the same name.
        progress: Called with (done, total), first over files, then over images or volumes.

    Raises:
        UsageError: Options are inconsistent, or do not fit the export.
        DxsegError: There is no readable image, or the destination has other files.
    """
    source, destination = _folder(Path(source)), Path(destination).resolve()
    if destination.is_relative_to(source):
        raise UsageError(f"{destination}: is in the export; choose a destination outside")
    key = Path(key) if key is not None else destination.with_name(f"{destination.name}.key")
    pseudonyms = Pseudonyms(open_key(key, destination))
    export = read_export(source, modalities, volumes_only, regions or {}, progress)
    chosen = export.chosen
    fields = {
        "name": name or destination.name,
        "modality": ", ".join(sorted({header.modality for header in chosen})),
        "provenance": provenance,
        "licence": licence,
    }
    if chosen[0].is_volume:
        if label_level is not None:
            raise UsageError("label level: only for images; labels of slices have a slice_index")
        report = write_volumes(
            find_series(chosen, pseudonyms, export.masks, export.skipped),
            destination,
            fields,
            slicing=slicing or Slicing(),
            mask_values=dict(enumerate(export.mask_classes, start=1)),
            lesion_classes=lesion_classes,
            lesion_label=lesion_label,
            lesion_free=lesion_free,
            labels=labels,
            label_columns=label_columns,
            skipped=export.skipped,
            overwrite=overwrite,
            progress=progress,
        )
    else:
        report = write_images(
            [_keyed(header, pseudonyms) for header in chosen],
            export.masks,
            destination,
            {**fields, "mask_classes": export.mask_classes, "lesion_free": list(lesion_free)},
            labels=None if labels is None else Path(labels),
            label_columns=label_columns or {},
            label_level=label_level,
            skipped=export.skipped,
            overwrite=overwrite,
            progress=progress,
        )
    report.notes.extend(_notes(chosen, key))
    return report


def _keyed(header: Header, pseudonyms: Pseudonyms) -> KeyedImage:
    return KeyedImage(
        header,
        pseudonyms.name("image", header.sop_uid),
        patient_pseudonym(header, pseudonyms),
        {**join_keys(header), INSTANCE: header.sop_uid},
    )


def _notes(chosen: Sequence[Header], key: Path) -> list[str]:
    notes = [f"pseudonyms are made with {key}; keep it secret and apart from the dataset"]
    burned = sum(header.burned_in for header in chosen)
    if burned:
        notes.append(
            f"WARNING: {burned} object(s) declare patient data in the pixels "
            "(BurnedInAnnotation); it is in the dataset too: inspect the images before you share "
            "them"
        )
    nameless = sum(not header.patient_id for header in chosen)
    if nameless:
        notes.append(
            f"{nameless} object(s) have no patient id; their study is used as the patient, so "
            "a split may divide several studies of one patient"
        )
    return notes


def _folder(path: Path) -> Path:
    if not path.is_dir():
        raise DxsegError(f"{path}: no such folder; expected a folder of DICOM files")
    return path.resolve()

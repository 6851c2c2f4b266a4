"""Importing a folder of DICOM files, as a PACS exports them, without saying whose they are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from dxseg.data.importers.common import ImportReport, Progress
from dxseg.data.importers.dicom_images import INSTANCE, KeyedImage, write_images
from dxseg.data.importers.volumes import write_volumes
from dxseg.data.readers.dicom.headers import VOLUME_MODALITIES, Header, scan
from dxseg.data.readers.dicom.identity import Pseudonyms, open_key
from dxseg.data.readers.dicom.masks import LabelMap, Outlines, draw_on_stack, read_outlines
from dxseg.data.readers.dicom.series import Stack, group_series, read_stack, stack_slices
from dxseg.data.readers.slicing import Slicing
from dxseg.data.readers.volume import FoundVolume
from dxseg.errors import DxsegError, UsageError
from dxseg.io.atomic import sha256_file, sha256_json

Skipped = list[tuple[str, str]]
Drawing = tuple[Outlines, Mapping[int, int]]


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
    object. Names, dates, numbers and free text of the files and their paths go nowhere, and files
    are called by their number in messages (see `scan`). What is drawn into the pixels stays.

    Masks come from DICOM SEG and RTSTRUCT objects that refer to the images. Nothing is resampled:
    a series that is no regular grid, or a mask on another grid, is left out and told.

    Args:
        source: The folder of the export, searched in depth; links are not followed.
        destination: The dataset's folder, new or empty, outside the export.
        key: The file with the key of the pseudonyms, made if absent; by default beside the
            destination, with `.key` added to its name. The same key gives the same pseudonyms.
        modalities: Which modalities to take, such as "US"; needed where there are several.
        volumes_only: Whether to take only what becomes slices of volumes.
        regions: The mask class of each segment or region, by its number or label; needed where a
            mask has several. By default the only one is "lesion".
        slicing: How volumes become images; by default `Slicing()`.
        lesion_classes: As in `write_volumes`, for volumes.
        lesion_label: As in `write_volumes`, for volumes.
        lesion_free: Labels that mean "no lesion".
        labels: A table of labels, joined on patient, study, accession, series or (for images)
            instance; see `read_labels`.
        label_columns: For its fields, the columns' names in the table.
        label_level: "image" where the table's labels speak of each image. By default they are of
            study level, unless images are named by instance. For volumes, slices are named by
            slice_index instead.
        name: The dataset's name; by default that of the destination.
        provenance: Where the images come from.
        licence: Under which terms.
        overwrite: Whether a dataset of the same name may be replaced.
        progress: Called with (done, total), first over files, then over images or volumes.

    Raises:
        UsageError: Options do not fit the export or each other.
        DxsegError: There is no image that can be read, or the destination holds something else.
    """
    source, destination = _folder(Path(source)), Path(destination).resolve()
    if destination.is_relative_to(source):
        raise UsageError(f"{destination}: lies in the export; choose a destination outside")
    key = Path(key) if key is not None else destination.with_name(f"{destination.name}.key")
    pseudonyms = Pseudonyms(open_key(key, destination))
    export = _read_export(source, modalities, volumes_only, regions or {}, progress)
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


def find_series(
    headers: Sequence[Header],
    pseudonyms: Pseudonyms,
    masks: Sequence[Drawing],
    skipped: Skipped,
) -> list[FoundVolume]:
    """Find the volumes among slices, and the masks that belong to them.

    Args:
        headers: Of objects whose frames are slices.
        pseudonyms: Name volumes and patients.
        masks: What may be drawn on them.
        skipped: Gets series that are no regular grid, by their pseudonym.
    """
    found = []
    for identity, group in group_series(headers).items():
        name = pseudonyms.name("series", *identity)
        try:
            stack = stack_slices(group, name)
        except DxsegError as error:
            skipped.append((name, str(error).removeprefix(f"{name}: ")))
            continue
        own = [drawing for drawing in masks if drawing[0].belongs_to(group)]
        files = [header.path for header in group] + [mask.header.path for mask, _ in own]
        first = group[0]
        found.append(
            FoundVolume(
                volume_id=name,
                load=partial(read_stack, stack),
                load_labels=partial(_draw, own, stack) if own else None,
                patient_id=_patient(first, pseudonyms),
                keys=_join_keys(first),
                digest=partial(_digest, files, [dict(values) for _, values in own]),
            )
        )
    return found


@dataclass(frozen=True)
class _Export:
    """What is taken of an export: images or slices, and what may be drawn on them."""

    chosen: list[Header]
    masks: list[Drawing]
    mask_classes: list[str]
    skipped: Skipped


def _read_export(
    source: Path,
    modalities: Sequence[str],
    volumes_only: bool,
    regions: Mapping[str, str],
    progress: Progress | None,
) -> _Export:
    headers, skipped = scan(source, progress)
    images = [h for h in headers if not h.is_mask and (h.is_volume or not volumes_only)]
    if not images:
        first = "".join(f"; first reason: {file}: {reason}" for file, reason in skipped[:1])
        kind = "slice of a volume" if volumes_only else "image"
        raise DxsegError(f"{source}: no DICOM {kind} that can be read{first}")
    chosen = _of_modalities(images, modalities)
    classes = list(dict.fromkeys(regions.values())) or ["lesion"]
    values = {region: classes.index(name) + 1 for region, name in regions.items()}
    return _Export(chosen, _read_masks(headers, chosen, values, skipped), classes, skipped)


def _keyed(header: Header, pseudonyms: Pseudonyms) -> KeyedImage:
    return KeyedImage(
        header,
        pseudonyms.name("image", header.sop_uid),
        _patient(header, pseudonyms),
        {**_join_keys(header), INSTANCE: header.sop_uid},
    )


def _patient(header: Header, pseudonyms: Pseudonyms) -> str:
    """Name the patient; where the object has no patient id, its study stands for it."""
    if header.patient_id:
        return pseudonyms.name("patient", header.patient_id)
    return pseudonyms.name("study", header.study_uid)


def _join_keys(header: Header) -> dict[str, str]:
    """What a table of labels may know an object by; never written to the dataset."""
    return {
        "patient": header.patient_id,
        "study": header.study_uid,
        "accession": header.accession,
        "series": header.series_uid,
    }


def _of_modalities(images: Sequence[Header], wanted: Sequence[str]) -> list[Header]:
    counts = Counter(header.modality for header in images)
    told = ", ".join(f"{count} {code}" for code, count in sorted(counts.items())) or "none"
    absent = sorted(set(wanted) - set(counts))
    if absent:
        raise UsageError(f"modality {', '.join(absent)}: no image has it; there are {told}")
    if len(counts) > 1 and not wanted:
        raise UsageError(
            f"images of several modalities: {told}; choose with --modality of `dxseg import dicom`"
        )
    chosen = [header for header in images if not wanted or header.modality in wanted]
    if len({header.is_volume for header in chosen}) > 1:
        raise UsageError(
            f"modalities {', '.join(sorted(wanted))}: {', '.join(VOLUME_MODALITIES)} become slices "
            "of volumes, others images; import them as two datasets"
        )
    return chosen


def _read_masks(
    headers: Sequence[Header],
    chosen: Sequence[Header],
    classes: Mapping[str, int],
    skipped: Skipped,
) -> list[Drawing]:
    """Read which masks belong to the images chosen, and what of them is wanted."""
    masks: list[Drawing] = []
    for header in headers:
        if not header.is_mask:
            continue
        try:
            outlines = read_outlines(header)
        except DxsegError as error:
            skipped.append((header.name, str(error).removeprefix(f"{header.name}: ")))
            continue
        if not outlines.belongs_to(chosen):
            skipped.append((header.name, "a mask that refers to none of the images"))
            continue
        values = outlines.choose(classes)
        if values:
            masks.append((outlines, values))
        else:
            skipped.append((header.name, "a mask with none of the regions asked for"))
    return masks


def _draw(masks: Sequence[Drawing], stack: Stack) -> LabelMap:
    """Unite the masks of a volume."""
    drawn = [draw_on_stack(outlines, values, stack) for outlines, values in masks]
    united: LabelMap = np.maximum.reduce(drawn)
    return united


def _digest(files: Sequence[Path], values: Sequence[Mapping[int, int]]) -> str:
    chosen: list[Any] = [sorted(mapping.items()) for mapping in values]
    return sha256_json([[sha256_file(path) for path in files], chosen])


def _notes(chosen: Sequence[Header], key: Path) -> list[str]:
    notes = [f"pseudonyms are made with {key}; keep it apart from the dataset, and secret"]
    burned = sum(header.burned_in for header in chosen)
    if burned:
        notes.append(
            f"WARNING: {burned} object(s) say that patient data is drawn into the pixels "
            "(BurnedInAnnotation); it is in the dataset too: look at the images before you pass "
            "them on"
        )
    nameless = sum(not header.patient_id for header in chosen)
    if nameless:
        notes.append(
            f"{nameless} object(s) have no patient id; their study stands for the patient, so "
            "several studies of one patient may be divided by a split"
        )
    return notes


def _folder(path: Path) -> Path:
    if not path.is_dir():
        raise DxsegError(f"{path}: no such folder; expected a folder of DICOM files")
    return path.resolve()

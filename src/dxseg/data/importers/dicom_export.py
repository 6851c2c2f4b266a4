"""The images or slices that are taken from a PACS export, and the masks that belong to them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from dxseg.data.importers.report import LeftOut, Progress
from dxseg.data.readers.dicom.headers import VOLUME_MODALITIES, Header, scan
from dxseg.data.readers.dicom.identity import Pseudonyms
from dxseg.data.readers.dicom.masks import MaskObject, draw_on_stack, read_mask_object
from dxseg.data.readers.dicom.objects import is_dicom
from dxseg.data.readers.dicom.series import Stack, group_series, read_stack, stack_slices
from dxseg.data.readers.images import is_image_name
from dxseg.data.readers.volume import FoundVolume, Grid, VolumeLabels
from dxseg.data.table.words import is_missing
from dxseg.errors import DxsegError, UsageError
from dxseg.io.atomic import sha256_file, sha256_json

ChosenMask = tuple[MaskObject, Mapping[int, int]]


def find_series(
    headers: Sequence[Header],
    pseudonyms: Pseudonyms,
    masks: Sequence[ChosenMask],
    skipped: LeftOut,
    *,
    unread: Sequence[Header] = (),
    keep_mask_like: bool = False,
    resample: bool = False,
) -> list[FoundVolume]:
    """Find the volumes among slices, and the masks that belong to them.

    Args:
        headers: Headers of objects whose frames are slices.
        pseudonyms: Names for volumes and patients.
        masks: Masks that may belong to them.
        unread: Mask objects that do not show which images they are of; those of the same patient
            or study may have lesions that other masks lack.
        keep_mask_like: Whether a series that looks like a label map is a volume.
        resample: Whether series that are no regular grid will be resampled.
        skipped: List to which series that are not a regular grid are added, by pseudonym.
    """
    found = []
    for identity, group in group_series(headers).items():
        name = pseudonyms.name("series", *identity)
        try:
            stack = stack_slices(group, name, resample=resample)
        except DxsegError as error:
            skipped.image(name, str(error).removeprefix(f"{name}: "))
            continue
        own = [mask for mask in masks if mask[0].belongs_to(group)]
        first = group[0]
        lost = [header for header in unread if _may_be_of(header, first)]
        files = [header.path for header in [*group, *(mask.header for mask, _ in own), *lost]]
        found.append(
            FoundVolume(
                volume_id=name,
                load=partial(read_stack, stack),
                grid=partial(_grid, stack),
                load_labels=partial(_draw, own, stack, lost) if own else None,
                patient_id=patient_pseudonym(first, pseudonyms),
                keys=join_keys(first),
                digest=partial(_digest, files, [dict(values) for _, values in own]),
                is_asked=not (own or keep_mask_like),
            )
        )
    return found


def _may_be_of(mask: Header, image: Header) -> bool:
    same_patient = mask.patient_id == image.patient_id and not is_missing(image.patient_id)
    return same_patient or mask.study_uid == image.study_uid


def _grid(stack: Stack) -> Grid:
    return stack.affine, stack.shape


def open_export(source: str | Path, destination: Path) -> Path:
    """Find the folder of an export, which may not contain the dataset.

    Args:
        source: The folder.
        destination: Folder of the new dataset; resolved.

    Raises:
        UsageError: The destination is in the export.
        DxsegError: There is no such folder.
    """
    if not Path(source).is_dir():
        raise DxsegError(f"{Path(source)}: no such folder; expected a folder of DICOM files")
    folder = Path(source).resolve()
    if destination.is_relative_to(folder):
        raise UsageError(f"{destination}: is in the export; choose a destination outside")
    return folder


@dataclass(frozen=True)
class PacsExport:
    """The imported part of an export.

    Attributes:
        chosen: Headers of images or slices.
        masks: Masks of these images, with the mask value of each region.
        mask_classes: Names of the mask values 1, 2, ...
        skipped: Files left out, and why.
        unread: Masks among them that do not show which images they are of.
    """

    chosen: list[Header]
    masks: list[ChosenMask]
    mask_classes: list[str]
    skipped: LeftOut
    unread: list[Header]


def read_export(
    source: Path,
    modalities: Sequence[str],
    volumes_only: bool,
    regions: Mapping[str, str],
    progress: Progress | None,
) -> PacsExport:
    """Read the headers of an export, and choose what is imported.

    Args:
        source: Folder of the export.
        modalities: Modalities to take; needed where there are several.
        volumes_only: Whether to take only slices of volumes.
        regions: Mask class of each segment or region, by its number or label.
        progress: Called with (done, total) after each file.

    Raises:
        UsageError: Modalities or regions do not fit the export.
        DxsegError: There is no image that can be read.
    """
    headers, files, unreadable = scan(source, progress)
    skipped = LeftOut(files)
    skipped.images = sum(is_dicom(path) or is_image_name(path) for path in unreadable)
    images = [h for h in headers if not h.is_mask and (h.is_volume or not volumes_only)]
    if not images:
        first = "".join(f"; first reason: {file}: {reason}" for file, reason in skipped[:1])
        kind = "slice of a volume" if volumes_only else "image"
        raise DxsegError(f"{source}: no readable DICOM {kind}{first}")
    chosen = _of_modalities(images, modalities)
    classes = list(dict.fromkeys(regions.values())) or ["lesion"]
    values = {region: classes.index(name) + 1 for region, name in regions.items()}
    masks, unread = _read_masks(headers, chosen, values, skipped)
    return PacsExport(chosen, masks, classes, skipped, unread)


def patient_pseudonym(header: Header, pseudonyms: Pseudonyms) -> str:
    """Make the pseudonym of the patient, or of the study if the object has no patient id."""
    if not is_missing(header.patient_id):
        return pseudonyms.name("patient", header.patient_id)
    return pseudonyms.name("study", header.study_uid)


def privacy_notes(chosen: Sequence[Header], key: Path) -> list[str]:
    """Describe what has to be known before the dataset is shared, as lines of a report.

    Args:
        chosen: Headers of the imported images or slices.
        key: The pseudonymisation key file.
    """
    notes = [f"pseudonyms are made with {key}; keep it secret and apart from the dataset"]
    burned = sum(header.burned_in for header in chosen)
    if burned:
        notes.append(
            f"WARNING: {burned} object(s) declare patient data in the pixels "
            "(BurnedInAnnotation); it is in the dataset too: inspect the images before you share "
            "them"
        )
    nameless = sum(is_missing(header.patient_id) for header in chosen)
    if nameless:
        notes.append(
            f"{nameless} object(s) have no patient id, or a word for nothing; their study is used "
            "as the patient, so a split may divide several studies of one patient"
        )
    return notes


def join_keys(header: Header) -> dict[str, str]:
    """Collect the keys on which a table of labels may be joined; never written to the dataset."""
    return {
        "patient": header.patient_id,
        "study": header.study_uid,
        "accession": header.accession,
        "series": header.series_uid,
    }


def _of_modalities(images: Sequence[Header], wanted: Sequence[str]) -> list[Header]:
    counts = Counter(header.modality for header in images)
    present = ", ".join(f"{count} {code}" for code, count in sorted(counts.items())) or "none"
    absent = sorted(set(wanted) - set(counts))
    if absent:
        raise UsageError(f"modality {', '.join(absent)}: no image has it; there are {present}")
    if len(counts) > 1 and not wanted:
        raise UsageError(
            f"images of several modalities: {present}; choose with --modality of "
            "`dxseg import dicom`"
        )
    chosen = [header for header in images if not wanted or header.modality in wanted]
    if len({header.is_volume for header in chosen}) > 1:
        raise UsageError(
            f"modalities {', '.join(sorted(wanted))}: {', '.join(VOLUME_MODALITIES)} become slices "
            "of volumes, others become images; import them as two datasets"
        )
    return chosen


def _read_masks(
    headers: Sequence[Header],
    chosen: Sequence[Header],
    classes: Mapping[str, int],
    skipped: LeftOut,
) -> tuple[list[ChosenMask], list[Header]]:
    """Read the masks of the chosen images, and choose their regions; also those not readable."""
    masks: list[ChosenMask] = []
    unread: list[Header] = []
    others: set[int] = set()
    for header in headers:
        if not header.is_mask:
            continue
        try:
            mask_object = read_mask_object(header)
        except DxsegError as error:
            skipped.mask(header.name, str(error).removeprefix(f"{header.name}: "))
            unread.append(header)
            continue
        if not mask_object.has_references:
            skipped.mask(header.name, "a mask that does not say which images it is of")
            unread.append(header)
        elif not mask_object.belongs_to(chosen):
            skipped.append((header.name, "a mask that refers to none of the images"))
        elif values := mask_object.choose(classes):
            masks.append((mask_object, values))
        else:
            skipped.mask(header.name, "a mask with none of the requested regions")
            others |= mask_object.regions.keys()
    if others and not masks:
        raise UsageError(
            f"--region {', '.join(classes)}: no mask has one of them; the regions are numbered "
            f"{', '.join(map(str, sorted(others)))}"
        )
    return masks, unread


def _draw(masks: Sequence[ChosenMask], stack: Stack, unread: Sequence[Header]) -> VolumeLabels:
    """Draw the masks of a volume and merge them; what one that cannot be drawn shows is unknown."""
    drawn: list[VolumeLabels] = []
    faults = [f"{header.name}: does not say which images it is of" for header in unread]
    for mask_object, values in masks:
        try:
            drawn.append(draw_on_stack(mask_object, values, stack))
        except DxsegError as error:
            if len(masks) == 1:
                raise
            faults.append(str(error))
    if not drawn:
        raise DxsegError("; ".join(faults))
    unknown = [labels.unknown for labels in drawn if labels.unknown is not None]
    notes = [note for labels in drawn for note in labels.notes]
    if faults:
        unknown.append(np.broadcast_to(np.True_, stack.shape))
        notes.extend(
            f"{fault}; slices on which no other mask has a lesion are unlabeled" for fault in faults
        )
    return VolumeLabels(
        np.maximum.reduce([labels.values for labels in drawn]),
        np.logical_or.reduce(unknown) if unknown else None,
        tuple(notes),
    )


def _digest(files: Sequence[Path], values: Sequence[Mapping[int, int]]) -> str:
    chosen: list[Any] = [sorted(mapping.items()) for mapping in values]
    return sha256_json([[sha256_file(path) for path in files], chosen])

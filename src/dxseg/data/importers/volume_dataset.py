"""Writing a dataset of the slices of volumes; every importer of volumes ends here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd

from dxseg.data.importers.destination import UNFINISHED, open_destination
from dxseg.data.importers.patients import BY_NAMES, PatientRules, Patients, find_patients
from dxseg.data.importers.report import ImportReport, LeftOut, Progress
from dxseg.data.importers.slice_labels import SliceLabels, is_annotated, slice_label
from dxseg.data.importers.slicing_axis import decide_axis
from dxseg.data.importers.volume_labels import JoinedLabels, read_labels
from dxseg.data.importers.volume_report import count_dropped, volume_report
from dxseg.data.importers.volume_slices import (
    MaskLikeError,
    SliceRecord,
    SliceRules,
    remove_others,
    slice_volume,
)
from dxseg.data.readers.slicing import Slicing
from dxseg.data.readers.volume import FoundVolume
from dxseg.data.table.dataset import Dataset
from dxseg.data.table.spec import make_spec
from dxseg.errors import DxsegError, UsageError

DEFAULT_MASK_VALUES: Mapping[int, str] = {1: "lesion"}


def write_volumes(
    found: Iterable[FoundVolume],
    destination: str | Path,
    fields: Mapping[str, Any],
    *,
    slicing: Slicing,
    mask_values: Mapping[int, str] = DEFAULT_MASK_VALUES,
    lesion_classes: Sequence[str] = (),
    lesion_label: str | None = None,
    lesion_free: Sequence[str] = (),
    slice_labels_known: bool = False,
    ignore_value: int | None = None,
    labels: str | Path | None = None,
    label_columns: Mapping[str, str] | None = None,
    patients: PatientRules = BY_NAMES,
    skipped: Sequence[tuple[str, str]] = (),
    overwrite: bool = False,
    progress: Progress | None = None,
    notes: Sequence[str] = (),
) -> ImportReport:
    """Slice volumes into images in the dataset's folder, and write the dataset.

    If a volume has a label map, that says which of its slices show a lesion. Labels come from the
    table, if there is one: a row with a slice_index labels that slice, a row without labels the
    study. One volume is in memory at a time. An interrupted import leaves no
    dataset; the same call continues with the remaining volumes.

    Args:
        found: The volumes; their ids are distinct and valid as file names.
        destination: Folder of the new dataset.
        fields: Fields of `DatasetSpec`: name, and any of modality, provenance, licence.
        slicing: Rule by which volumes become images; without an axis, that of most volumes.
        mask_values: Mask class of each value of the label maps; voxels of other values are
            background, and reported.
        lesion_classes: Mask classes that are lesions, if others are organs; default: all.
        lesion_label: Label of slices with a lesion of which the table has no diagnosis; default:
            the lesion class, or "lesion" if there are several.
        lesion_free: Labels that mean lesion-free; slices without a lesion get the first. Default:
            "no " and the lesion label.
        slice_labels_known: Whether labels of slices are known without their label maps; else they
            have the level `mask`.
        ignore_value: Value of the label maps for voxels that nobody has judged. A slice with such
            voxels has no mask: it is unknown, not empty.
        labels: A table of labels; see `read_labels`.
        label_columns: Columns of the table for its fields, where the names differ.
        patients: Where patients come from that neither the files nor the table of labels name.
        skipped: Files and volumes that the importer left out, and why.
        overwrite: Replace the dataset in `destination` if it has the same name.
        progress: Called with (done, total) after each volume.
        notes: Lines of the report on how the volumes were found.

    Raises:
        UsageError: Mask values, classes or labels are inconsistent.
        DxsegError: The table is wrong, no volume is left, no label map has a mapped value, or the
            destination has other files.
    """
    volumes = list(found)
    destination = Path(destination).resolve()
    slicing, axis_notes = decide_axis(volumes, slicing)
    rules = _rules(slicing, mask_values, lesion_classes, ignore_value)
    names = SliceLabels(rules, lesion_label, lesion_free, known=slice_labels_known)
    _check_ids(volumes)
    table = JoinedLabels()
    if labels is not None:
        table = read_labels(Path(labels), label_columns or {}, volumes, lesion_free)
    volumes, guesses = _assign_patients(volumes, table, patients)
    spec_fields = {
        **fields,
        "patients_from": guesses.derived_from,
        "mask_classes": rules.mask_classes,
        "lesion_classes": None if rules.all_lesions else list(rules.lesion_classes),
        "channels": slicing.channels,
        "spacing_unit": "mm",
        "slicing": slicing.model_dump(mode="json"),
    }
    source = f"dataset {fields.get('name')!r}"
    make_spec({**spec_fields, "labels": []}, source)
    open_destination(destination, str(fields["name"]), overwrite)
    left_out = skipped if isinstance(skipped, LeftOut) else LeftOut(skipped)
    records: list[tuple[FoundVolume, SliceRecord]] = []
    for done, volume in enumerate(volumes, 1):
        try:
            records.append((volume, slice_volume(volume, destination, rules)))
        except MaskLikeError as error:
            left_out.mask(volume.volume_id, str(error))
        except DxsegError as error:
            left_out.image(volume.volume_id, str(error))
        if progress is not None:
            progress(done, len(volumes))
    _check_records(records, left_out, rules, destination)
    _check_indices(records, table)
    masked = any(record.masks is not None for _, record in records)
    rows = [row for volume, record in records for row in _rows(volume, record, table, names)]
    occurring = {str(row["label"]) for row in rows} - {""}
    spec = make_spec({**spec_fields, **names.fields(masked, occurring)}, source)
    dataset = Dataset(destination, spec, pd.DataFrame(rows))
    remove_others(destination, {volume.volume_id for volume, _ in records})
    dataset.save()
    (destination / UNFINISHED).unlink(missing_ok=True)
    left_out.masks += sum(
        volume.load_labels is not None and record.masks is None for volume, record in records
    )
    report = volume_report(dataset, records, table, names, left_out, notes)
    report.notes.extend([*axis_notes, *guesses.notes])
    return report


def _assign_patients(
    volumes: Sequence[FoundVolume], table: JoinedLabels, rules: PatientRules
) -> tuple[list[FoundVolume], Patients]:
    """Give each volume its patient: its own, else that of the table of labels, else found."""
    named = [volume.patient_id or table.patients.get(volume.volume_id, "") for volume in volumes]
    unnamed = [volume for volume, patient in zip(volumes, named, strict=True) if not patient]
    found = Patients([])
    if unnamed:
        found = find_patients(
            [PurePosixPath(volume.path or volume.volume_id) for volume in unnamed], rules
        )
    names = iter(found.names)
    patients = [patient or next(names) for patient in named]
    return [replace(v, patient_id=p) for v, p in zip(volumes, patients, strict=True)], found


def _rules(
    slicing: Slicing,
    mask_values: Mapping[int, str],
    lesion_classes: Sequence[str],
    ignore_value: int | None,
) -> SliceRules:
    if ignore_value is not None and (ignore_value in mask_values or not 0 < ignore_value < 2**16):
        raise UsageError(
            f"ignore value {ignore_value}: expected a value of the label maps from 1 to 65535 that "
            "has no mask class"
        )
    if not mask_values or not all(0 < value < 2**16 for value in mask_values):
        raise UsageError(
            f"mask values {', '.join(map(str, mask_values)) or 'absent'}: expected at least one, "
            "each from 1 to 65535 (0 is background), such as 2=tumour"
        )
    classes = list(dict.fromkeys(mask_values.values()))
    unknown = [name for name in lesion_classes if name not in classes]
    if unknown:
        raise UsageError(
            f"lesion class {unknown[0]!r}: no mask value has it; classes are {', '.join(classes)}"
        )
    return SliceRules(slicing, dict(mask_values), tuple(lesion_classes or classes), ignore_value)


def _check_ids(volumes: Sequence[FoundVolume]) -> None:
    counts = Counter(volume.volume_id for volume in volumes)
    twice = [name for name, count in counts.items() if count > 1]
    if twice:
        raise DxsegError(
            f"volume {twice[0]!r} was found {counts[twice[0]]} times; rename the others"
        )


def _check_records(
    records: Sequence[tuple[FoundVolume, SliceRecord]],
    skipped: Sequence[tuple[str, str]],
    rules: SliceRules,
    destination: Path,
) -> None:
    if not records:
        first = "".join(f"; first reason: {name}: {reason}" for name, reason in skipped[:1])
        raise DxsegError(f"{destination}: no readable volume was found{first}")
    dropped = count_dropped(records)
    if dropped and not any(record.mapped for _, record in records):
        values = ", ".join(str(value) for value in sorted(dropped)[:10])
        raise DxsegError(
            f"{destination}: the label maps have the values {values}, none of which has a mask "
            f"class (requested: {', '.join(map(str, rules.mask_values))}); give --mask-value "
            "VALUE=CLASS for those that are lesions"
        )


def _check_indices(records: Sequence[tuple[FoundVolume, SliceRecord]], table: JoinedLabels) -> None:
    slices = {volume.volume_id: len(record.images) for volume, record in records}
    for volume_id, index in table.labels:
        if index is not None and index >= slices.get(volume_id, index + 1):
            raise DxsegError(
                f"volume {volume_id!r}: the table labels its slice {index}, but its slices are 0 "
                f"to {slices[volume_id] - 1}; count from 0, in the order given in docs/data.md"
            )

    for volume_id, count in slices.items():
        beyond = {n for n in table.annotated_slices(volume_id) or () if n >= count}
        if beyond:
            raise DxsegError(
                f"volume {volume_id!r}: annotated_slices has {min(beyond)}, but its slices are 0 "
                f"to {count - 1}; count from 0, in the order given in docs/data.md"
            )


def _rows(
    volume: FoundVolume, record: SliceRecord, table: JoinedLabels, names: SliceLabels
) -> list[dict[str, Any]]:
    # To a nanometer: digits beyond are of the arithmetic, and would change the digest of a dataset.
    spacing = (round(length, 6) for length in record.spacing)
    common = {
        "patient_id": volume.patient_id,
        **dict(zip(("spacing_z", "spacing_y", "spacing_x"), spacing, strict=True)),
        "volume_id": volume.volume_id,
    }
    rows = []
    for index, image in enumerate(record.images):
        masked = record.masks is not None and is_annotated(volume.volume_id, index, record, table)
        label, level = slice_label(volume.volume_id, index, record, table, names)
        rows.append(
            {
                **common,
                "case_id": f"{volume.volume_id}_{index:04d}",
                "image": image,
                "mask": record.masks[index] if record.masks is not None and masked else "",
                "label": label,
                "label_level": level,
                "slice_index": index,
            }
        )
    return rows

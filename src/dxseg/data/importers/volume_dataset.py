"""From volumes, whatever files they came from, to a dataset of their slices."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from dxseg.data.importers.destination import UNFINISHED, open_destination
from dxseg.data.importers.report import ImportReport, Progress
from dxseg.data.importers.slice_labels import SliceLabels, slice_label
from dxseg.data.importers.volume_labels import JoinedLabels, read_labels
from dxseg.data.importers.volume_report import count_dropped, volume_report
from dxseg.data.importers.volume_slices import SliceRecord, SliceRules, remove_others, slice_volume
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
    labels: str | Path | None = None,
    label_columns: Mapping[str, str] | None = None,
    skipped: Sequence[tuple[str, str]] = (),
    overwrite: bool = False,
    progress: Progress | None = None,
) -> ImportReport:
    """Slice volumes into images of the dataset's folder, and write the dataset.

    Where a volume has a label map, the label of each slice is derived from it. Other volumes take
    theirs from the table, if there is one: with a slice_index of that slice, without one of study
    level. One volume is in memory at a time. An import that is interrupted leaves no dataset; the
    same call goes on with the volumes that are not done.

    Args:
        found: The volumes; their ids are distinct and fit to be names of files.
        destination: The dataset's folder, new or empty.
        fields: Of `DatasetSpec`: name, and any of modality, provenance, licence.
        slicing: How volumes become images.
        mask_values: The mask class of each value of the label maps; voxels of other values are
            background, and told.
        lesion_classes: The mask classes that are lesions, where others are organs; all by default.
        lesion_label: What slices with a lesion are labelled; by default the lesion class, or
            "lesion" where there are several.
        lesion_free: Labels that mean "no lesion"; the first is given to slices without one. By
            default "no " and the lesion label.
        labels: A table of labels; see `read_labels`.
        label_columns: For its fields, the columns' names in the table.
        skipped: What the importer left out, and why.
        overwrite: Whether a dataset of the same name may be replaced.
        progress: Called with (done, total) after each volume.

    Raises:
        UsageError: Mask values, classes or labels do not fit each other.
        DxsegError: The table is wrong, no volume is left, no label map holds a mapped value, or the
            destination holds something else.
    """
    volumes = list(found)
    destination = Path(destination).resolve()
    rules = _rules(slicing, mask_values, lesion_classes)
    names = SliceLabels(rules, lesion_label, lesion_free)
    _check_ids(volumes)
    table = JoinedLabels()
    if labels is not None:
        table = read_labels(Path(labels), label_columns or {}, volumes)
    spec_fields = {
        **fields,
        "mask_classes": rules.mask_classes,
        "channels": slicing.channels,
        "spacing_unit": "mm",
        "slicing": slicing.model_dump(mode="json"),
    }
    source = f"dataset {fields.get('name')!r}"
    make_spec({**spec_fields, "labels": []}, source)
    open_destination(destination, str(fields["name"]), overwrite)
    left_out = list(skipped)
    records: list[tuple[FoundVolume, SliceRecord]] = []
    for done, volume in enumerate(volumes, 1):
        try:
            records.append((volume, slice_volume(volume, destination, rules)))
        except DxsegError as error:
            left_out.append((volume.volume_id, str(error)))
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
    return volume_report(dataset, records, table, names, left_out)


def _rules(
    slicing: Slicing, mask_values: Mapping[int, str], lesion_classes: Sequence[str]
) -> SliceRules:
    if not mask_values or not all(0 < value < 2**16 for value in mask_values):
        raise UsageError(
            f"mask values {', '.join(map(str, mask_values)) or 'absent'}: expected at least one, "
            "each from 1 to 65535 (0 is background), such as 2=tumour"
        )
    classes = list(dict.fromkeys(mask_values.values()))
    strangers = [name for name in lesion_classes if name not in classes]
    if strangers:
        raise UsageError(
            f"lesion class {strangers[0]!r}: no mask value has it; there are {', '.join(classes)}"
        )
    return SliceRules(slicing, dict(mask_values), tuple(lesion_classes or classes))


def _check_ids(volumes: Sequence[FoundVolume]) -> None:
    counts = Counter(volume.volume_id for volume in volumes)
    twice = [name for name, count in counts.items() if count > 1]
    if twice:
        raise DxsegError(f"volume {twice[0]!r} was found {counts[twice[0]]} times; rename one")


def _check_records(
    records: Sequence[tuple[FoundVolume, SliceRecord]],
    skipped: Sequence[tuple[str, str]],
    rules: SliceRules,
    destination: Path,
) -> None:
    if not records:
        first = "".join(f"; first reason: {name}: {reason}" for name, reason in skipped[:1])
        raise DxsegError(f"{destination}: no volume was found that can be read{first}")
    dropped = count_dropped(records)
    if dropped and not any(record.mapped for _, record in records):
        values = ", ".join(str(value) for value in sorted(dropped)[:10])
        raise DxsegError(
            f"{destination}: the label maps hold the values {values}, none of which has a mask "
            f"class (asked for: {', '.join(map(str, rules.mask_values))}); give --mask-value "
            "VALUE=CLASS for those that are lesions"
        )


def _check_indices(records: Sequence[tuple[FoundVolume, SliceRecord]], table: JoinedLabels) -> None:
    slices = {volume.volume_id: len(record.images) for volume, record in records}
    for volume_id, index in table.labels:
        if index is not None and index >= slices.get(volume_id, index + 1):
            raise DxsegError(
                f"volume {volume_id!r}: the table labels its slice {index}, but its slices are 0 "
                f"to {slices[volume_id] - 1}; count from 0, in the order that docs/data.md tells"
            )


def _rows(
    volume: FoundVolume, record: SliceRecord, table: JoinedLabels, names: SliceLabels
) -> list[dict[str, Any]]:
    common = {
        "patient_id": volume.patient_id or table.patients.get(volume.volume_id, ""),
        "spacing_y": record.spacing[0],
        "spacing_x": record.spacing[1],
        "volume_id": volume.volume_id,
    }
    rows = []
    for index, image in enumerate(record.images):
        label, level = slice_label(volume.volume_id, index, record, table, names)
        rows.append(
            {
                **common,
                "case_id": f"{volume.volume_id}_{index:04d}",
                "image": image,
                "mask": record.masks[index] if record.masks is not None else "",
                "label": label,
                "label_level": level,
                "slice_index": index,
            }
        )
    return rows

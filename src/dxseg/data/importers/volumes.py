"""From volumes, whatever files they came from, to a dataset of their slices."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from dxseg.data.importers.common import ImportReport, Progress
from dxseg.data.importers.destination import UNFINISHED, open_destination
from dxseg.data.importers.volume_labels import JoinedLabels, read_labels
from dxseg.data.importers.volume_slices import SliceRecord, SliceRules, remove_others, slice_volume
from dxseg.data.readers.slicing import Slicing
from dxseg.data.readers.volume import FoundVolume
from dxseg.data.table.cases import STUDY_LEVEL
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
    names = _Names(rules, lesion_label, lesion_free)
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
    return _report(dataset, records, table, names, left_out)


class _Names:
    """The labels that slices get, and what they say of the mask."""

    def __init__(
        self, rules: SliceRules, lesion_label: str | None, lesion_free: Sequence[str]
    ) -> None:
        single = rules.lesion_classes[0] if len(rules.lesion_classes) == 1 else "lesion"
        self.lesion = lesion_label or single
        self.free = list(lesion_free) or [f"no {self.lesion}"]
        self.rules = rules
        self._given = list(lesion_free)
        if self.lesion in self.free:
            raise UsageError(
                f"label {self.lesion!r}: cannot mean both a lesion and none; give another name"
            )

    def fields(self, masked: bool, occurring: set[str]) -> dict[str, list[str]]:
        """Labels and lesion-free labels of the dataset, from those that slices have."""
        derived = [self.free[0], self.lesion] if masked else []
        labels = [*derived, *sorted(occurring - set(derived))]
        strangers = sorted(set(self._given) - set(labels))
        if strangers:
            raise DxsegError(
                f"lesion-free label {', '.join(map(repr, strangers))}: no volume or slice has it; "
                f"labels are {', '.join(labels) or 'absent'}"
            )
        # Where organs have mask classes, no label says that the mask is empty.
        free = [name for name in labels if name in self.free] if self.rules.all_lesions else []
        return {"labels": labels, "lesion_free": free}


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
    dropped = _dropped(records)
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
    volume: FoundVolume, record: SliceRecord, table: JoinedLabels, names: _Names
) -> list[dict[str, Any]]:
    common = {
        "patient_id": volume.patient_id or table.patients.get(volume.volume_id, ""),
        "spacing_y": record.spacing[0],
        "spacing_x": record.spacing[1],
        "volume_id": volume.volume_id,
    }
    rows = []
    for index, image in enumerate(record.images):
        label, level = _label(volume.volume_id, index, record, table, names)
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


def _label(
    volume_id: str, index: int, record: SliceRecord, table: JoinedLabels, names: _Names
) -> tuple[str, str]:
    """The label of a slice and its level."""
    if record.masks is not None:
        return (names.lesion if record.lesion[index] else names.free[0]), "image"
    label = table.labels.get((volume_id, index), "")
    if label:
        return label, "image"
    label = table.labels.get((volume_id, None), "")
    return label, STUDY_LEVEL if label else ""


def _dropped(records: Sequence[tuple[FoundVolume, SliceRecord]]) -> Counter[int]:
    dropped: Counter[int] = Counter()
    for _, record in records:
        dropped.update(record.dropped)
    return dropped


def _report(
    dataset: Dataset,
    records: Sequence[tuple[FoundVolume, SliceRecord]],
    table: JoinedLabels,
    names: _Names,
    skipped: list[tuple[str, str]],
) -> ImportReport:
    cases, slicing = dataset.cases, dataset.spec.slicing
    assert slicing is not None, "write_volumes has set it"
    counts = {str(name): int(count) for name, count in Counter(cases["label"]).items()}
    told = ", ".join(f"{count} {name or 'unlabelled'}" for name, count in sorted(counts.items()))
    study = int(cases["label_level"].eq(STUDY_LEVEL).sum())
    window = (
        f"level {slicing.window[0]:g}, width {slicing.window[1]:g}"
        if slicing.window is not None
        else f"percentiles {slicing.percentiles[0]:g} to {slicing.percentiles[1]:g} of each volume"
    )
    with_map = sum(record.masks is not None for _, record in records)
    notes = [
        f"{len(records)} volumes, {len(cases)} slices ({told})",
        f"{with_map} volumes with a label map; their slices' labels come from it",
        f"axis {slicing.axis}, {window}, {slicing.channels} channels",
    ]
    if not names.rules.all_lesions:
        notes.append("mask classes that are no lesion: no label means an empty mask")
    if study:
        notes.append(f"{study} slices carry the label of their study, not one of their own")
    for value, count in sorted(_dropped(records).items()):
        notes.append(f"label map value {value}: {count} voxels DROPPED, it has no mask class")
    notes.extend(_disagreements(records, table, names))
    notes.extend(table.notes)
    notes.extend(f"{volume.volume_id}: {note}" for volume, r in records for note in r.notes)
    if skipped:
        notes.append(f"left out: {len(skipped)}")
        notes.extend(f"  {name}: {reason}" for name, reason in skipped)
    return ImportReport(
        destination=dataset.root,
        images=len(cases),
        masks=int(cases["mask"].ne("").sum()),
        labels=dict(sorted(counts.items())),
        channels=dataset.spec.channels,
        volumes=len(records),
        skipped=skipped,
        notes=notes,
    )


def _disagreements(
    records: Sequence[tuple[FoundVolume, SliceRecord]], table: JoinedLabels, names: _Names
) -> list[str]:
    """Volumes whose label map and whose study-level label say different things."""
    apart = []
    for volume, record in records:
        label = table.labels.get((volume.volume_id, None))
        if record.masks is not None and label and any(record.lesion) == (label in names.free):
            apart.append(volume.volume_id)
    if not apart:
        return []
    return [
        f"{len(apart)} volumes whose label map and label in the table disagree; the label map "
        f"holds: {', '.join(apart[:10])}{', ...' if len(apart) > 10 else ''}"
    ]

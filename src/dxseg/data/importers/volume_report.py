"""The report of an import of volumes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from dxseg.data.importers.report import ImportReport, LeftOut, describe_left_out, failures
from dxseg.data.importers.slice_labels import SliceLabels, is_annotated
from dxseg.data.importers.volume_labels import JoinedLabels
from dxseg.data.importers.volume_slices import SliceRecord
from dxseg.data.readers.regular_grid import oblique_degrees
from dxseg.data.readers.slicing import Slicing
from dxseg.data.readers.volume import FoundVolume
from dxseg.data.table.dataset import Dataset
from dxseg.data.table.volumes import SLABS, STUDY_LEVEL

_LISTED = 10
_LOST = 0.2
"""Fraction of the outlined voxels outside the window from which the report names the window."""
_OBLIQUE = 5.0
"""Degrees from which slices as they are stored are worth a note."""


def count_dropped(records: Sequence[tuple[FoundVolume, SliceRecord]]) -> Counter[int]:
    """Count the voxels of each label map value that has no mask class.

    Args:
        records: The volumes, and what was written for each.
    """
    dropped: Counter[int] = Counter()
    for _, record in records:
        dropped.update(record.dropped)
    return dropped


def volume_report(
    dataset: Dataset,
    records: Sequence[tuple[FoundVolume, SliceRecord]],
    table: JoinedLabels,
    names: SliceLabels,
    left_out: LeftOut,
    found: Sequence[str] = (),
) -> ImportReport:
    """Report on an import of volumes.

    Args:
        dataset: The dataset that was written.
        records: The volumes, and what was written for each.
        table: Labels of the volumes from a table.
        names: Labels of the slices.
        left_out: Files and volumes left out, and why.
        found: Lines on how the volumes were found.
    """
    cases, slicing = dataset.cases, dataset.spec.slicing
    assert slicing is not None, "write_volumes has set it"
    counts = {str(name): int(count) for name, count in Counter(cases["label"]).items()}
    labels = ", ".join(f"{count} {name or 'unlabeled'}" for name, count in sorted(counts.items()))
    study = int(cases["label_level"].eq(STUDY_LEVEL).sum())
    with_map = sum(record.masks is not None for _, record in records)
    notes = [
        f"{len(records)} volumes, {len(cases)} slices ({labels})",
        f"{with_map} volumes with a label map; which slices show a lesion comes from it"
        f"{_known_labels(names, with_map)}",
        *found,
        f"axis {slicing.axis}, {_describe_windows(slicing)}, {slicing.channels} channels",
    ]
    if not names.rules.all_lesions:
        notes.append("mask classes that are not lesions: no label means an empty mask")
    unjudged = sum(
        not is_annotated(volume.volume_id, index, record, table)
        for volume, record in records
        if record.masks is not None
        for index in range(len(record.images))
    )
    if unjudged:
        notes.append(f"{unjudged} slices are not annotated throughout: their masks are unknown")
    if study:
        notes.append(f"{study} slices have the label of their study, not one of their own")
    for value, count in sorted(count_dropped(records).items()):
        notes.append(f"label map value {value}: {count} voxels DROPPED, it has no mask class")
    notes.extend(_lost_contrast(records, slicing))
    notes.extend(_note_oblique(records, slicing))
    notes.extend(_disagreements(records, table, names))
    notes.extend(table.notes)
    notes.extend(_notes_of_volumes(records))
    notes.extend(describe_left_out(left_out, "left out"))
    return ImportReport(
        destination=dataset.root,
        images=len(cases),
        masks=int(cases["mask"].ne("").sum()),
        labels=dict(sorted(counts.items())),
        channels=dataset.spec.channels,
        volumes=len(records),
        skipped=left_out,
        failed=failures(left_out, with_map),
        notes=notes,
    )


def _notes_of_volumes(records: Sequence[tuple[FoundVolume, SliceRecord]]) -> list[str]:
    """Notes of the readers, each once, with the volumes that it is of."""
    volumes: dict[str, list[str]] = {}
    for volume, record in records:
        for note in record.notes:
            volumes.setdefault(note, []).append(volume.volume_id)
    return [
        f"{ids[0] if len(ids) == 1 else f'{len(ids)} volumes ({_listed(ids)})'}: {note}"
        for note, ids in volumes.items()
    ]


def _listed(ids: Sequence[str]) -> str:
    return ", ".join(ids[:_LISTED]) + (", ..." if len(ids) > _LISTED else "")


def _lost_contrast(
    records: Sequence[tuple[FoundVolume, SliceRecord]], slicing: Slicing
) -> list[str]:
    """Whether a window makes much of what is outlined black or white."""
    below, above, marked = (sum(record.outside[n] for _, record in records) for n in range(3))
    if slicing.window is None or below + above < _LOST * max(marked, 1):
        return []
    return [
        f"the window leaves no contrast in {(below + above) / marked:.0%} of the outlined voxels: "
        f"{below / marked:.0%} are below it and black, {above / marked:.0%} above it and white; "
        "--window LEVEL,WIDTH sets another"
    ]


def _describe_windows(slicing: Slicing) -> str:
    low, high = slicing.percentiles
    described = [
        f"percentiles {low:g} to {high:g} of each volume"
        if window is None
        else f"level {window[0]:g}, width {window[1]:g}"
        for window in slicing.windows
    ]
    if slicing.sequences is None:
        return described[0]
    names = [
        f"{one.name} ({window})" for one, window in zip(slicing.sequences, described, strict=True)
    ]
    return f"sequences {', '.join(names)}"


def _note_oblique(
    records: Sequence[tuple[FoundVolume, SliceRecord]], slicing: Slicing
) -> list[str]:
    """Name volumes that are no regular grid along the patient's axes, and what became of them."""
    angles = {
        volume.volume_id: oblique_degrees(np.array(record.affine))
        for volume, record in records
        if record.is_resampled or not slicing.resample
    }
    named = [name for name, angle in angles.items() if slicing.resample or angle >= _OBLIQUE]
    if not named:
        return []
    shown = _listed(named)
    if slicing.resample:
        return [f"{len(named)} volumes were resampled onto the patient's axes: {shown}"]
    return [
        f"{len(named)} volumes are oblique or sheared, by up to {max(angles.values()):.0f} "
        "degrees: their slices are as stored; --resample brings them onto the patient's axes: "
        f"{shown}"
    ]


def _known_labels(names: SliceLabels, with_map: int) -> str:
    """What is known of a volume whose label map is hidden."""
    if not with_map or names.known:
        return ""
    return ", and are known with it only (--slice-labels-known if they are known without)"


def _disagreements(
    records: Sequence[tuple[FoundVolume, SliceRecord]], table: JoinedLabels, names: SliceLabels
) -> list[str]:
    """Find the labels of a table that say other than the label map whether there is a lesion."""
    differing: dict[str, list[str]] = {"volumes": [], "slabs": [], "slices": []}
    for volume, record in records:
        if record.masks is None:
            continue
        name, count = volume.volume_id, len(record.images)
        judged = [
            index not in record.unknown and is_annotated(name, index, record, table)
            for index in range(count)
        ]
        parts = [("volumes", name, table.labels.get((name, None)), range(count))]
        for slab in range(SLABS):
            # Slices n with n * SLABS // count == slab.
            first, end = (-(-number * count // SLABS) for number in (slab, slab + 1))
            label = table.slabs.get((name, slab))
            parts.append(("slabs", f"{name} slab {slab}", label, range(first, end)))
        for index in range(count):
            label = table.labels.get((name, index)) if judged[index] else None
            parts.append(("slices", f"{name} slice {index}", label, range(index, index + 1)))
        for kind, part, label, slices in parts:
            drawn = any(record.lesion[index] for index in slices)
            known = drawn or all(judged[index] for index in slices)
            if label and known and drawn == (label in names.free):
                differing[kind].append(part)
    return [
        f"{len(parts)} {kind} whose label map and label in the table disagree; the label map is "
        f"used: {_listed(parts)}"
        for kind, parts in differing.items()
        if parts
    ]

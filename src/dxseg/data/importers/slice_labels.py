"""Labels of slices of volumes: from a label map, else from a table."""

from __future__ import annotations

from collections.abc import Sequence

from dxseg.data.importers.volume_labels import JoinedLabels
from dxseg.data.importers.volume_slices import SliceRecord, SliceRules
from dxseg.data.table.volumes import (
    MASK_LEVEL,
    SLAB_LEVEL,
    SLAB_MASK_LEVEL,
    SLABS,
    STUDY_LEVEL,
)
from dxseg.errors import DxsegError, UsageError


class SliceLabels:
    """Names of the labels of slices, and which of them mean lesion-free.

    Attributes:
        known: Whether labels that follow from a label map are known without it.
    """

    def __init__(
        self,
        rules: SliceRules,
        lesion_label: str | None,
        lesion_free: Sequence[str],
        *,
        known: bool = False,
    ) -> None:
        """Choose the names.

        Args:
            rules: Rules of the import.
            lesion_label: Label of slices with a lesion of which the table has no diagnosis;
                default: the only lesion class, or "lesion".
            lesion_free: Labels that mean lesion-free; default: "no " and the lesion label.
            known: Whether labels of slices are known without their label maps.

        Raises:
            UsageError: A label means both.
        """
        self.known = known
        single = rules.lesion_classes[0] if len(rules.lesion_classes) == 1 else "lesion"
        self.lesion = lesion_label or single
        self.free = list(lesion_free) or [f"no {self.lesion}"]
        self.rules = rules
        self._given = list(lesion_free)
        if self.lesion in self.free:
            raise UsageError(
                f"label {self.lesion!r}: cannot mean both a lesion and none; give another name"
            )

    def fields(self, masked: bool, occurring: set[str]) -> dict[str, list[str] | None]:
        """Make the fields of the dataset that list labels, from the labels of slices."""
        derived = [self.free[0], self.lesion] if masked else []
        # Beside the diagnoses of a table, a label that nothing has is none to learn.
        if self.lesion not in occurring and occurring - set(self.free):
            derived = derived[:1]
        labels = [*derived, *sorted(occurring - set(derived))]
        unknown = sorted(set(self._given) - set(labels))
        if unknown:
            raise DxsegError(
                f"lesion-free label {', '.join(map(repr, unknown))}: no volume or slice has it; "
                f"labels are {', '.join(labels) or 'absent'}"
            )
        # If organs have mask classes, no label means that the mask is empty.
        free = [name for name in labels if name in self.free]
        if self.rules.all_lesions:
            return {"labels": labels, "lesion_free": free, "organs_only": None}
        return {"labels": labels, "lesion_free": [], "organs_only": free}


def is_annotated(volume_id: str, index: int, record: SliceRecord, table: JoinedLabels) -> bool:
    """Whether the mask of a slice is complete, so that what it leaves out is background.

    Args:
        volume_id: Id of the volume.
        index: Number of the slice, from 0.
        record: Files and lesions of the volume's slices.
        table: Table of labels, perhaps with annotated slices.
    """
    listed = table.annotated_slices(volume_id)
    return index not in record.ignored and (listed is None or index in listed)


def slice_label(
    volume_id: str, index: int, record: SliceRecord, table: JoinedLabels, names: SliceLabels
) -> tuple[str, str]:
    """Look up the label of a slice and its level.

    A label map says whether the slice shows a lesion, and the table which: its label of the slice,
    of the slab or of the volume, the first that does not contradict the map. A label that follows
    from a label map is known without it only if the table has it too, perhaps as that of the slab.
    Where the table has slabs of the volume, a slab without a label is unknown. A lesion-free
    label of a volume or slab does not count where its label map shows a lesion.

    Args:
        volume_id: Id of the volume.
        index: Number of the slice, from 0.
        record: Files and lesions of the volume's slices.
        table: Labels from a table.
        names: Names of the labels.
    """
    given = table.labels.get((volume_id, index), "")
    count = len(record.images)
    slab = index * SLABS // count
    slabs = [table.slabs.get((volume_id, number), "") for number in range(SLABS)]
    of_study = table.labels.get((volume_id, None), "")
    known = index not in record.unknown and is_annotated(volume_id, index, record, table)
    if record.masks is not None and known:
        drawn = record.lesion[index]
        fitting = [
            label
            for label in (given, slabs[slab], of_study)
            if label and (label not in names.free) == drawn
        ]
        label = [*fitting, names.lesion if drawn else names.free[0]][0]
        if names.known or label == given:
            return label, "image"
        return label, SLAB_MASK_LEVEL if slabs[slab] else MASK_LEVEL
    if given:
        return given, "image"
    if any(slabs):
        label, level = slabs[slab], SLAB_LEVEL
        shown = [drawn for n, drawn in enumerate(record.lesion) if n * SLABS // count == slab]
    else:
        label, level = of_study, STUDY_LEVEL
        shown = record.lesion
    # A label map that shows a lesion is right, and a label that means none is wrong.
    if label in names.free and any(shown):
        label = ""
    return label, level if label else ""

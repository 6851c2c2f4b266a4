"""The labels that slices of volumes get: from a label map, else from a table."""

from __future__ import annotations

from collections.abc import Sequence

from dxseg.data.importers.volume_labels import JoinedLabels
from dxseg.data.importers.volume_slices import SliceRecord, SliceRules
from dxseg.data.table.cases import STUDY_LEVEL
from dxseg.errors import DxsegError, UsageError


class SliceLabels:
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


def slice_label(
    volume_id: str, index: int, record: SliceRecord, table: JoinedLabels, names: SliceLabels
) -> tuple[str, str]:
    """The label of a slice and its level."""
    if record.masks is not None:
        return (names.lesion if record.lesion[index] else names.free[0]), "image"
    label = table.labels.get((volume_id, index), "")
    if label:
        return label, "image"
    label = table.labels.get((volume_id, None), "")
    return label, STUDY_LEVEL if label else ""

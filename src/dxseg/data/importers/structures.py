"""Label maps of one structure each, as TotalSegmentator writes them, merged to one label map."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dxseg.data.importers.mask_names import tokens
from dxseg.data.importers.names import natural_key
from dxseg.data.readers.volume import Grid, VolumeLabels
from dxseg.errors import UsageError

_MOST_CLASSES = 255
_LESION_WORDS = """
lesion lesions tumor tumors tumour tumours nodule nodules cancer metastasis metastases cyst cysts
mass hemorrhage hemorrhages haemorrhage haemorrhages edema oedema infarct infarction plaque polyp
stroke
"""
_LESIONS = frozenset(_LESION_WORDS.split())

ReadLabels = Callable[[Path, Grid], VolumeLabels]


@dataclass(frozen=True)
class Structures:
    """Which structures have a file of their own.

    Attributes:
        values: Value of each structure in the merged label map.
        classes: Mask class of the values 1, 2, ...
        lesions: Classes that are lesions; none if there is at most one class.
    """

    values: Mapping[str, int]
    classes: list[str]
    lesions: list[str]


def choose_structures(
    found: Iterable[str], regions: Mapping[str, str] | None, lesion_classes: Sequence[str]
) -> Structures:
    """Give each structure its value; lesions come last, as the last is kept where two overlap.

    Args:
        found: Names of structures; "" is none.
        regions: Mask class of those that are used; None: each is one.
        lesion_classes: Classes that are lesions; default: those whose names are lesions.

    Raises:
        UsageError: A structure does not exist, there are too many, or none is known to be a lesion.
    """
    names = sorted(set(found) - {""}, key=natural_key)
    chosen = {name: name for name in names} if regions is None else dict(regions)
    unknown = sorted(set(chosen) - set(names))
    if unknown:
        raise UsageError(
            f"region {unknown[0]!r}: no label map is of it; there are "
            f"{', '.join(names[:20]) or 'no files of single structures'}"
        )
    classes = list(dict.fromkeys(chosen.values()))
    if len(classes) > _MOST_CLASSES:
        raise UsageError(f"{len(classes)} structures: expected at most {_MOST_CLASSES}; --region")
    lesions = list(lesion_classes or _guess_lesions(classes)) if len(classes) > 1 else []
    classes.sort(key=lambda name: name in lesions)
    values = {name: classes.index(one) + 1 for name, one in chosen.items()}
    return Structures(values, classes, lesions)


def _guess_lesions(structures: Sequence[str]) -> list[str]:
    """Find the structures whose names are those of lesions, as not every organ is one."""
    lesions = [name for name in structures if not _LESIONS.isdisjoint(tokens(name))]
    if not lesions:
        raise UsageError(
            f"structures {', '.join(structures[:20])}: none has the name of a lesion; say which "
            "are: --lesion-class NAME"
        )
    return lesions


def merge_structures(
    grid: Grid,
    structures: Sequence[tuple[Path, int]],
    read: ReadLabels,
    ignore_value: int | None = None,
) -> VolumeLabels:
    """Read label maps of one structure each; where they overlap, the last one is kept.

    Args:
        grid: Of their volume.
        structures: File and value of each.
        read: Reads one of them.
        ignore_value: Value for voxels that nobody has judged: those of any structure.
    """
    merged = np.zeros(grid[1], np.uint16)
    ignored = np.zeros(grid[1], np.bool_)
    notes: list[str] = []
    overlap = 0
    for path, value in sorted(structures, key=lambda pair: pair[1]):
        labels = read(path, grid)
        notes.extend(labels.notes)
        unjudged = labels.values == ignore_value
        ignored |= unjudged
        inside = (labels.values > 0) & ~unjudged
        overlap += int((inside & (merged > 0) & (merged != value)).sum())
        merged[inside] = value
    if ignore_value is not None:
        merged[ignored] = ignore_value
    if overlap:
        notes.append(
            f"label maps: {overlap} voxels are in several structures; a lesion or the last is kept"
        )
    return VolumeLabels(merged, notes=tuple(notes))

"""Labels and patients of images, read from the values that a table or folder names give."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pandas as pd

from dxseg.data.importers.image_dataset import FoundCase
from dxseg.data.table.label_lists import SEPARATOR, find_separator, split_list
from dxseg.data.table.words import Words, is_missing
from dxseg.errors import DxsegError

_MANY = 50
_LISTED = 10
_SOUND_FREE = ("normal", "healthy", "no finding", "negative", "no lesion", "control", "lesion-free")


def read_labels(
    values: pd.Series[str], words: Words, *, multi_label: bool, separator: str | None = None
) -> pd.Series[str]:
    """Read a column of labels: words for nothing are empty, each label has one spelling.

    Args:
        values: The column.
        words: How its values are read; it records what was done.
        multi_label: Whether a value may list several labels.
        separator: What separates them; default: the one that the column uses.

    Returns:
        The column in the notation of `cases.csv`: labels in order, with ";" between them.

    Raises:
        DxsegError: The values have different separators.
    """
    counts = Counter(values.tolist())
    lists = {text: [text] for text in counts}
    if multi_label:
        named = [text for text in counts if not is_missing(text, words.missing)]
        mark = separator or find_separator(named, words.column)
        lists |= {text: split_list(text, mark) for text in named}
    parts: Counter[str] = Counter()
    for text, count in counts.items():
        for part in lists[text]:
            parts[part] += count
    spelled = words.spellings(parts)
    read = {
        text: SEPARATOR.join(dict.fromkeys(spelled[part] for part in found if spelled[part]))
        for text, found in lists.items()
    }
    return values.map(read)


def read_case_labels(cases: Sequence[FoundCase], names: Sequence[str], words: Words) -> list[str]:
    """Read the labels of images that an importer took from the names of folders.

    Args:
        cases: The images; their labels are replaced.
        names: The folders, in order; some may have no image.
        words: How the names are read; it records what was done.

    Returns:
        The labels, in the order of the folders.
    """
    labels = [case.label for case in cases]
    spelled = words.spellings([*labels, *(set(names) - set(labels))])
    for case in cases:
        case.label = spelled[case.label]
    return list(dict.fromkeys(spelled[name] for name in names if spelled[name]))


def check_lesion_free(labels: Sequence[str], lesion_free: Sequence[str]) -> None:
    """Refuse a lesion-free label that no image has.

    Args:
        labels: The labels of the dataset.
        lesion_free: Those that mean lesion-free.

    Raises:
        DxsegError: There is one.
    """
    unknown = [name for name in lesion_free if name not in labels]
    if unknown:
        shown = ", ".join(map(repr, labels[:_LISTED])) or "absent: all images are unlabeled"
        raise DxsegError(
            f"--lesion-free {unknown[0]!r}: no image has this label; labels are {shown}"
        )


def describe_labels(
    labels: Sequence[str], lesion_free: Sequence[str], *, multi_label: bool
) -> list[str]:
    """Say what the user should know of the labels, as lines for the report of an import.

    Args:
        labels: The labels of the dataset.
        lesion_free: Those that mean lesion-free.
        multi_label: Whether an image may have several.
    """
    if not labels:
        return []
    notes = []
    shown = ", ".join(map(repr, labels[:_LISTED])) + (", ..." if len(labels) > _LISTED else "")
    if not lesion_free:
        like = [name for name in labels if any(word in name.casefold() for word in _SOUND_FREE)]
        meant = f"; {', '.join(map(repr, like[:_LISTED]))} may" if like else ""
        notes.append(
            f"no label means lesion-free (labels: {shown}){meant}; name those that do with "
            "--lesion-free LABEL, else the masks of their images count as unknown"
        )
    if len(labels) > _MANY:
        notes.append(f"{len(labels)} labels ({shown}): is this the column of the diagnosis?")
    lists = [name for name in labels if ";" in name or "|" in name]
    if lists and not multi_label:
        notes.append(
            f"labels that look like lists: {', '.join(map(repr, lists[:_LISTED]))}; give "
            "--multi-label if an image has several labels"
        )
    if multi_label and not lists:
        notes.extend(_unsplit(labels))
    return notes


def _unsplit(labels: Sequence[str]) -> list[str]:
    odd = [name for name in labels if any(mark in name for mark in ("/", "+", "&", ",", "|"))]
    if not odd:
        return []
    return [
        f"labels that may be lists: {', '.join(map(repr, odd[:_LISTED]))}; if so, give "
        "--label-separator"
    ]

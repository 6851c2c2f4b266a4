"""Patients derived from the names of folders and files: BIDS, BraTS, one folder a patient."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from pathlib import PurePosixPath

from dxseg.data.importers.names import fold_name

_NAMED = re.compile(
    r"(?:^|[/_\s-])(sub-[a-z0-9]+|(?:subject|subj|patient|pat|pt)[-_ ]?\d+)(?![a-z0-9])",
    re.IGNORECASE,
)
"""BIDS, and names that say that they are a patient's."""

_PART = re.compile(r"(volumes?|data(set)?)[-_ ]?(pt|part)[-_ ]?\d+", re.IGNORECASE)
"""Folders of a part of a download, whose "pt" is no patient: `volume_pt1`."""

_CONTAINER = re.compile(
    r"(images?|imgs?|masks?|labels?|segs?|data|train\w*|tests?|val\w*|raw|derivatives|anat|func|dwi"
    r"|perf|fold|split|part|batch|set|dataset|task|cent(er|re)|site|hospital|vendor|scanner|cohort"
    r"|group|class|grade|stage|type|category|cat|bi-?rads|level|phase|year|v|ver|version|release)"
    r"[-_ ]?\d*",
    re.IGNORECASE,
)
"""Folders of many patients."""

_SESSION = re.compile(
    r"(ses|session|visit|scan|series|study|exam|time|timepoint|tp|week|month|day|baseline|pre|post"
    r"|followup|follow-up|fu|acq|run|frames?|slices?|left|right|t)[-_ ]?\d*"
    r"|[\d.\-_]{8,}|(19|20)\d\d",
    re.IGNORECASE,
)
"""Folders of a part of a patient: visits, dates, unique identifiers of DICOM."""

_SEQUENCE = re.compile(
    r"[-_. ](flair|t1|t1w|t1n|t1c|t1ce|t1gd|t1post|t2|t2w|t2f|t2star|pd|pdw|dwi|adc|swi|dce|asl|cbf"
    r"|pre|post|native|arterial|venous|portal|delayed|late|ct|mr|mri|pet|bold|anat|brain|left|right"
    r"|(ses|session|visit|scan|tp|timepoint|run|acq)[-_]?\w*)$",
    re.IGNORECASE,
)
"""The end of a name that says which sequence or session of a patient it is."""

_LONG_WORD = re.compile(r"[^\W\d_]{5,}")
_TIME_POINT = re.compile(
    r"(.*(?<!\d)(?!(?:19|20)\d\d[-_])\d{3,})[-_](?:\d{1,3}|fu\w*)", re.IGNORECASE | re.DOTALL
)
"""A patient's number, which is no year, and the number of a scan: `BraTS-GLI-00005-001`."""

_FEW, _MANY, _DIGITS = 3, 10, 3


def derive_patients(
    files: Sequence[PurePosixPath], labels: Collection[str] = ()
) -> tuple[list[str], str] | None:
    """Derive the patient of each file from its path.

    Args:
        files: Paths of images or volumes, relative to the folder that was imported.
        labels: Names of folders that are labels, not patients.

    Returns:
        Patient of each file, "" where its path does not name one, and the origin; None if the
        paths name no patients.
    """
    named = [_NAMED.search(_without_parts(file)) for file in files]
    if any(named):
        return ["" if match is None else match[1] for match in named], "subject names"
    return _from_folders(files, {fold_name(label) for label in labels}) or _from_sequences(files)


def _without_parts(file: PurePosixPath) -> str:
    return "/".join(part for part in file.parts if not _PART.fullmatch(part))


def known_patients(names: Collection[str]) -> bool:
    """Whether the names of folders are those of patients, of all or of none.

    Subject names are. Else there are at least ten, or each has three digits, as `IMD003` has; long
    words, which describe what a folder holds, do not differ between them.

    Args:
        names: Folders of one level.
    """
    if all(_NAMED.search(name) for name in names):
        return bool(names)
    digits = min(sum(letter.isdigit() for letter in name) for name in names)
    return (
        len(names) >= _FEW
        and all(_may_be_patient(name, ()) for name in names)
        and (len(names) >= _MANY or digits >= _DIGITS)
        and len({tuple(_LONG_WORD.findall(name.casefold())) for name in names}) == 1
    )


def _from_folders(
    files: Sequence[PurePosixPath], labels: Collection[str]
) -> tuple[list[str], str] | None:
    """Use the highest level of folders with names like those of patients."""
    parts = [file.parts[:-1] for file in files]
    for level in range(max(map(len, parts), default=0)):
        names = [folders[level] if level < len(folders) else "" for folders in parts]
        distinct = {name for name in names if name}
        subjects = {name for name in distinct if _may_be_patient(name, labels)}
        if len(subjects) >= _FEW and 2 * len(subjects) > len(distinct):
            patients = _without_time_points(subjects)
            return [patients.get(name, "") for name in names], "folder names"
    return None


def _without_time_points(names: Collection[str]) -> dict[str, str]:
    """The patient of each folder: two scans of one patient can have a folder each."""
    bases = {name: _TIME_POINT.fullmatch(name) for name in names}
    shortened = {name: name if match is None else match[1] for name, match in bases.items()}
    return shortened if len(set(shortened.values())) >= _FEW else {name: name for name in names}


def _may_be_patient(name: str, labels: Collection[str]) -> bool:
    return (
        any(letter.isdigit() for letter in name)
        and fold_name(name) not in labels
        and not _CONTAINER.fullmatch(name)
        and not _PART.fullmatch(name)
        and not _SESSION.fullmatch(name)
    )


def _from_sequences(files: Iterable[PurePosixPath]) -> tuple[list[str], str] | None:
    """Use file names without sequence and session, if that brings files together."""
    names = []
    for file in files:
        name = _stem(file)
        while shorter := _SEQUENCE.sub("", name):
            if shorter == name:
                break
            name = shorter
        names.append(name)
    counts = Counter(names)
    together = sum(count for count in counts.values() if count > 1)
    if len(counts) < _FEW or 2 * together < len(names):
        return None
    return names, "file names without sequence and session"


def _stem(file: PurePosixPath) -> str:
    return file.name.removesuffix(".gz").rsplit(".", 1)[0]

"""The patient of each image or volume: from a table, from a pattern, or derived from names.

Two images of one patient on both sides of a split make every figure too good. What is derived is a
guess, and coarse rather than fine: a split that keeps two patients together loses nothing.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from dxseg.data.importers.image_dataset import FoundCase
from dxseg.data.importers.patient_names import derive_patients
from dxseg.data.importers.patient_table import read_patient_table
from dxseg.data.table.words import Words, is_missing, spelling_key
from dxseg.errors import DxsegError, UsageError

_SEPARATOR = re.compile(r"(?<=[^\W\d_])[-_ ]+(?=\d)")
"""Between a word and a number."""

OPTIONS = "--patients FILE or --patient-pattern REGEX"


@dataclass(frozen=True)
class PatientRules:
    """Where patients come from.

    Attributes:
        table: Table of patients by image or folder; see `read_patient_table`.
        pattern: Regular expression that is searched in the path of an image; its first group, else
            the match, is the patient.
        root: Folder that is imported.
    """

    table: str | Path | None = None
    pattern: str | None = None
    root: Path = Path()

    def __post_init__(self) -> None:
        """Refuse what contradicts itself."""
        if self.table is not None and self.pattern is not None:
            raise UsageError("--patients and --patient-pattern: give one of them")
        if self.pattern is not None:
            try:
                re.compile(self.pattern)
            except re.error as error:
                raise UsageError(
                    f"--patient-pattern {self.pattern!r}: no regular expression ({error}); such as "
                    "'^[^/]+/(P[0-9]+)'"
                ) from error

    @property
    def are_derived(self) -> bool:
        """Whether nothing but names says who the patients are."""
        return self.table is None and self.pattern is None


BY_NAMES = PatientRules()
"""Patients are derived from names."""


@dataclass(frozen=True)
class Patients:
    """The patients of files.

    Attributes:
        names: Patient of each file; "" where unknown.
        derived_from: Origin of the names if they are a guess, such as "folder names"; else None.
        notes: What was found, as lines for the report of an import.
    """

    names: list[str]
    derived_from: str | None = None
    notes: list[str] = field(default_factory=list)


def find_patients(
    files: Sequence[PurePosixPath], rules: PatientRules, *, labels: Collection[str] = ()
) -> Patients:
    """Find the patient of each image or volume.

    Args:
        files: Their paths relative to the root.
        rules: Where patients come from; by default they are derived from names.
        labels: Names of folders that are labels, not patients.

    Raises:
        DxsegError: The table is wrong, or neither it nor the pattern matches any file.
    """
    if rules.table is not None:
        return Patients(*read_patient_table(Path(rules.table), files, rules.root))
    if rules.pattern is not None:
        return _match(files, rules.pattern)
    derived = derive_patients(files, labels)
    if derived is None:
        return Patients(
            [""] * len(files), notes=[f"no patient is named; if you know them, give {OPTIONS}"]
        )
    names, origin = ["" if is_missing(name) else name for name in derived[0]], derived[1]
    spelled = _spellings(names)
    names = [spelled[name] for name in names]
    known = sorted({name for name in names if name})
    note = (
        f"patients: {len(known)} derived from {origin}, such as {known[0]!r}, for "
        f"{sum(map(bool, names))} of {len(names)}; this is a guess: if it is wrong, give {OPTIONS}"
    )
    others = len(spelled) - len(set(names))
    joined = [f"patients: {others} other spellings of these names"] if others else []
    return Patients(names, origin, [note, *joined])


def _spellings(names: Sequence[str]) -> dict[str, str]:
    """The most frequent spelling of each name; `Patient12` and `patient_12` are one patient."""
    keys = {name: spelling_key(_SEPARATOR.sub("", name)) for name in names}
    chosen: dict[str, str] = {}
    for name, _ in Counter(names).most_common():
        chosen.setdefault(keys[name], name)
    return {name: chosen[key] for name, key in keys.items()}


def fill_patients(
    cases: Sequence[FoundCase], rules: PatientRules, labels: Collection[str] = ()
) -> Patients:
    """Fill in the patients of images that nothing has named.

    Args:
        cases: The images; their values get a patient_id.
        rules: Where patients come from.
        labels: Names of folders that are labels, not patients.

    Returns:
        The patients that were found.
    """
    unnamed = [case for case in cases if not case.values.get("patient_id")]
    files = [_below(case.image, rules.root) for case in unnamed]
    found = find_patients(files, rules, labels=labels) if files else Patients([])
    for case, name in zip(unnamed, found.names, strict=True):
        case.values["patient_id"] = name
    return found


def _below(path: Path, root: Path) -> PurePosixPath:
    """The path relative to a root; most are below it, for which a comparison of text is enough."""
    name, start = str(path), f"{root}{os.sep}"
    if name.startswith(start):
        return PurePosixPath(name.removeprefix(start))
    return PurePosixPath(os.path.relpath(path, root))


def _match(files: Sequence[PurePosixPath], pattern: str) -> Patients:
    found = [re.search(pattern, file.as_posix()) for file in files]
    names = [
        "" if match is None else next((group for group in match.groups() if group), match[0])
        for match in found
    ]
    words = Words("patients", names_shown=False)
    spelled = words.spellings(names)
    names = [spelled[name] for name in names]
    missed = [file.as_posix() for file, name in zip(files, names, strict=True) if not name]
    if len(missed) == len(files):
        raise DxsegError(
            f"--patient-pattern {pattern!r}: matches none of {len(files)} paths, such as "
            f"{missed[0]!r}; correct it"
        )
    notes = [f"patients: {len(set(names) - {''})} by the pattern {pattern!r}", *words.notes()]
    if missed:
        notes.append(
            f"patients: the pattern does not match {len(missed)} paths, such as {missed[0]!r}"
        )
    return Patients(names, notes=notes)

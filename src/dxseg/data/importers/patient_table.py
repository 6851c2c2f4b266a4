"""A table of patients alone: a column of images or folders, and one of patients."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

import pandas as pd

from dxseg.data.importers.names import fold_name
from dxseg.data.table.words import Words
from dxseg.errors import DxsegError
from dxseg.io.user_tables import read_user_table

_PATIENT = ("patient_id", "patient", "subject_id", "subject", "participant_id", "pid")
_KEY = ("image", "image_id", "file", "filename", "path", "name", "folder", "case_id", "volume_id")
_LISTED = 10


def read_patient_table(
    path: Path, files: Sequence[PurePosixPath], root: Path
) -> tuple[list[str], None, list[str]]:
    """Read the patient of each file.

    A row names an image by its path, with or without suffix, or its name alone; or a folder, whose
    images all get the patient. A row of an image wins over that of its folder.

    Args:
        path: The table: the columns `patient_id` (or patient, subject, ...) and `image` (or file,
            folder, ...); of two columns the other one.
        files: Paths of the images or volumes, relative to the root.
        root: Folder that was imported.

    Returns:
        Patient of each file, "" where the table has none; None; and notes.

    Raises:
        DxsegError: A column is missing, a row matches several files of one name, rows contradict
            each other, or no row matches.
    """
    table = read_user_table(path)
    key, patient = _columns(table, path)
    patients, words = _read_patients(table[patient], path)
    index = _index(files)
    chosen: dict[int, tuple[int, str, int]] = {}
    unmatched = []
    for line, name, who in zip(table.index, table[key], patients, strict=True):
        rank, matches = _find(index, name, root)
        if not matches:
            unmatched.append(int(line))
        elif rank < _FOLDERS and len(matches) > 1:
            raise DxsegError(
                f"{path}: row {line}: {name!r} is the name of {len(matches)} files, such as "
                f"{files[matches[0]]} and {files[matches[1]]}; write their paths"
            )
        for file in matches if who else []:
            before = chosen.get(file)
            if before and before[0] == rank and before[1] != who:
                raise DxsegError(
                    f"{path}: rows {before[2]} and {line} give {files[file]} different patients; "
                    "correct one"
                )
            if not before or rank < before[0]:
                chosen[file] = (rank, who, int(line))
    if not chosen:
        raise DxsegError(
            f"{path}: none of its {len(table)} rows names an image with a patient; row "
            f"{table.index[0]} has {table[key].iloc[0]!r}, expected paths such as "
            f"{files[0].as_posix()!r}"
        )
    names = [chosen[file][1] if file in chosen else "" for file in range(len(files))]
    notes = [f"patients: {len(set(names) - {''})} from {path.name}", *words.notes()]
    if len(chosen) < len(files):
        first = next(file for file in range(len(files)) if file not in chosen)
        notes.append(
            f"patients: {len(files) - len(chosen)} of {len(files)} have none in the table, such "
            f"as {files[first].as_posix()!r}"
        )
    if unmatched:
        lines = ", ".join(map(str, unmatched[:_LISTED]))
        more = ", ..." if len(unmatched) > _LISTED else ""
        notes.append(f"{path.name}: {len(unmatched)} rows match no image: lines {lines}{more}")
    return names, None, notes


def _columns(table: pd.DataFrame, path: Path) -> tuple[str, str]:
    """The columns of images and of patients."""
    named = {re.sub(r"[\s-]+", "_", str(name).casefold()): str(name) for name in table.columns}
    patient = next((named[name] for name in _PATIENT if name in named), None)
    key = next((named[name] for name in _KEY if name in named), None)
    if patient and key is None and len(named) == 2:
        key = next(name for name in named.values() if name != patient)
    if key is None or patient is None or table.empty:
        raise DxsegError(
            f"{path}: has the columns {', '.join(map(str, table.columns[:30]))}; expected rows of "
            f"patient_id (or {', '.join(_PATIENT[1:])}) and image (or {', '.join(_KEY[1:])})"
        )
    return key, patient


def _read_patients(column: pd.Series[str], path: Path) -> tuple[pd.Series[str], Words]:
    words = Words("patient_id", names_shown=False)
    patients = column.map(words.spellings(column))
    if not any(patients):
        raise DxsegError(
            f"{path}: its column {column.name!r} names no patient, but has words for nothing such "
            f"as {column.iloc[0]!r}; correct it"
        )
    return patients, words


_FOLDERS = 4
"""First rank of names that are those of folders."""


def _index(files: Sequence[PurePosixPath]) -> list[dict[str, list[int]]]:
    """Files by the names that a row may have for them, the most exact ones first."""
    ranks: list[dict[str, list[int]]] = [defaultdict(list) for _ in range(_FOLDERS + 2)]
    for number, file in enumerate(files):
        for rank, name in _names(file):
            ranks[rank][fold_name(name)].append(number)
    return ranks


def _names(file: PurePosixPath) -> Iterator[tuple[int, str]]:
    stem = file.name.removesuffix(".gz").rsplit(".", 1)[0]
    yield from enumerate((file.as_posix(), file.with_name(stem).as_posix(), file.name, stem))
    for folder in file.parents:
        if folder.name:
            yield _FOLDERS, folder.as_posix()
    for name in {folder.name for folder in file.parents if folder.name}:
        yield _FOLDERS + 1, name


def _find(index: list[dict[str, list[int]]], text: str, root: Path) -> tuple[int, list[int]]:
    plain = text.strip().strip("'\"").replace("\\", "/").removeprefix(f"{root.as_posix()}/")
    key = fold_name(os.path.normpath(plain)) if plain else ""
    for rank, names in enumerate(index):
        if key in names:
            return rank, names[key]
    return len(index), []

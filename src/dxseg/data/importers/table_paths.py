"""Paths of images and masks in a table of a user, made relative to a folder."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

import pandas as pd

from dxseg.data.importers.file_index import FileIndex
from dxseg.data.table.case_errors import CaseErrors
from dxseg.errors import DxsegError
from dxseg.io.csv_io import escape_formula
from dxseg.io.remote import is_address

_DRIVE = re.compile(r"[A-Za-z]:/")


def relative_paths(
    values: pd.Series[str], root: Path, index: FileIndex, source: Path
) -> pd.Series[str]:
    r"""Make the paths of a column relative to a folder, with the names of the files found.

    "\" separates folders as "/" does, and quotes around a path are removed.

    Args:
        values: The column; its index is the line of the file.
        root: The folder.
        index: Finds files below it.
        source: The table, for errors.

    Returns:
        Paths with "/"; those of files that do not exist stay as they are.

    Raises:
        DxsegError: A path is absolute and not below the folder, or may be several files.
    """
    distinct = pd.Series(values.unique(), dtype=str)
    plain = distinct.map(_plain)
    prefix = f"{root.as_posix()}/"
    relative = plain.str.removeprefix(prefix)
    outside = relative.map(lambda path: path.startswith("/") or _DRIVE.match(path) is not None)
    if outside.any():
        wrong = values.isin(distinct[outside]).to_numpy()
        errors = CaseErrors(source, values.to_frame(), values.index.to_numpy())
        errors.add(
            wrong,
            str(values.name),
            f"an absolute path that is not below {root}; give the folder of the files as "
            "--images-root, or write paths relative to it",
        )
        errors.raise_if_any()
    found = relative.map(lambda path: _find(path, root, index, source))
    return values.map(dict(zip(distinct, found, strict=True)))


def _plain(path: str) -> str:
    if is_address(path):
        return path
    if len(path) > 1 and path[0] == path[-1] and path[0] in "'\"":
        path = path[1:-1].strip()
    return path.replace("\\", "/")


def _find(path: str, root: Path, index: FileIndex, source: Path) -> str:
    parts = PurePosixPath(path).parts
    if not path or is_address(path) or ".." in parts:
        return path
    try:
        found = index.find(PurePosixPath(path).as_posix())
    except DxsegError as error:
        raise DxsegError(f"{source}: {error}") from error
    return escape_formula(found.relative_to(root).as_posix())

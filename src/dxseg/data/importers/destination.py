"""The folder that an import writes: checked, and marked while the import is unfinished."""

from __future__ import annotations

import os
import re
from pathlib import Path

from dxseg.data.table.spec import SPEC_FILE, read_spec
from dxseg.errors import DxsegError
from dxseg.io.csv_io import escape_formula

_UNFIT = re.compile(r"[\\\x00-\x1f\x7f\x85\u2028\u2029\ud800-\udfff]")
UNFINISHED = ".import-unfinished"
"""Marks a folder whose dataset is being written."""


def open_destination(destination: Path, name: str, overwrite: bool) -> None:
    """Prepare a folder for a new dataset and mark it as unfinished, or continue with such a folder.

    Args:
        destination: The folder, created if absent; its `dataset.yaml` is removed.
        name: Dataset name.
        overwrite: Replace the dataset in `destination` if it has the same name.

    Raises:
        DxsegError: It is a file, or has another dataset or other files.
    """
    if destination.exists() and not destination.is_dir():
        raise DxsegError(f"{destination}: is a file; expected a folder to write the dataset to")
    if destination.is_dir() and any(destination.iterdir()):
        spec_file = destination / SPEC_FILE
        if spec_file.exists():
            other = read_spec(spec_file).name
            if not overwrite or other != name:
                raise DxsegError(
                    f"{destination}: has the dataset {other!r}; choose another destination"
                    + (", or overwrite it" if other == name else "")
                )
        elif not (destination / UNFINISHED).exists():
            raise DxsegError(f"{destination}: is not empty; choose a new or empty folder")
    # In this order, a kill at any point leaves the old dataset or a marked, unfinished import. The
    # marker is empty: a temporary file that replaces it could be left alone in the folder.
    destination.mkdir(parents=True, exist_ok=True)
    (destination / UNFINISHED).touch()
    (destination / SPEC_FILE).unlink(missing_ok=True)


Folders = dict[tuple[str, str], str | None]
"""Names of folders in a root, by root and folder; None for a folder outside."""


def name_in_root(path: Path, root: Path, folders: Folders | None = None) -> str:
    """Make the path of a file relative to a root, with "/".

    Args:
        path: The file.
        root: A resolved folder.
        folders: Folders of earlier calls, which thousands of files need.

    Raises:
        DxsegError: The file is outside, by its name or through a symbolic link.
    """
    folders = {} if folders is None else folders
    # Text, as thousands of paths take long to compare.
    parent, name = os.path.split(str(path))
    key = (str(root), parent)
    if key not in folders:
        folder = path.parent
        inside = folder.is_relative_to(root) and folder.resolve().is_relative_to(root)
        folders[key] = folder.relative_to(root).as_posix() if inside else None
    within = folders[key]
    if within is None or (path.is_symlink() and not path.resolve().is_relative_to(root)):
        raise DxsegError(f"{path}: is outside {root} (or a link leads outside); copy it there")
    if within != ".":
        name = f"{within}/{name}"
    if _UNFIT.search(name):
        raise DxsegError(
            f"{name!r}: contains a backslash, a control character or bytes that are not UTF-8, "
            "which no table can hold; rename it"
        )
    return escape_formula(name)

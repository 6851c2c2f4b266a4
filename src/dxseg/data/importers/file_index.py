r"""Files by the names that a table has for them, which need not be those on the disk.

macOS unpacks names in decomposed Unicode, Windows writes "\" and ignores case, and lists of
identifiers leave the suffix out.
"""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path

from dxseg.data.importers.names import fold_name
from dxseg.data.readers.images import READERS
from dxseg.errors import DxsegError

_NOTED = 5


class FileIndex:
    """Looks up files below a folder; each folder is listed once.

    Attributes:
        root: The folder.
        renamed: Names that were found only in another Unicode form or case, and what was found.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.renamed: dict[str, str] = {}
        self._folders: dict[Path, _Folder | None] = {root: _Folder(root)}

    def find(self, name: str) -> Path:
        """Find a file.

        Args:
            name: Its path relative to the root, with "/", with or without its suffix.

        Returns:
            The file; `root / name` if there is none.

        Raises:
            DxsegError: Several files differ from the name only in suffix, Unicode form or case.
        """
        path = self.root / name
        folder = self._folder(path.parent)
        if ".." in path.parts or folder is None:
            return path
        found = folder.find(path.name)
        if found is None:
            return path
        actual = folder.path / found
        if path not in (actual, actual.with_suffix("")):
            self.renamed[name] = actual.relative_to(self.root).as_posix()
        return actual

    def notes(self) -> list[str]:
        """What was found under another name, as lines for the report of an import."""
        if not self.renamed:
            return []
        shown = [f"{name!r} is {actual!r}" for name, actual in self.renamed.items()][:_NOTED]
        more = ", ..." if len(self.renamed) > _NOTED else ""
        return [
            f"files found in another Unicode form or case: {len(self.renamed)} "
            f"({', '.join(shown)}{more})"
        ]

    def _folder(self, path: Path) -> _Folder | None:
        """The folder of a path that may be written in another form; None if there is none."""
        if path not in self._folders:
            above = self._folder(path.parent) if path != path.parent else None
            found = None if above is None else above.find(path.name)
            inside = None if above is None or found is None else above.path / found
            self._folders[path] = _Folder(inside) if inside and inside.is_dir() else None
        return self._folders[path]


class _Folder:
    """The names in a folder, as they are and folded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def _names(self) -> set[str]:
        with os.scandir(self.path) as entries:
            return {entry.name for entry in entries}

    @cached_property
    def _folded(self) -> dict[str, list[str]]:
        folded: dict[str, list[str]] = {}
        for name in sorted(self._names):
            folded.setdefault(fold_name(name), []).append(name)
        return folded

    def find(self, name: str) -> str | None:
        """The name itself, else the only one that it is without suffix or in another form."""
        if name in self._names:
            return name
        completed = [name]
        if Path(name).suffix.lower() not in READERS:
            completed += [name + suffix for suffix in READERS]
        fits = [found for text in completed for found in self._folded.get(fold_name(text), ())]
        fits = [found for found in fits if found.startswith(name)] or fits
        if len(fits) > 1:
            raise DxsegError(
                f"{self.path}: {name!r} may be {' or '.join(map(repr, fits))}, which differ in "
                "suffix, Unicode form or case; write the one that is meant"
            )
        return fits[0] if fits else None

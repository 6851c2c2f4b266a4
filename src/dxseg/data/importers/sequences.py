"""The files of each volume of an import: one, or one per sequence."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dxseg.data.importers.report import LeftOut
from dxseg.data.readers.volume_files import group_sequences, volume_stem
from dxseg.errors import DxsegError

_ALIKE = 2
"""Folders whose files end alike, from which on the endings are taken for sequences."""

Files = tuple[Path, ...]
"""The files of a volume; of several sequences in their order."""


@dataclass
class FoundFiles:
    """The files of a folder.

    Attributes:
        volumes: Files of each volume of several sequences, by the first.
        others: Other files: label maps, and volumes of one file if no sequences are asked for.
        names: Name of each volume of several sequences, by its first file.
    """

    volumes: dict[Path, Files] = field(default_factory=dict)
    others: list[Path] = field(default_factory=list)
    names: dict[Path, str] = field(default_factory=dict)

    def stem(self, path: Path) -> str:
        """Name of a file without its suffix; of several sequences, what they have in common."""
        return self.names.get(path) or volume_stem(path.name)

    def drop_images(self, masks: MutableMapping[Path, Any], left_out: LeftOut) -> None:
        """Remove what is neither a sequence nor a label map.

        Args:
            masks: Label maps of each image that was found; those of no sequence are removed.
            left_out: List to which they are added.
        """
        for path in [path for path in masks if path not in self.volumes]:
            del masks[path]
            # Not counted as an image: a choice of sequences leaves the others out on purpose.
            left_out.append((str(path), "of no sequence that --channel names"))


def find_files(
    files: Sequence[Path], suffixes: Mapping[str, str], source: Path, left_out: LeftOut
) -> FoundFiles:
    """Group the files of volumes by their sequences.

    Args:
        files: Volumes and label maps.
        suffixes: End of the name of the file of each sequence; empty: a volume is one file.
        source: The folder, named in errors.
        left_out: List to which volumes without one of the sequences are added.

    Raises:
        DxsegError: No volume has all sequences, or two files are the same one.
    """
    if not suffixes:
        return FoundFiles(others=list(files))
    groups, others = group_sequences(files, suffixes)
    found = FoundFiles(others=others)
    for common, group in groups.items():
        absent = [f"{name} (*{suffix})" for name, suffix in suffixes.items() if name not in group]
        if absent:
            left_out.image(common, f"no file of sequence {', '.join(absent)}")
            continue
        paths = tuple(group[name] for name in suffixes)
        found.volumes[paths[0]] = paths
        found.names[paths[0]] = common.name
    if not found.volumes:
        shown = ", ".join(f"{name}=*{suffix}" for name, suffix in suffixes.items())
        first = next((f"; {path}: {reason}" for path, reason in left_out), "")
        raise DxsegError(
            f"{source}: no volume has files of all sequences ({shown}){first}; correct --channel"
        )
    return found


def note_sequences(images: Iterable[Path]) -> list[str]:
    """Say how to import files that seem to be sequences of one volume each, if there are any.

    Args:
        images: Files of volumes, one volume each; those of a folder are compared.
    """
    folders: dict[Path, list[str]] = defaultdict(list)
    for path in images:
        folders[path.parent].append(volume_stem(path.name))
    endings: Counter[tuple[str, ...]] = Counter()
    for stems in folders.values():
        # A sequence is more than the last letters of a name: T1w, not 1w.
        shared = os.path.commonprefix(stems)  # noqa: RUF071 - of names, not of paths
        common = re.split(r"[^_\-. ]*$", shared)[0].rstrip("_-. ")
        endings[tuple(sorted(stem[len(common) :] for stem in stems))] += len(stems) > 1
    if not endings:
        return []
    suffixes, count = endings.most_common(1)[0]
    if count < _ALIKE or any(suffix.strip("_-. ").isdecimal() for suffix in suffixes):
        return []
    options = " ".join(f"--channel {suffix.strip('_-. ')}={suffix}" for suffix in suffixes)
    return [
        f"{count} folders have {len(suffixes)} volumes each, of the same endings, imported as "
        f"separate volumes; if they are sequences on one grid, make them channels: {options}"
    ]

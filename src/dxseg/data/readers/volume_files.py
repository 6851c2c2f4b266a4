"""Volumes in files of any format, one file or one per sequence."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from dxseg.data.readers.nifti import SUFFIXES, is_nifti, nifti_grid, nifti_stem, read_nifti
from dxseg.data.readers.volume import Volume, onto_grid
from dxseg.errors import DxsegError

VOLUME_SUFFIXES = SUFFIXES

is_volume_file, volume_stem = is_nifti, nifti_stem
read_volume_file, volume_grid = read_nifti, nifti_grid


def read_sequences(files: Sequence[Path], count: int) -> Volume:
    """Read a volume of several sequences, on the grid of the first.

    Args:
        files: One per sequence in their order, or one with all of them as its fourth dimension.
        count: Number of sequences.

    Raises:
        DxsegError: A file cannot be read, or lies elsewhere than the first.
    """
    first, *others = files
    if not others:
        return read_volume_file(first, count)
    volume = read_volume_file(first)
    grid = volume.affine, volume.voxels.shape
    more: list[NDArray[Any]] = []
    notes = list(volume.notes)
    for path in others:
        other = read_volume_file(path)
        more.extend(
            onto_grid(
                other,
                grid,
                path,
                str(first),
                "all sequences need one grid: resample one onto that of the other (such as with "
                "SimpleITK.Resample), or leave one out",
            )
        )
        notes.extend(f"{path.name}: {note}" for note in other.notes)
    return replace(volume, more_sequences=tuple(more), notes=tuple(notes))


def group_sequences(
    files: Iterable[Path], suffixes: Mapping[str, str]
) -> tuple[dict[Path, dict[str, Path]], list[Path]]:
    """Group files by the volume that they are sequences of.

    Args:
        files: Any files of volumes.
        suffixes: End of the name of the file of each sequence, without `.nii.gz` and the like.

    Returns:
        The file of each sequence that was found, by folder and common name (the folder itself where
        the suffix is the whole name); and the files that are of no sequence.

    Raises:
        DxsegError: Two files are one sequence of one volume.
    """
    longest_first = sorted(suffixes.items(), key=lambda pair: -len(pair[1]))
    groups: dict[Path, dict[str, Path]] = {}
    others: list[Path] = []
    for path in files:
        stem = volume_stem(path.name)
        found = next((pair for pair in longest_first if stem.endswith(pair[1])), None)
        if found is None:
            others.append(path)
            continue
        name, suffix = found
        common = stem.removesuffix(suffix).rstrip("_-. ")
        group = groups.setdefault(path.parent / common, {})
        if name in group:
            raise DxsegError(
                f"{group[name]} and {path}: are both sequence {name} of one volume; move one away"
            )
        group[name] = path
    return groups, others

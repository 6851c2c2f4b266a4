"""Volumes in files of any format, one file or one per sequence."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dxseg.data.readers import itk, nifti
from dxseg.data.readers.itk_headers import META_SUFFIXES, NRRD_SUFFIXES
from dxseg.data.readers.nifti_writer import write_label_map
from dxseg.data.readers.volume import Grid, Volume, onto_grid
from dxseg.errors import DxsegError


@dataclass(frozen=True)
class VolumeFormat:
    """How files of some suffixes are read and written.

    Attributes:
        read: Reads the voxels of a file with a number of sequences.
        grid: Reads the grid alone.
        write_labels: Writes a label map (I, J, K) on the grid of a file of this format.
        mask_suffix: Suffix of a label map that is written.
        files: All files that a volume consists of.
    """

    read: Callable[[Path, int], Volume]
    grid: Callable[[Path, int], Grid]
    write_labels: Callable[[Path, NDArray[np.uint8], Path], None]
    mask_suffix: str
    files: Callable[[Path], list[Path]] = lambda path: [path]


_NIFTI = VolumeFormat(nifti.read_nifti, nifti.nifti_grid, write_label_map, ".nii.gz")
_ITK = VolumeFormat(itk.read_itk, itk.itk_grid, itk.write_itk_label_map, ".nrrd", itk.itk_files)
VOLUME_FORMATS: dict[str, VolumeFormat] = {
    **dict.fromkeys(nifti.SUFFIXES, _NIFTI),
    **dict.fromkeys(NRRD_SUFFIXES, _ITK),
    **dict.fromkeys(META_SUFFIXES, replace(_ITK, mask_suffix=".mha")),
}
"""The format of each suffix, in lower case. Another format is one more entry."""


def volume_format(path: str | Path) -> VolumeFormat:
    """The format of a file, by its name.

    Args:
        path: The file.

    Raises:
        DxsegError: Its name has no suffix of a volume.
    """
    suffix = _suffix(path)
    if suffix is None:
        raise DxsegError(f"{path}: expected a name that ends in {', '.join(VOLUME_FORMATS)}")
    return VOLUME_FORMATS[suffix]


def is_volume_file(path: str | Path) -> bool:
    """Whether the name of a file is that of a volume."""
    return _suffix(path) is not None


def volume_stem(name: str) -> str:
    """Remove the suffix of a volume, such as `.nii.gz`, from a name."""
    return name[: len(name) - len(_suffix(name) or "")]


def _suffix(path: str | Path) -> str | None:
    name = Path(path).name.lower()
    return next((suffix for suffix in VOLUME_FORMATS if name.endswith(suffix)), None)


def read_volume_file(path: str | Path, sequences: int = 1) -> Volume:
    """Read a volume of any format.

    Args:
        path: The file.
        sequences: Expected number of images in the file.

    Raises:
        DxsegError: The file is absent, damaged, too large, or holds something else.
    """
    return volume_format(path).read(Path(path), sequences)


def volume_grid(path: str | Path, sequences: int = 1) -> Grid:
    """Read the grid of a volume of any format, without its voxels.

    Args:
        path: The file.
        sequences: Expected number of images in the file.

    Raises:
        DxsegError: As `read_volume_file`, as far as the header shows it.
    """
    return volume_format(path).grid(Path(path), sequences)


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

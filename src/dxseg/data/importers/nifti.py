"""Volumes with their label maps; either may be one file or several."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from dxseg.data.importers.folder import note_pairing
from dxseg.data.importers.mask_names import tokens
from dxseg.data.importers.mask_owner import MaskNaming
from dxseg.data.importers.mask_search import find_masks
from dxseg.data.importers.names import natural_key, plain_name
from dxseg.data.importers.pairing import Mask, Pairing
from dxseg.data.importers.report import LeftOut
from dxseg.data.importers.sequences import Files, find_files, note_sequences
from dxseg.data.readers.dicom.objects import is_dicom
from dxseg.data.readers.label_maps import read_label_map
from dxseg.data.readers.mask_like import is_mask_like
from dxseg.data.readers.volume import FoundVolume, Grid, VolumeLabels
from dxseg.data.readers.volume_files import (
    VOLUME_FORMATS,
    is_volume_file,
    read_sequences,
    read_volume_file,
    volume_format,
    volume_grid,
    volume_stem,
)
from dxseg.errors import DxsegError, UsageError
from dxseg.io.atomic import sha256_file, sha256_json

_MOST_CLASSES = 255
_EXPECTED = ", ".join(VOLUME_FORMATS)
_LESION_WORDS = """
lesion lesions tumor tumors tumour tumours nodule nodules cancer metastasis metastases cyst cysts
mass hemorrhage hemorrhages haemorrhage haemorrhages edema oedema infarct infarction plaque polyp
stroke
"""
_LESIONS = frozenset(_LESION_WORDS.split())


@dataclass
class FoundVolumes:
    """The volumes of a folder.

    Attributes:
        volumes: In natural order of path; none if the folder has DICOM series instead.
        structures: Mask class of each value, where label maps are one file per structure; lesions
            come last, as the last is kept where structures overlap.
        lesions: Those of them that are lesions; none if there is at most one structure.
        notes: What was guessed, as lines of the report.
    """

    volumes: list[FoundVolume]
    structures: dict[int, str]
    lesions: list[str]
    notes: list[str]


def find_volumes(
    source: str | Path,
    masks_root: str | Path | None,
    naming: MaskNaming,
    destination: str | Path,
    left_out: LeftOut,
    *,
    suffixes: Mapping[str, str] | None = None,
    regions: Mapping[str, str] | None = None,
    lesion_classes: Sequence[str] = (),
    keep_mask_like: bool = False,
) -> FoundVolumes:
    """Find the volumes of a folder and their label maps; none if it has DICOM series instead.

    Args:
        source: Folder of volumes.
        masks_root: Folder of label maps; None: search for them in `source`.
        naming: How label maps are named.
        destination: Folder of the new dataset, which is not searched.
        left_out: List to which files left out are added.
        suffixes: End of the name of the file of each sequence; None: a volume is one file.
        regions: Mask class of a structure that has its own file; None: each is one.
        lesion_classes: Those of them that are lesions; default: those whose names are lesions.
        keep_mask_like: Whether a volume that looks like a label map, but is not named so, is one.

    Raises:
        UsageError: The naming is given for DICOM series, a structure does not exist, or none of
            several is known to be a lesion.
        DxsegError: A folder is missing, there is no volume, or two have the same name.
    """
    source = _folder(source)
    tree = None if masks_root is None else _folder(masks_root)
    exclude = [path for path in (tree, Path(destination).resolve()) if path not in (None, source)]
    others = LeftOut()
    files = list(_walk(source, exclude, others))
    if not files:
        _check_dicom(
            source, {"--channel": suffixes, "naming of masks": tree or not naming.any_word}
        )
        return FoundVolumes([], {}, [], [])
    found = find_files(files, suffixes or {}, source, left_out)
    if tree is not None:
        found.others.extend(_walk(tree, (), others))
    left_out.take(others)
    pairing = find_masks(
        [*found.volumes, *found.others],
        source,
        naming,
        tree=tree,
        stem=found.stem,
        several=False,
        keep_mask_like=True,  # volumes are looked at when they are read
        probe=_looks_like_labels,
    )
    if suffixes:
        found.drop_images(pairing.masks, left_out)
    sequences = [] if suffixes else note_sequences(pairing.masks)
    if tree is not None and not any(pairing.masks.values()):
        raise DxsegError(
            f"{tree}: no label map of any of the {len(pairing.masks)} volumes of {source}; "
            "expected the name of the volume, or with --mask-suffix or --mask-replace"
        )
    notes = [*note_pairing(pairing, left_out), *sequences]
    structures = _structures(pairing, regions, lesion_classes)
    if structures.lesions and not lesion_classes:
        notes.append(f"lesions, by their names: {', '.join(structures.lesions)}; --lesion-class")
    ids: dict[Path, Path] = {}
    volumes = []
    for path, masks in pairing.masks.items():
        relative = path.relative_to(source)
        name = relative.with_name(found.stem(path))
        if other := ids.get(name):
            raise DxsegError(f"{path} and {other}: have the name of the same volume; move one away")
        ids[name] = path
        images = found.volumes.get(path, (path,))
        one = _volume(name.as_posix(), images, masks, structures, keep_mask_like)
        volumes.append(replace(one, path=relative.as_posix()))
    classes = dict(enumerate(structures.classes, 1))
    return FoundVolumes(volumes, classes, structures.lesions, notes)


def _check_dicom(source: Path, given: Mapping[str, Any]) -> None:
    """Check that a folder without volumes in files of their own has DICOM series."""
    if not any(is_dicom(path) for path in source.rglob("*")):
        raise DxsegError(f"{source}: no volume; expected {_EXPECTED} or DICOM slices")
    for option in (option for option, value in given.items() if value):
        raise UsageError(
            f"{source}: {option} is not for DICOM: each series is a volume, and masks are SEG or "
            "RTSTRUCT objects beside them; leave it out, or convert the series (such as with "
            "dcm2niix)"
        )


@dataclass(frozen=True)
class _Structures:
    """Label maps of one structure each: the value of each, the classes, and which are lesions."""

    values: Mapping[str, int]
    classes: list[str]
    lesions: list[str]


def _structures(
    pairing: Pairing, regions: Mapping[str, str] | None, lesion_classes: Sequence[str]
) -> _Structures:
    found = sorted(
        {mask.structure for masks in pairing.masks.values() for mask in masks} - {""},
        key=natural_key,
    )
    chosen = {name: name for name in found} if regions is None else dict(regions)
    unknown = sorted(set(chosen) - set(found))
    if unknown:
        raise UsageError(
            f"region {unknown[0]!r}: no label map is of it; there are "
            f"{', '.join(found[:20]) or 'no files of single structures'}"
        )
    names = list(dict.fromkeys(chosen.values()))
    if len(names) > _MOST_CLASSES:
        raise UsageError(f"{len(names)} structures: expected at most {_MOST_CLASSES}; --region")
    lesions = list(lesion_classes or _guess_lesions(names)) if len(names) > 1 else []
    names.sort(key=lambda name: name in lesions)
    values = {name: names.index(one) + 1 for name, one in chosen.items()}
    return _Structures(values, names, lesions)


def _volume(
    name: str, images: Files, masks: Sequence[Mask], structures: _Structures, keep: bool
) -> FoundVolume:
    if len(masks) == 1 and not masks[0].structure:
        return volume_of_files(name, images, masks[0].path)
    if not masks:
        return volume_of_files(name, images, None, is_asked=not keep)
    values = structures.values
    chosen = [(mask.path, values[mask.structure]) for mask in masks if mask.structure in values]
    files = [*images, *(path for path, _ in chosen)]
    return replace(
        volume_of_files(name, images, None),
        load_labels=partial(_merge_structures, images[0], chosen) if chosen else None,
        digest=lambda: sha256_json([_digests(files), [n for _, n in chosen]]),
    )


def _merge_structures(image: Path, structures: Sequence[tuple[Path, int]]) -> VolumeLabels:
    """Read label maps of one structure each; where they overlap, the last one is kept."""
    grid = volume_grid(image)
    merged = np.zeros(grid[1], np.uint16)
    notes: list[str] = []
    overlap = 0
    for path, value in sorted(structures, key=lambda pair: pair[1]):
        labels = read_label_map(path, grid)
        notes.extend(labels.notes)
        inside = labels.values > 0
        overlap += int((inside & (merged > 0) & (merged != value)).sum())
        merged[inside] = value
    if overlap:
        notes.append(
            f"label maps: {overlap} voxels are in several structures; a lesion or the last is kept"
        )
    return VolumeLabels(merged, notes=tuple(notes))


def _guess_lesions(structures: Sequence[str]) -> list[str]:
    """Find the structures whose names are those of lesions, as not every organ is one."""
    lesions = [name for name in structures if not _LESIONS.isdisjoint(tokens(name))]
    if not lesions:
        raise UsageError(
            f"structures {', '.join(structures[:20])}: none has the name of a lesion; say which "
            "are: --lesion-class NAME"
        )
    return lesions


def _looks_like_labels(path: Path) -> bool:
    try:
        return is_mask_like(read_volume_file(path).voxels[..., None])
    except DxsegError:
        return False


def volume_of_files(
    name: str, images: Files, mask: Path | None, *, sequences: int = 1, is_asked: bool = False
) -> FoundVolume:
    """Make a `FoundVolume` of a volume and its label map, without reading them.

    Args:
        name: Text from which the volume id is made, such as its path without suffix; its patient
            may be derived from it.
        images: File of the volume, or of each of its sequences.
        mask: File of its label map, or None.
        sequences: Number of sequences in the file, if it is one.
        is_asked: Whether the volume is left out if it looks like a label map.
    """
    given = [*images] if mask is None else [*images, mask]

    def grid() -> Grid:
        return volume_grid(images[0], sequences)

    return FoundVolume(
        volume_id=plain_name(name),
        path=name,
        load=partial(read_sequences, images, sequences),
        grid=grid,
        load_labels=None if mask is None else lambda: read_label_map(mask, grid()),
        digest=lambda: sha256_json(_digests(given)),
        is_asked=is_asked,
    )


def _digests(volumes: Sequence[Path]) -> list[str]:
    """Digests of all files of volumes; headers and voxels may be files of their own."""
    return [sha256_file(file) for path in volumes for file in volume_format(path).files(path)]


def _walk(folder: Path, exclude: Sequence[Path | None], left_out: LeftOut) -> Iterator[Path]:
    for base, folders, names in os.walk(folder):
        folders[:] = sorted(
            (n for n in folders if not n.startswith(".") and Path(base, n) not in exclude),
            key=natural_key,
        )
        for name in sorted(names, key=lambda name: natural_key(volume_stem(name))):
            path = Path(base, name)
            if name.startswith("."):
                continue
            if is_volume_file(path):
                yield path
            else:
                left_out.file(path, "not named as a volume")


def _folder(path: str | Path) -> Path:
    folder = Path(path)
    if not folder.is_dir():
        raise DxsegError(f"{folder}: no such folder; expected one of volumes ({_EXPECTED})")
    return folder.resolve()

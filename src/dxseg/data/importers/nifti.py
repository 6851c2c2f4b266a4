"""Volumes with their label maps; either may be one file or several."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from dxseg.data.importers.folder import note_pairing
from dxseg.data.importers.mask_owner import MaskNaming
from dxseg.data.importers.mask_search import find_masks
from dxseg.data.importers.names import natural_key, plain_name
from dxseg.data.importers.pairing import Mask
from dxseg.data.importers.report import LeftOut
from dxseg.data.importers.sequences import Files, find_files, note_sequences
from dxseg.data.importers.structures import choose_structures, merge_structures
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
from dxseg.errors import DxsegError
from dxseg.io.atomic import sha256_file, sha256_json

_EXPECTED = ", ".join(VOLUME_FORMATS)


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
    ignore_value: int | None = None,
    keep_mask_like: bool = False,
    masks_by_voxel: bool = False,
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
        ignore_value: Value for voxels that nobody has judged, in the file of a structure too.
        keep_mask_like: Whether a volume that looks like a label map, but is not named so, is one.
        masks_by_voxel: As `by_voxel` of `read_label_map`.

    Raises:
        UsageError: A structure does not exist, or none of several is known to be a lesion.
        DxsegError: A folder is missing, there is no volume, or two have the same name.
    """
    source = _folder(source)
    tree = None if masks_root is None else _folder(masks_root)
    exclude = [path for path in (tree, Path(destination).resolve()) if path not in (None, source)]
    others = LeftOut()
    files = list(_walk(source, exclude, others))
    if not files:
        if not any(is_dicom(path) for path in source.rglob("*")):
            raise DxsegError(f"{source}: no volume; expected {_EXPECTED} or DICOM slices")
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
    named = [mask.structure for masks in pairing.masks.values() for mask in masks]
    structures = choose_structures(named, regions, lesion_classes)
    if structures.lesions and not lesion_classes:
        notes.append(f"lesions, by their names: {', '.join(structures.lesions)}; --lesion-class")
    ids: dict[Path, Path] = {}
    read = partial(read_label_map, by_voxel=masks_by_voxel)
    merge = partial(merge_structures, read=read, ignore_value=ignore_value)
    volumes = []
    for path, masks in pairing.masks.items():
        relative = path.relative_to(source)
        name = relative.with_name(found.stem(path))
        if other := ids.get(name):
            raise DxsegError(f"{path} and {other}: have the name of the same volume; move one away")
        ids[name] = path
        images = found.volumes.get(path, (path,))
        one = _volume(
            name.as_posix(), images, masks, structures.values, merge, by_voxel=masks_by_voxel
        )
        is_asked = not masks and not keep_mask_like
        volumes.append(replace(one, path=relative.as_posix(), is_asked=is_asked))
    classes = dict(enumerate(structures.classes, 1))
    return FoundVolumes(volumes, classes, structures.lesions, notes)


def _volume(
    name: str,
    images: Files,
    masks: Sequence[Mask],
    values: Mapping[str, int],
    merge: Callable[[Grid, Sequence[tuple[Path, int]]], VolumeLabels],
    *,
    by_voxel: bool,
) -> FoundVolume:
    if not masks or (len(masks) == 1 and not masks[0].structure):
        mask = masks[0].path if masks else None
        return volume_of_files(name, images, mask, by_voxel=by_voxel)
    chosen = [(mask.path, values[mask.structure]) for mask in masks if mask.structure in values]
    files = [*images, *(path for path, _ in chosen)]
    return replace(
        volume_of_files(name, images, None),
        load_labels=(lambda: merge(volume_grid(images[0]), chosen)) if chosen else None,
        digest=lambda: sha256_json([_digests(files, by_voxel), [n for _, n in chosen]]),
    )


def _looks_like_labels(path: Path) -> bool:
    try:
        return is_mask_like(read_volume_file(path).voxels[..., None])
    except DxsegError:
        return False


def volume_of_files(
    name: str, images: Files, mask: Path | None, *, sequences: int = 1, by_voxel: bool = False
) -> FoundVolume:
    """Make a `FoundVolume` of a volume and its label map, without reading them.

    Args:
        name: Text from which the volume id is made, such as its path without suffix; its patient
            may be derived from it.
        images: File of the volume, or of each of its sequences.
        mask: File of its label map, or None.
        sequences: Number of sequences in the file, if it is one.
        by_voxel: As of `read_label_map`.
    """
    given = [*images] if mask is None else [*images, mask]

    def grid() -> Grid:
        return volume_grid(images[0], sequences)

    return FoundVolume(
        volume_id=plain_name(name),
        path=name,
        load=partial(read_sequences, images, sequences),
        grid=grid,
        load_labels=None if mask is None else lambda: read_label_map(mask, grid(), by_voxel),
        digest=lambda: sha256_json(_digests(given, by_voxel)),
    )


def _digests(volumes: Sequence[Path], by_voxel: bool) -> list[str]:
    """Digests of all files of volumes; headers and voxels may be files of their own."""
    own = [sha256_file(file) for path in volumes for file in volume_format(path).files(path)]
    return [*own, "by voxel"] if by_voxel else own


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

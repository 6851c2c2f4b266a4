"""NIfTI volumes with their label maps, in a parallel folder or beside them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from dxseg.data.importers.names import natural_key, plain_name
from dxseg.data.readers.dicom.objects import is_dicom
from dxseg.data.readers.nifti import is_nifti, nifti_grid, nifti_stem, read_nifti, read_nifti_labels
from dxseg.data.readers.volume import FoundVolume, VolumeLabels
from dxseg.errors import DxsegError, UsageError
from dxseg.io.atomic import sha256_file, sha256_json

Skipped = list[tuple[str, str]]


@dataclass(frozen=True)
class MaskNames:
    """Rule by which the name of a label map follows from that of its volume.

    Attributes:
        suffix: Text added before `.nii`.
        replaced: Text and its replacement, such as ("volume", "segmentation"); instead of the
            suffix.
    """

    suffix: str = "_mask"
    replaced: tuple[str, str] | None = None

    def owner(self, name: str) -> str | None:
        """Find the volume's name for that of a label map; None if it is not a label map's name."""
        if self.replaced is not None:
            text, other = self.replaced
            return name.replace(other, text) if other in name else None
        owner = name.removesuffix(self.suffix)
        return owner if owner not in ("", name) else None


def find_volumes(
    source: str | Path,
    masks_root: str | Path | None,
    names: MaskNames,
    destination: str | Path,
    skipped: Skipped,
) -> list[FoundVolume]:
    """Find the volumes of a folder and their label maps; none if it has DICOM series instead.

    Args:
        source: Folder of volumes.
        masks_root: Folder of label maps in a parallel tree; None: beside their volumes.
        names: Rule for the names of label maps.
        destination: Folder of the new dataset, which is not searched.
        skipped: List to which files left out are added.

    Raises:
        UsageError: The rule for names is empty, or is given for DICOM series.
        DxsegError: A folder is missing, there is no volume, or two have the same name.
    """
    source = _folder(source)
    tree = None if masks_root is None else _folder(masks_root)
    suffix, replaced = names.suffix, names.replaced
    if (replaced is None and not suffix) or (replaced and not all(replaced)):
        raise UsageError("the name of a label map: expected a suffix, or TEXT=OTHER to replace")
    left_out = [path for path in (tree, Path(destination).resolve()) if path not in (None, source)]
    found = find_nifti(source, tree, names, skipped, left_out)
    if found:
        return found
    if not any(is_dicom(path) for path in source.rglob("*")):
        raise DxsegError(f"{source}: no volume; expected NIfTI (.nii, .nii.gz) or DICOM slices")
    if tree is not None or replaced is not None:
        raise UsageError(f"{source}: masks of DICOM series are SEG or RTSTRUCT objects beside them")
    return []


def find_nifti(
    source: Path,
    tree: Path | None,
    names: MaskNames,
    skipped: Skipped,
    left_out: Sequence[Path | None] = (),
) -> list[FoundVolume]:
    """Pair the volumes of a folder with their label maps.

    Args:
        source: Folder of volumes.
        tree: Folder of label maps; None: beside their volumes.
        names: Rule for the names of label maps.
        skipped: List to which files of other types and label maps without a volume are added.
        left_out: Folders below `source` that contain no volumes.

    Returns:
        In natural order of path.

    Raises:
        DxsegError: Two files would be the same volume or the same label map.
    """
    images: dict[Path, Path] = {}
    masks: dict[Path, Path] = {}
    for path in _walk(source, left_out, skipped):
        relative = path.relative_to(source)
        stem = nifti_stem(path.name)
        owner = names.owner(stem) if tree is None else None
        if owner is None:
            _put(images, relative.with_name(stem), path)
        else:
            _put(masks, relative.with_name(owner), path)
    parallel = () if tree is None else ((tree, path) for path in _walk(tree, (), skipped))
    for root, path in parallel:
        relative = path.relative_to(root)
        stem = nifti_stem(path.name)
        owner = names.owner(stem)
        same = relative.with_name(stem)
        # The name of an image may end like that of a label map; the pair then has the plain name.
        _put(masks, relative.with_name(owner) if owner and same not in images else same, path)
    for owner_path in [owner for owner in masks if owner not in images]:
        skipped.append((str(masks.pop(owner_path)), f"label map without its volume {owner_path}"))
    return [
        nifti_volume(key.as_posix(), path, masks.get(key), path.relative_to(source).as_posix())
        for key, path in images.items()
    ]


def nifti_volume(name: str, image: Path, mask: Path | None, path: str = "") -> FoundVolume:
    """Make a `FoundVolume` of a volume and its label map, without reading them.

    Args:
        name: Text from which the volume id is made, such as its path without suffix.
        image: File of the volume.
        mask: File of its label map, or None.
        path: Path below the imported folder, from which its patient may be derived; default: name.
    """
    files = [image] if mask is None else [image, mask]

    def load_labels() -> VolumeLabels:
        assert mask is not None
        return VolumeLabels(read_nifti_labels(mask, *nifti_grid(image)))

    return FoundVolume(
        volume_id=plain_name(name),
        path=path or name,
        load=partial(read_nifti, image),
        load_labels=None if mask is None else load_labels,
        digest=lambda: sha256_json([sha256_file(path) for path in files]),
    )


def _put(found: dict[Path, Path], key: Path, path: Path) -> None:
    other = found.setdefault(key, path)
    if other is not path:
        raise DxsegError(f"{path} and {other}: have the name of the same volume; move one away")


def _walk(folder: Path, left_out: Sequence[Path | None], skipped: Skipped) -> Iterator[Path]:
    for base, folders, names in os.walk(folder):
        folders[:] = sorted(
            (n for n in folders if not n.startswith(".") and Path(base, n) not in left_out),
            key=natural_key,
        )
        for name in sorted(names, key=lambda name: natural_key(nifti_stem(name))):
            path = Path(base, name)
            if name.startswith("."):
                continue
            if is_nifti(path):
                yield path
            else:
                skipped.append((str(path), "not named as NIfTI"))


def _folder(path: str | Path) -> Path:
    folder = Path(path)
    if not folder.is_dir():
        raise DxsegError(f"{folder}: no such folder; expected one of .nii or .nii.gz files")
    return folder.resolve()

"""Importing NIfTI volumes with their label maps, in a parallel folder or beside them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dxseg.data.importers.dicom import import_dicom
from dxseg.data.importers.names import natural_key, plain_name
from dxseg.data.importers.report import ImportReport, Progress
from dxseg.data.importers.volume_dataset import DEFAULT_MASK_VALUES, write_volumes
from dxseg.data.readers.dicom.objects import is_dicom
from dxseg.data.readers.nifti import is_nifti, nifti_grid, nifti_stem, read_nifti, read_nifti_labels
from dxseg.data.readers.slicing import Slicing
from dxseg.data.readers.volume import FoundVolume
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


def import_volumes(
    source: str | Path,
    destination: str | Path,
    *,
    name: str | None = None,
    masks_root: str | Path | None = None,
    mask_suffix: str = "_mask",
    mask_replace: tuple[str, str] | None = None,
    slicing: Slicing | None = None,
    mask_values: Mapping[int, str] = DEFAULT_MASK_VALUES,
    lesion_classes: Sequence[str] = (),
    lesion_label: str | None = None,
    lesion_free: Sequence[str] = (),
    labels: str | Path | None = None,
    label_columns: Mapping[str, str] | None = None,
    modality: str = "unknown",
    provenance: str = "",
    licence: str = "",
    overwrite: bool = False,
    progress: Progress | None = None,
) -> ImportReport:
    """Import NIfTI volumes (CT, MR) as slices, with their label maps; see `write_volumes`.

    A label map has the path of its volume, below `masks_root` if that is given; its name has
    `mask_suffix` added, or follows `mask_replace`, or (in a parallel folder) is the same. A volume
    is named by its path in `source`.

    The series of a folder without NIfTI but with DICOM are imported by `import_dicom`, under
    pseudonyms; mask values are then the numbers of segments or regions.

    Args:
        source: Folder of volumes, searched through all levels; hidden files are ignored.
        destination: Folder of the new dataset.
        name: Dataset name; default: folder name.
        masks_root: Folder of label maps in a parallel tree; default: beside their volumes.
        mask_suffix: `NAME_mask.nii` is the label map of `NAME.nii`.
        mask_replace: Text in the name of a volume, and its replacement in the name of the label
            map; instead of the suffix.
        slicing: Rule by which volumes become images; default: `Slicing()`.
        mask_values: Mask class of each value of the label maps.
        lesion_classes: Mask classes that are lesions, if others are organs; default: all.
        lesion_label: Label of slices whose mask shows a lesion.
        lesion_free: Labels that mean lesion-free.
        labels: CSV file of labels.
        label_columns: Columns of the table for its fields, where the names differ.
        modality: Free text, such as "CT".
        provenance: Where the volumes come from.
        licence: Terms of use of the images.
        overwrite: Replace the dataset in `destination` if it has the same name.
        progress: Called with (done, total) after each volume.

    Raises:
        UsageError: Options are inconsistent.
        DxsegError: There is no volume, or two have the same name; see also `write_volumes`.
    """
    source = _folder(source)
    tree = None if masks_root is None else _folder(masks_root)
    if (mask_replace is None and not mask_suffix) or (mask_replace and not all(mask_replace)):
        raise UsageError("the name of a label map: expected a suffix, or TEXT=OTHER to replace")
    skipped: Skipped = []
    left_out = [path for path in (tree, Path(destination).resolve()) if path not in (None, source)]
    found = find_nifti(source, tree, MaskNames(mask_suffix, mask_replace), skipped, left_out)
    if not found and any(is_dicom(path) for path in source.rglob("*")):
        if tree is not None or mask_replace is not None:
            raise UsageError(
                f"{source}: masks of DICOM series are SEG or RTSTRUCT objects beside them"
            )
        return import_dicom(
            source,
            destination,
            volumes_only=True,
            regions=None
            if mask_values == DEFAULT_MASK_VALUES
            else {str(value): name for value, name in mask_values.items()},
            slicing=slicing,
            lesion_classes=lesion_classes,
            lesion_label=lesion_label,
            lesion_free=lesion_free,
            labels=labels,
            label_columns=label_columns,
            name=name,
            provenance=provenance,
            licence=licence,
            overwrite=overwrite,
            progress=progress,
        )
    if not found:
        raise DxsegError(f"{source}: no volume; expected NIfTI (.nii, .nii.gz) or DICOM slices")
    return write_volumes(
        found,
        destination,
        {
            "name": name or source.name,
            "modality": modality,
            "provenance": provenance,
            "licence": licence,
        },
        slicing=slicing or Slicing(),
        mask_values=mask_values,
        lesion_classes=lesion_classes,
        lesion_label=lesion_label,
        lesion_free=lesion_free,
        labels=labels,
        label_columns=label_columns,
        skipped=skipped,
        overwrite=overwrite,
        progress=progress,
    )


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
    return [nifti_volume("_".join(key.parts), path, masks.get(key)) for key, path in images.items()]


def nifti_volume(name: str, image: Path, mask: Path | None) -> FoundVolume:
    """Make a `FoundVolume` of a volume and its label map, without reading them.

    Args:
        name: Text from which the volume id is made.
        image: File of the volume.
        mask: File of its label map, or None.
    """
    files = [image] if mask is None else [image, mask]

    def load_labels() -> NDArray[np.uint16]:
        assert mask is not None
        return read_nifti_labels(mask, *nifti_grid(image))

    return FoundVolume(
        volume_id=plain_name(name),
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

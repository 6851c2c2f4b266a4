"""Importing images with one folder per label, masks beside them or in a parallel tree."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from dxseg.data.importers.image_dataset import FoundCase, write_dataset
from dxseg.data.importers.names import natural_key
from dxseg.data.importers.report import ImportReport, Progress
from dxseg.data.readers.images import is_supported
from dxseg.errors import DxsegError

Skipped = list[tuple[str, str]]


def import_folder(
    source: str | Path,
    destination: str | Path,
    *,
    name: str | None = None,
    lesion_free: Sequence[str] = (),
    masks_root: str | Path | None = None,
    mask_suffix: str = "_mask",
    mask_classes: Sequence[str] = ("lesion",),
    modality: str = "unknown",
    provenance: str = "",
    licence: str = "",
    overwrite: bool = False,
    progress: Progress | None = None,
) -> ImportReport:
    """Import a folder whose subfolders are the labels, with masks beside the images or apart.

    A mask beside its image has the image's name with `mask_suffix`, and may be numbered:
    `NAME_mask.png`, `NAME_mask_1.png`. In a parallel tree it has the image's path below
    `masks_root`, with or without `mask_suffix`; the file type may differ. Several masks of an image
    are merged. Images are not copied. Hidden files are ignored.

    Args:
        source: Folder with one subfolder per label, searched through all levels.
        destination: Folder of the new dataset.
        name: Dataset name; default: folder name.
        lesion_free: Labels whose images have no lesion, so that their masks are empty.
        masks_root: Root of masks in a parallel tree; default: beside the images.
        mask_suffix: `NAME_mask.png` is the mask of `NAME.png`.
        mask_classes: Names of the mask values 1, 2, ...
        modality: Free text, such as "ultrasound".
        provenance: Where the images come from.
        licence: Terms of use of the images.
        overwrite: Replace the dataset in `destination` if it has the same name.
        progress: Called with (done, total) after each image.

    Raises:
        DxsegError: There are no label folders or images, a lesion-free label has no folder, or the
            destination holds something else.
    """
    source = _folder(source)
    tree = None if masks_root is None else _folder(masks_root)
    skipped: Skipped = []
    labels = _label_folders(source, [tree, Path(destination).resolve()], skipped)
    if tree is None:
        root = source
        found = find_beside(source, labels, mask_suffix, skipped)
    else:
        root = Path(os.path.commonpath([source, tree]))
        if root == Path(root.anchor):
            raise DxsegError(
                f"{tree}: has no folder in common with {source}; move both into one folder"
            )
        found = _find_parallel(source, tree, labels, mask_suffix, skipped)
    fields = {
        "name": name or source.name,
        "modality": modality,
        "labels": labels,
        "lesion_free": list(lesion_free),
        "mask_classes": list(mask_classes),
        "provenance": provenance,
        "licence": licence,
    }
    return write_dataset(
        found,
        root,
        Path(destination),
        fields,
        skipped=skipped,
        overwrite=overwrite,
        progress=progress,
    )


def find_beside(
    source: Path, labels: Sequence[str], mask_suffix: str, skipped: Skipped
) -> list[FoundCase]:
    """Pair images with the masks beside them.

    Args:
        source: The folder of label folders.
        labels: The label folders' names.
        mask_suffix: What a mask's name adds to its image's.
        skipped: Gets files of other types and masks without an image.

    Returns:
        The images in order of label and natural order of path.
    """
    pattern = _mask_pattern(mask_suffix)
    found: list[FoundCase] = []
    for label in labels:
        images: list[Path] = []
        masks: dict[Path, list[Path]] = defaultdict(list)
        for path in _files(source / label, skipped):
            match = pattern.fullmatch(path.stem)
            if match:
                masks[path.parent / match[1]].append(path)
            else:
                images.append(path)
        found.extend(_pair(images, masks, label, skipped))
    return found


def _find_parallel(
    source: Path, tree: Path, labels: Sequence[str], mask_suffix: str, skipped: Skipped
) -> list[FoundCase]:
    pattern = _mask_pattern(mask_suffix)
    images = {
        label: [path for path in _files(source / label, skipped) if tree not in path.parents]
        for label in labels
    }
    stems = {
        path.relative_to(source).with_suffix("") for paths in images.values() for path in paths
    }
    masks: dict[Path, list[Path]] = defaultdict(list)
    for path in _files(tree, skipped):
        plain = path.relative_to(tree).with_suffix("")
        match = pattern.fullmatch(plain.name)
        # An image's own name may end like a mask's; then the plain name is the pair.
        owner = plain.parent / match[1] if match and plain not in stems else plain
        masks[source / owner].append(path)
    found: list[FoundCase] = []
    for label, paths in images.items():
        own = {
            owner: masks.pop(owner) for owner in list(masks) if (source / label) in owner.parents
        }
        found.extend(_pair(paths, own, label, skipped))
    for orphans in masks.values():
        skipped.extend((str(path), "mask outside the label folders") for path in orphans)
    return found


def _pair(
    images: list[Path], masks: dict[Path, list[Path]], label: str, skipped: Skipped
) -> list[FoundCase]:
    found = [
        FoundCase(image=path, label=label, masks=masks.get(path.with_suffix(""), []))
        for path in images
    ]
    owners = {path.with_suffix("") for path in images}
    for owner, paths in masks.items():
        if owner not in owners:
            skipped.extend((str(path), f"mask without its image {owner.name}") for path in paths)
    return found


def _mask_pattern(mask_suffix: str) -> re.Pattern[str]:
    if not mask_suffix or "/" in mask_suffix or "\\" in mask_suffix:
        raise DxsegError(f"mask suffix {mask_suffix!r}: expected text such as '_mask'")
    return re.compile(rf"(.+){re.escape(mask_suffix)}(?:_\d+)?", re.DOTALL)


def _label_folders(source: Path, others: list[Path | None], skipped: Skipped) -> list[str]:
    labels = []
    for path in sorted(source.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir():
            if path not in others:
                labels.append(path.name)
        elif is_supported(path):
            skipped.append((str(path), "outside the label folders"))
    if not labels:
        raise DxsegError(f"{source}: no folders; expected one folder per label with its images")
    return labels


def _files(folder: Path, skipped: Skipped) -> Iterator[Path]:
    """Walk in natural order (2 before 10), so that tables and reports are easy to read."""
    for base, folders, names in os.walk(folder):
        folders[:] = sorted((name for name in folders if not name.startswith(".")), key=natural_key)
        for name in sorted(names, key=natural_key):
            path = Path(base, name)
            if name.startswith("."):
                continue
            if is_supported(path):
                yield path
            else:
                skipped.append((str(path), f"unknown type {path.suffix or 'without a suffix'}"))


def _folder(path: str | Path) -> Path:
    folder = Path(path)
    if not folder.is_dir():
        raise DxsegError(f"{folder}: no such folder; expected the folder of images or masks")
    return folder.resolve()

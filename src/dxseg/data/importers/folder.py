"""Images with one folder per label, and their masks beside them or in a parallel tree."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from dxseg.data.importers.image_dataset import FoundCase
from dxseg.data.importers.names import natural_key
from dxseg.data.readers.images import is_supported
from dxseg.errors import DxsegError

Skipped = list[tuple[str, str]]


def find_in_folders(
    source: str | Path,
    masks_root: str | Path | None,
    mask_suffix: str,
    destination: str | Path,
    skipped: Skipped,
) -> tuple[Path, list[str], list[FoundCase]]:
    """Find the label folders, and pair the images in them with their masks.

    Args:
        source: The folder of label folders.
        masks_root: Root of masks in a parallel tree; None: beside the images.
        mask_suffix: Text that the name of a mask adds to the name of its image.
        destination: Folder of the new dataset, which is not a label folder.
        skipped: List to which files left out are added.

    Returns:
        The folder that contains all images and masks, the labels, and the images.

    Raises:
        DxsegError: A folder is missing, there are no label folders, or the folders have no folder
            in common.
    """
    source = _folder(source)
    tree = None if masks_root is None else _folder(masks_root)
    labels = _label_folders(source, [tree, Path(destination).resolve()], skipped)
    if tree is None:
        return source, labels, find_beside(source, labels, mask_suffix, skipped)
    root = Path(os.path.commonpath([source, tree]))
    if root == Path(root.anchor):
        raise DxsegError(
            f"{tree}: has no folder in common with {source}; move both into one folder"
        )
    return root, labels, _find_parallel(source, tree, labels, mask_suffix, skipped)


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

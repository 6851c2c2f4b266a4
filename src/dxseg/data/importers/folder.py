"""Folders of images and masks; the folders of images may be their labels."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dxseg.data.importers.image_dataset import FoundCase
from dxseg.data.importers.mask_names import is_image_folder, is_split_folder, label_core
from dxseg.data.importers.mask_owner import MaskNaming
from dxseg.data.importers.mask_search import find_masks
from dxseg.data.importers.mask_values import MaskRule
from dxseg.data.importers.names import natural_key
from dxseg.data.importers.pairing import Pairing
from dxseg.data.importers.patient_names import known_patients
from dxseg.data.importers.report import LeftOut
from dxseg.data.readers.images import is_supported
from dxseg.errors import DxsegError, UsageError

_CASE_FOLDERS = 10
"""From this number on, folders of one image each are cases, not labels."""


@dataclass
class FoundFolder:
    """What was found in a folder.

    Attributes:
        root: The folder that contains all images and masks.
        labels: The labels, sorted.
        cases: The images in natural order of path.
        notes: What was guessed, as lines of the report.
    """

    root: Path
    labels: list[str]
    cases: list[FoundCase]
    notes: list[str] = field(default_factory=list)


def find_in_folders(
    source: str | Path,
    masks_root: str | Path | None,
    naming: MaskNaming,
    destination: str | Path,
    left_out: LeftOut,
    *,
    keep_mask_like: bool = False,
    known_labels: Sequence[str] = (),
) -> FoundFolder:
    """Find the images of a folder, their masks, and their labels from the names of folders.

    Args:
        source: The folder.
        masks_root: Root of masks; None: search for them in `source`.
        naming: How masks are named.
        destination: Folder of the new dataset, which is not searched.
        left_out: List to which files left out are added.
        keep_mask_like: Whether what looks like a mask, but is not named so, is an image.
        known_labels: Names of folders that are labels, even if they look like patients.

    Raises:
        DxsegError: A folder is missing, there is no image, `masks_root` has no mask of an image, or
            the folders have no folder in common.
    """
    source = _folder(source)
    tree = None if masks_root is None else _folder(masks_root)
    exclude = [path for path in (tree, Path(destination).resolve()) if path not in (None, source)]
    files = list(walk_images(source, left_out, exclude))
    root = source
    if tree is not None:
        files.extend(walk_images(tree, left_out))
        root = Path(os.path.commonpath([source, tree]))
        if root == Path(root.anchor):
            raise DxsegError(
                f"{tree}: has no folder in common with {source}; move both into one folder"
            )
    pairing = find_masks(files, source, naming, tree=tree, keep_mask_like=keep_mask_like)
    if tree is not None and not any(pairing.masks.values()):
        reason = next(iter(pairing.left_out.values()), "it has no image file")
        raise DxsegError(
            f"{tree}: no mask of any of the {len(pairing.masks)} images of {source}; first reason: "
            f"{reason}; expected the name of the image, or with --mask-suffix"
        )
    notes = note_pairing(pairing, left_out)
    labels = _find_labels(list(pairing.masks), source, left_out, notes, known_labels)
    cases = [
        FoundCase(
            path,
            labels[path],
            [mask.path for mask in masks],
            structures={mask.path: mask.structure for mask in masks},
        )
        for path, masks in pairing.masks.items()
        if path in labels
    ]
    return FoundFolder(root, sorted(set(labels.values()) - {""}), cases, notes)


def choose_structures(
    found: FoundFolder, mask_rule: MaskRule, is_default: bool, left_out: LeftOut
) -> MaskRule:
    """Find which structures have masks of their own, and make each a mask class.

    Names that occur once are no structures, but one of several lesions of an image.

    Args:
        found: The images; masks of structures that are not chosen are removed.
        mask_rule: What the user wants of masks.
        is_default: Whether that is the default, so that all structures are classes.
        left_out: List to which masks that are not chosen are added.

    Raises:
        UsageError: A structure does not exist.
    """
    counts = Counter(name for case in found.cases for name in case.structures.values())
    names = sorted((name for name in counts if name), key=natural_key)
    if is_default and len(names) > 1 and max(counts[name] for name in names) > 1:
        found.notes.append(
            f"mask classes, one per structure: {', '.join(names[:20])}; --mask-class "
            "STRUCTURE=CLASS chooses"
        )
        return MaskRule(names, structures={name: n for n, name in enumerate(names, 1)})
    unknown = sorted(set(mask_rule.structures) - set(names))
    if unknown:
        raise UsageError(
            f"--mask-class {unknown[0]}=...: no mask is of it; expected a number, or one of "
            f"{', '.join(names[:20]) or 'no structures'}"
        )
    if mask_rule.structures:
        for case in found.cases:
            others = [p for p in case.masks if case.structures[p] not in mask_rule.structures]
            for path in others:
                left_out.append((str(path), "mask of a structure without --mask-class"))
            case.masks = [path for path in case.masks if path not in others]
    return mask_rule


def note_pairing(pairing: Pairing, left_out: LeftOut) -> list[str]:
    """Move what a pairing left out to the list, and describe how masks were found.

    Args:
        pairing: Images and masks.
        left_out: List to which files left out are added.
    """
    for path, reason in pairing.left_out.items():
        left_out.mask(path, reason)
    if not pairing.patterns:
        return []
    common = [f"{pattern} ({count})" for pattern, count in pairing.patterns.most_common(5)]
    more = f" and {len(pairing.patterns) - 5} other ways" if len(pairing.patterns) > 5 else ""
    return [f"masks are named {', '.join(common)}{more}"]


def walk_images(
    folder: Path, left_out: LeftOut, exclude: Sequence[Path | None] = ()
) -> Iterator[Path]:
    """Find the image files of a folder in natural order (2 before 10); hidden ones are ignored.

    Args:
        folder: The folder, searched through all levels.
        left_out: List to which files of other types are added.
        exclude: Folders that are not searched.
    """
    for base, folders, files in os.walk(folder):
        folders[:] = sorted((name for name in folders if not name.startswith(".")), key=natural_key)
        if exclude:
            folders[:] = [name for name in folders if Path(base, name) not in exclude]
        inside = Path(base)
        for name in sorted(files, key=natural_key):
            if name.startswith("."):
                continue
            path = inside / name
            if is_supported(name):
                yield path
            else:
                left_out.file(path, f"unknown type {path.suffix or 'without a suffix'}")


def _find_labels(
    images: Sequence[Path],
    source: Path,
    left_out: LeftOut,
    notes: list[str],
    known: Sequence[str],
) -> dict[Path, str]:
    """Take the label of each image from its folders; images that may not stay are left out."""
    folders = {path: os.path.split(path)[0] for path in images}
    by_folder = {
        name: _label(Path(name), source, notes) for name in dict.fromkeys(folders.values())
    }
    labels = {path: by_folder[name] for path, name in folders.items()}
    counts = Counter(labels.values())
    if len(counts) >= _CASE_FOLDERS and set(counts.values()) == {1}:
        notes.append(f"{len(counts)} folders of one image each are cases, not labels: unlabeled")
        return dict.fromkeys(images, "")
    names = sorted(set(counts) - {""}, key=natural_key)
    if known_patients(names) and set(names).isdisjoint(known):
        notes.append(
            f"{len(names)} folders such as {names[0]!r} are named like patients, not labels; if "
            "they are labels, list the images in a table for `dxseg import csv`"
        )
        labels = dict.fromkeys(images, "")
    elif len(counts) == 1 and _is_of_images(images[0], source):
        labels = dict.fromkeys(images, "")
    if set(labels.values()) == {""}:
        notes.append("no folder is a label: all images are unlabeled")
    else:
        for path in [path for path, name in folders.items() if name == str(source)]:
            left_out.image(path, "outside the label folders")
            del labels[path]
    return labels


def _label(folder: Path, source: Path, notes: list[str]) -> str:
    for name in folder.relative_to(source).parts:
        if not (is_image_folder(name) or is_split_folder(name)):
            return label_core(name)
        note = f"folder {name!r} is not a label: its name says images, or training, test"
        if note not in notes:
            notes.append(note)
    return ""


def _is_of_images(path: Path, source: Path) -> bool:
    folders = path.relative_to(source).parts[:-1]
    return bool(folders) and label_core(folders[0]) != folders[0]


def _folder(path: str | Path) -> Path:
    folder = Path(path)
    if not folder.is_dir():
        raise DxsegError(f"{folder}: no such folder; expected the folder of images or masks")
    return folder.resolve()

"""Images and masks among the files of a folder: names first, pixels where names leave doubt."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from dxseg.data.importers import mask_names as names
from dxseg.data.importers.mask_owner import File, MaskNaming, describe
from dxseg.data.importers.pairing import Mask, Pairing, pair_masks
from dxseg.data.readers.mask_like import looks_like_mask

_PROBED = 8
"""Files of one folder and way of naming that are looked at before all of them are."""

Probe = Callable[[Path], bool]


def find_masks(
    files: Sequence[Path],
    root: Path,
    naming: MaskNaming,
    *,
    tree: Path | None = None,
    stem: Callable[[Path], str] = lambda path: path.stem,
    several: bool = True,
    keep_mask_like: bool = False,
    probe: Probe = looks_like_mask,
) -> Pairing:
    """Find the masks among files, and the image of each.

    A file is a mask by its name or its folder. Names of diagnoses are like those of masks
    (`lesion_1.png`), so a file that is of no image and does not look like a mask is an image. An
    image whose name extends that of another and that looks like a mask is left out, as only the
    user knows what it is.

    Args:
        files: Images and masks; those in `tree` are masks.
        root: The folder of the others.
        naming: How masks are named.
        tree: A folder that contains all masks; None: search for them.
        stem: Name of a file without its suffix.
        several: Whether an image may have several masks of one structure.
        keep_mask_like: Whether what looks like a mask, but is not named so, is an image.
        probe: Whether a file looks like a mask.
    """
    found = [describe(path, stem(path), root, tree) for path in files]
    masks = [file for file in found if _is_marked(file, naming, tree)]
    images = _others(found, masks)
    pairing = pair_masks(images, masks, naming, several=several)
    photos = _photos(masks, pairing, naming, probe) if tree is None else set()
    if photos:
        # A folder of photos is none of masks, whatever its name: what is in it may be both.
        folders = {file.folder for file in masks if file.in_mask_folder and file.path in photos}
        found = [
            replace(file, in_mask_folder=False, below=()) if file.folder in folders else file
            for file in found
        ]
        marked = [file for file in found if _is_marked(file, naming, tree)]
        masks = [
            file
            for file in marked
            if file.path not in photos or (file.folder in folders and not naming.any_word)
        ]
        images = _others(found, masks)
        pairing = pair_masks(images, masks, naming, several=several)
    if not keep_mask_like:
        _ask_about_suspects(images, pairing, naming, tree, probe)
    return pairing


def _others(found: Sequence[File], masks: Sequence[File]) -> list[File]:
    taken = set(masks)
    return [file for file in found if file not in taken]


def _is_marked(file: File, naming: MaskNaming, tree: Path | None) -> bool:
    if tree is not None:
        return file.path.is_relative_to(tree)
    return file.in_mask_folder or naming.marks(file.stem)


def _photos(masks: Sequence[File], pairing: Pairing, naming: MaskNaming, probe: Probe) -> set[Path]:
    """Find files that are named like masks and do not look like masks: `lesion_1.png`.

    What has a name that only masks have, and is of an image, stays one, to be refused as a mask.
    """
    groups: dict[tuple[str, str], list[Path]] = defaultdict(list)
    used = {os.path.split(mask.path)[0] for found in pairing.masks.values() for mask in found}
    for file in masks:
        guessed = file.folder not in used if file.in_mask_folder else naming.any_word
        weak = not file.in_mask_folder and not names.has_strong_word(file.stem)
        if guessed and (weak or file.path in pairing.left_out):
            key = file.folder, names.numbers_hidden(" ".join(names.mark(file.stem)))
            groups[key].append(file.path)
    photos: set[Path] = set()
    for paths in groups.values():
        photos.update(set(paths) - _mask_like(paths, probe))
    # What has the very name of a photo is not marked by it.
    taken = {path.with_suffix("") for path in photos}
    return photos | {file.path for file in masks if taken and file.path.with_suffix("") in taken}


def _mask_like(paths: Sequence[Path], probe: Probe) -> set[Path]:
    """Find the files that look like masks: all are looked at if one of a sample does."""
    sample = paths[:: max(1, len(paths) // _PROBED)]
    seen = {path: probe(path) for path in sample}
    if not any(seen.values()):
        return set()
    return {path for path in paths if (seen[path] if path in seen else probe(path))}


def _ask_about_suspects(
    images: Sequence[File], pairing: Pairing, naming: MaskNaming, tree: Path | None, probe: Probe
) -> None:
    groups: dict[str, list[tuple[File, File]]] = defaultdict(list)
    for key, file, other in _suspects(images):
        groups[key].append((file, other))
    others = {file.path: other for pairs in groups.values() for file, other in pairs}
    like: set[Path] = set()
    for pairs in groups.values():
        like |= _mask_like([file.path for file, _ in pairs], probe)
    for file in (file for pairs in groups.values() for file, _ in pairs if file.path in like):
        other = others[file.path]
        pairing.left_out.update(dict.fromkeys(_paths(pairing.masks.pop(file.path)), _NO_IMAGE))
        rest = file.name.removeprefix(other.name)
        beside = file.folder == other.folder
        named = beside and naming.any_word and tree is None and (not rest or names.marks_mask(rest))
        if named and other.path not in like and pairing.masks.get(other.path) == []:
            pairing.masks[other.path].append(Mask(file.path))
            pairing.patterns[names.pattern(file.path, other.path)] += 1
        elif beside:
            shown = names.pattern(file.path, other.path)
            pairing.left_out[file.path] = f"{_LIKE} ({shown}); --mask-suffix {_KEEP}"
        else:
            pairing.left_out[file.path] = f"{_LIKE} in another folder; --masks-root {_KEEP}"


_NO_IMAGE = "mask of a file that looks like a mask itself"
_LIKE = "looks like a mask, and is named after another image"
_KEEP = "makes it a mask, --keep-mask-like an image"


def _paths(masks: Iterable[Mask]) -> list[Path]:
    return [mask.path for mask in masks]


def _suspects(images: Sequence[File]) -> Iterator[tuple[str, File, File]]:
    """Find images whose name is that of another or extends it, as that of an unknown mask does.

    Yields:
        A key that is equal for files of a folder that are named alike, the file, and the other.
    """
    by_name: dict[str, list[File]] = defaultdict(list)
    for file in images:
        by_name[file.name].append(file)
    lengths = sorted({len(name) for name in by_name}, reverse=True)
    for file in images:
        part = _namesake(file.name, by_name, lengths)
        if part is not None:
            others = [other for other in by_name[part] if other is not file]
            other = min(others, key=lambda other: other.folder != file.folder)
            rest = names.numbers_hidden(file.name.replace(part, "*", 1))
            yield f"{file.folder}/{rest}{file.path.suffix}", file, other


def _namesake(
    name: str, by_name: Mapping[str, Sequence[File]], lengths: Sequence[int]
) -> str | None:
    """The longest beginning or end of a name that is the name of another file."""
    if len(by_name[name]) > 1:
        return name
    for length in lengths:
        if length < len(name):
            for part in (name[:length], name[len(name) - length :]):
                if part in by_name:
                    return part
    return None

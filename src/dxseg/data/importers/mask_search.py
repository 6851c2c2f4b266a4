"""Images and masks among the files of a folder: names first, pixels where names leave doubt."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from dxseg.data.importers import mask_names as names
from dxseg.data.importers.mask_names import fold
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
    pairing = pair_masks(_others(found, masks), masks, naming, several=several)
    photos = _photos(masks, pairing, naming, probe) if tree is None else set()
    if photos:
        # A folder of photos is none of masks, whatever its name: what is in it may be both.
        folders = {
            file.path.parent for file in masks if file.in_mask_folder and file.path in photos
        }
        found = [
            replace(file, in_mask_folder=False, below=()) if file.path.parent in folders else file
            for file in found
        ]
        marked = [file for file in found if _is_marked(file, naming, tree)]
        masks = [
            file
            for file in marked
            if file.path not in photos or (file.path.parent in folders and not naming.any_word)
        ]
        pairing = pair_masks(_others(found, masks), masks, naming, several=several)
    if not keep_mask_like:
        _ask_about_suspects(_others(found, masks), pairing, naming, tree, probe)
    return pairing


def _others(found: Sequence[File], masks: Sequence[File]) -> list[File]:
    taken = {file.path for file in masks}
    return [file for file in found if file.path not in taken]


def _is_marked(file: File, naming: MaskNaming, tree: Path | None) -> bool:
    if tree is not None:
        return file.path.is_relative_to(tree)
    return file.in_mask_folder or naming.marks(file.stem)


def _photos(masks: Sequence[File], pairing: Pairing, naming: MaskNaming, probe: Probe) -> set[Path]:
    """Find files that are named like masks and do not look like masks: `lesion_1.png`.

    What has a name that only masks have, and is of an image, stays one, to be refused as a mask.
    """
    groups: dict[tuple[Path, str], list[Path]] = defaultdict(list)
    used = {mask.path.parent for found in pairing.masks.values() for mask in found}
    for file in masks:
        guessed = file.path.parent not in used if file.in_mask_folder else naming.any_word
        weak = not file.in_mask_folder and not names.has_strong_word(file.stem)
        if guessed and (weak or file.path in pairing.left_out):
            key = file.path.parent, names.numbers_hidden(" ".join(names.mark(file.stem)))
            groups[key].append(file.path)
    photos: set[Path] = set()
    for paths in groups.values():
        photos.update(set(paths) - _mask_like(paths, probe))
    # What has the very name of a photo is not marked by it.
    taken = {path.with_suffix("") for path in photos}
    return photos | {file.path for file in masks if file.path.with_suffix("") in taken}


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
        rest = fold(file.stem).removeprefix(fold(other.stem))
        beside = file.path.parent == other.path.parent
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
    by_stem: dict[str, list[File]] = defaultdict(list)
    for file in images:
        by_stem[fold(file.stem)].append(file)
    lengths = sorted({len(stem) for stem in by_stem}, reverse=True)
    for file in images:
        name = fold(file.stem)
        for part in _parts(name, lengths):
            if part not in by_stem:
                continue
            others = [other for other in by_stem[part] if other.path != file.path]
            others.sort(key=lambda other: other.path.parent != file.path.parent)
            if others:
                rest = names.numbers_hidden(name.replace(part, "*", 1))
                yield f"{file.path.parent}/{rest}{file.path.suffix}", file, others[0]
                break


def _parts(name: str, lengths: Sequence[int]) -> Iterator[str]:
    """The beginnings and ends of a name that have one of some lengths, the longest first."""
    for length in lengths:
        if length <= len(name):
            yield name[:length]
            yield name[len(name) - length :]

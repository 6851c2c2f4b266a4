"""Whose mask a file is: the image whose name and folders fit best."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from dxseg.data.importers import bids_names
from dxseg.data.importers import mask_names as names
from dxseg.data.importers.mask_names import core, fold
from dxseg.errors import UsageError

_CHANNEL = "_0000"
"""nnU-Net's end of the name of an image of one channel."""
EXACT, TAILED, REWORDED, ONLY_ONE = range(4)
"""How a name fits: with mask words only, with others too, by what is left, as the only image."""

_NONE = "no image has its name"
_ELSEWHERE = (
    "images of its name are in folders that do not fit; give the folder of its images as SOURCE, "
    "and that of the masks as --masks-root"
)
_Rank = tuple[int, ...]


@dataclass(frozen=True)
class MaskNaming:
    """How masks are named; by default with any usual word, such as `_mask` or `-GT`.

    Attributes:
        suffix: The only text that a mask adds to the name of its image; None: any usual word.
        replaced: Text of an image's name and what its mask has instead; replaces the suffix.
    """

    suffix: str | None = None
    replaced: tuple[str, str] | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be a part of a name."""
        if self.suffix is not None and (not self.suffix or set(self.suffix) & {"/", "\\"}):
            raise UsageError(f"mask suffix {self.suffix!r}: expected text such as '_mask'")
        if self.replaced is not None and not all(self.replaced):
            raise UsageError(f"{self.replaced}: expected TEXT=OTHER to replace in a name")

    @property
    def any_word(self) -> bool:
        """Whether any usual word marks a mask."""
        return self.suffix is None and self.replaced is None

    def marks(self, stem: str) -> bool:
        """Whether a name is that of a mask."""
        if self.replaced is not None:
            return self.replaced[1] in stem
        if self.suffix is not None:
            return names.suffix_pattern(self.suffix).fullmatch(fold(stem)) is not None
        return names.has_mask_word(stem)


@dataclass(eq=False, slots=True)
class File:
    """An image or a mask, with the parts of its path by which they are compared.

    Attributes:
        path: The file.
        stem: Its name without the suffix.
        name: The stem in the form in which names are compared.
        folder: Path of its folder.
        place: Words of its folders, without those that say "masks" or "images".
        in_mask_folder: Whether one of its folders is for masks.
        below: Its folders below the folder for masks.
    """

    path: Path
    stem: str
    name: str
    folder: str
    place: tuple[str, ...]
    in_mask_folder: bool
    below: tuple[str, ...] = ()


def describe(path: Path, stem: str, root: Path, tree: Path | None = None) -> File:
    """Make a `File` of a path.

    Args:
        path: The file.
        stem: Its name without the suffix.
        root: The folder of images.
        tree: A folder that contains only masks.
    """
    folder = os.path.split(path)[0]
    place = _place(folder, root, tree)
    if place.may_be_of_masks and names.has_mask_word(stem):
        place = _place(folder, root, tree, named=True)
    return File(path, stem, fold(stem), folder, place.words, place.of_masks, place.below)


class _Place(NamedTuple):
    words: tuple[str, ...]
    of_masks: bool
    below: tuple[str, ...]
    may_be_of_masks: bool
    """If the names of its files say so too."""


@lru_cache(maxsize=2**12)
def _place(folder: str, root: Path, tree: Path | None, *, named: bool = False) -> _Place:
    path = Path(folder)
    inside = tree is not None and path.is_relative_to(tree)
    base = tree if inside and tree is not None else root
    folders = path.parts[len(base.parts) :]
    marked = [number for number, name in enumerate(folders) if names.is_mask_folder(name)]
    weak = [number for number, name in enumerate(folders) if names.is_weak_mask_folder(name)]
    if named and not marked:
        marked = weak
    return _Place(
        words=tuple(
            word
            for number, name in enumerate(folders)
            for word in names.folder_core(name, number in marked)
        ),
        of_masks=inside or bool(marked),
        below=folders[marked[-1] + 1 :] if marked else folders if inside else (),
        may_be_of_masks=bool(weak and not marked),
    )


class ImageIndex:
    """The images of an import, by the names that their masks may have."""

    def __init__(self, files: Sequence[File]) -> None:
        self.by_stem: dict[str, list[File]] = defaultdict(list)
        self.by_core: dict[str, list[File]] = defaultdict(list)
        self.by_bids: dict[str, list[File]] = defaultdict(list)
        self.by_place: dict[tuple[str, ...], list[File]] = defaultdict(list)
        for file in files:
            self.by_stem[file.name].append(file)
            self.by_core[core(file.stem)].append(file)
            self.by_bids[bids_names.image_core(file.stem)].append(file)
            self.by_place[file.place].append(file)
        alone = [found[0] for found in self.by_place.values() if len(found) == 1]
        self.named_by_folder = {file.path for file in alone if _has_name_of_folder(file)}

    def owner(self, mask: File, naming: MaskNaming) -> tuple[File | str, int]:
        """Find the image of a mask and how its name fits, or the reason why there is none."""
        best: dict[File, _Rank] = {}
        elsewhere = False
        for fit, length, file in self._candidates(mask, naming):
            elsewhere = True
            if _may_belong(mask, file):
                spelled = file.stem not in mask.stem
                rank = (abs(len(mask.place) - len(file.place)), fit, -length, spelled)
                best[file] = min(rank, best.get(file, rank))
        if not best:
            return f"mask without its image: {_ELSEWHERE if elsewhere else _NONE}", 0
        (owner, first), *others = sorted(best.items(), key=lambda pair: pair[1])
        rivals = [
            file
            for file, rank in others
            if rank == first
            or _takes_number(file, mask)
            or (rank[0] == first[0] and _is_another_part(file, owner, mask))
        ]
        if rivals:
            shown = ", ".join(sorted(file.path.name for file in [owner, *rivals])[:3])
            return f"mask fits {len(rivals) + 1} images ({shown}); rename it", 0
        return owner, first[1]

    def _candidates(self, mask: File, naming: MaskNaming) -> Iterator[tuple[int, int, File]]:
        """Find images whose names fit: how, in how many characters, and which."""
        name = mask.name
        if mask.in_mask_folder:
            yield from ((EXACT, len(name), file) for file in self.by_stem.get(name, ()))
            if f"{name}_0001" not in self.by_stem:
                channel = self.by_stem.get(f"{name}{_CHANNEL}", ())
                yield from ((REWORDED, len(name), file) for file in channel)
        if naming.replaced is not None:
            text, other = naming.replaced
            renamed = fold(mask.stem.replace(other, text))
            yield from ((EXACT, len(renamed), file) for file in self.by_stem.get(renamed, ()))
        elif naming.suffix is not None:
            match = names.suffix_pattern(naming.suffix).fullmatch(name)
            beginning = match[1] if match else ""
            yield from ((EXACT, len(beginning), f) for f in self.by_stem.get(beginning, ()))
        else:
            yield from self._by_words(mask)

    def _by_words(self, mask: File) -> Iterator[tuple[int, int, File]]:
        if bids_names.is_described(mask.stem):
            kinds = bids_names.kinds(mask.stem)
            yield from (
                (REWORDED, len(rest), file)
                for rest in bids_names.mask_cores(mask.stem)
                for file in self.by_bids.get(rest, ())
                if kinds <= bids_names.kinds(file.stem)
            )
            return
        for start in names.prefixes(mask.name):
            for file in self.by_stem.get(start, ()):
                fit = _fit(mask.stem[len(start) :], mask)
                if fit is not None:
                    yield fit, len(start), file
        own = names.mask_cores(mask.stem)
        said = names.nouns(mask.stem)
        yield from (
            (REWORDED, 0, file)
            for rest in own - {""}
            for file in self.by_core.get(rest, ())
            if said <= names.nouns(file.stem)
        )
        # A folder per case: `case1/mask.png` beside `case1/image.png`.
        beside = self.by_place.get(mask.place[: len(mask.place) - _depth(mask)], ())
        if len(beside) == 1 and ("" in own or mask.in_mask_folder) and self._is_case(beside[0]):
            yield ONLY_ONE, 0, beside[0]

    def _is_case(self, image: File) -> bool:
        """Whether the folder of an image is a case: the image is named after it, or its kind."""
        if names.is_case_name(image.stem):
            return bool(image.place)
        return image.path in self.named_by_folder and len(self.named_by_folder) > 1


def _fit(rest: str, mask: File) -> int | None:
    """How what a mask's name adds to an image's fits; None if it is another image's name."""
    if names.marks_mask(rest):
        return EXACT
    words, _ = names.structure_of(rest)
    # Other words name a structure: IDRiD_01_MA. A number alone would name another image.
    return TAILED if words and (mask.in_mask_folder or names.has_mask_word(rest)) else None


def _depth(mask: File) -> int:
    return len([word for name in mask.below for word in names.folder_core(name)])


def _has_name_of_folder(image: File) -> bool:
    return image.name in {fold(name) for name in image.path.parts[-3:-1]}


def _may_belong(mask: File, image: File) -> bool:
    if not mask.in_mask_folder:
        return mask.folder == image.folder
    return within(mask.place, image.place) or within(image.place, mask.place)


def within(short: Iterable[str], long: Iterable[str]) -> bool:
    """Whether words occur in others in the same order."""
    rest = iter(long)
    return all(word in rest for word in short)


def _takes_number(image: File, mask: File) -> bool:
    """Whether the number at the end of a mask's name may be the image's: a_mask_1 and a_1."""
    if image.name in mask.name:
        return False
    return core(image.stem) in names.mask_cores(mask.stem)


def _is_another_part(image: File, owner: File, mask: File) -> bool:
    """Whether a mask's name has two names in it: `mask_lesion_1` those of `mask` and `lesion_1`."""
    return image.name in mask.name and image.name not in owner.name

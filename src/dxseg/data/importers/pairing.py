"""Which files of a folder are masks, and of which image; importers of files end their search here.

Names decide, never the order of files. What names leave open is left out, counted and named: the
mask of another image is worse than none.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dxseg.data.importers import bids_names
from dxseg.data.importers import mask_names as names
from dxseg.data.importers.mask_owner import (
    ONLY_ONE,
    TAILED,
    File,
    ImageIndex,
    MaskNaming,
    within,
)

_CHOOSE = "choose one with --mask-suffix or --masks-root"


@dataclass(frozen=True, slots=True)
class Mask:
    """A mask of an image.

    Attributes:
        path: The file.
        structure: What it shows of several structures, from its name or folder; "" if only one.
    """

    path: Path
    structure: str = ""


@dataclass
class Pairing:
    """Images with their masks, and what was left out.

    Attributes:
        masks: Masks of each image, in the order of the files; empty for an image without one.
        left_out: Masks that are of no image or of one of several, and why.
        patterns: How often the name of a mask follows from that of its image in which way.
    """

    masks: dict[Path, list[Mask]]
    left_out: dict[Path, str] = field(default_factory=dict)
    patterns: Counter[str] = field(default_factory=Counter)


def pair_masks(
    images: Sequence[File], masks: Sequence[File], naming: MaskNaming, *, several: bool = True
) -> Pairing:
    """Find the image of each mask.

    Of several images whose names fit, the one is taken that is in the same folder, apart from
    folders for masks and images, and whose name fits best; a draw is left out.

    Args:
        images: The images.
        masks: The masks.
        naming: How masks are named.
        several: Whether an image may have several masks of one structure.
    """
    pairing = Pairing({image.path: [] for image in images})
    index = ImageIndex(images)
    owned: dict[File, list[tuple[File, Mask, int]]] = defaultdict(list)
    for mask in masks:
        owner, fit = index.owner(mask, naming)
        if isinstance(owner, str):
            pairing.left_out[mask.path] = owner
        else:
            owned[owner].append((mask, Mask(mask.path, _structure(mask, owner, fit)), fit))
    _refuse_single_tails(owned, pairing, len(images))
    for image, pairs in owned.items():
        if _clash(pairs, several):
            shown = ", ".join(sorted("/".join(mask.path.parts[-2:]) for mask, _, _ in pairs)[:3])
            reason = f"mask is one of {len(pairs)} of {image.path.name} ({shown}); {_CHOOSE}"
            pairing.left_out.update((mask.path, reason) for mask, _, _ in pairs)
            continue
        pairing.masks[image.path] = [mask for _, mask, _ in pairs]
        pairing.patterns.update(names.pattern(mask.path, image.path) for mask, _, _ in pairs)
    return pairing


def _structure(mask: File, image: File, fit: int) -> str:
    if said := bids_names.structure(mask.stem, image.stem):
        return said
    folders = [name for name in mask.below if not within(names.folder_core(name), image.place)]
    if folders:
        return " ".join(names.plain_folder(name) for name in folders)
    if fit == TAILED:
        return names.structure_of(mask.stem[len(image.stem) :])[0]
    if fit == ONLY_ONE and mask.in_mask_folder:
        return "" if names.is_only_mask_words(mask.stem) else mask.stem
    return ""


def _refuse_single_tails(
    owned: dict[File, list[tuple[File, Mask, int]]], pairing: Pairing, images: int
) -> None:
    """Leave out masks whose name has more words than an image's, unless others have them too.

    Where an image is missing, its mask would else be that of an image of a shorter name.
    """
    tails = Counter(mask.structure for pairs in owned.values() for _, mask, _ in pairs)
    for image, pairs in list(owned.items()):
        kept = []
        for file, mask, fit in pairs:
            if fit == TAILED and tails[mask.structure] < min(2, images):
                reason = (
                    f"mask adds more to the name of {image.path.name} than a mask's word; rename it"
                )
                pairing.left_out[file.path] = reason
            else:
                kept.append((file, mask, fit))
        owned[image] = kept


def _clash(pairs: Sequence[tuple[File, Mask, int]], several: bool) -> bool:
    """Whether two masks show the same, as two readers see it, or one of them all and one a part."""
    if len(pairs) < 2:
        return False
    structures = [mask.structure for _, mask, _ in pairs]
    if any(names.is_reader(structure) for structure in structures):
        return True
    if "" in structures and len(set(structures)) > 1:
        return True
    numbers = [names.structure_of(file.stem)[1] for file, _, _ in pairs]
    words = {(file.path.parent, names.mark(file.stem)) for file, _, _ in pairs}
    if "" in structures and len(words) > 1:
        return True
    parts = set(zip(structures, numbers, strict=True)) if several else set(structures)
    return len(parts) < len(pairs)

"""Names of BIDS, pairs of a key and a value: `sub-1_space-MNI_label-edema_mask`.

Their words say what else a file is, so none but the value of `label` or `desc` is a structure.
"""

from __future__ import annotations

from dxseg.data.importers.mask_names import (
    fold,
    is_case_name,
    is_only_mask_words,
    mark,
    nouns,
    tokens,
)

_STRUCTURE = ("label", "desc")
_GRID = ("space", "res", "den", "hemi")
_LESION = "l"
"""BIDS's own abbreviation; ATLAS has `label-L_desc-T1lesion`."""


def is_described(stem: str) -> bool:
    """Whether a name is one of BIDS that says of what structure or in which grid the file is."""
    return any(key in _pairs(stem) for key in (*_STRUCTURE, *_GRID))


def structure(mask: str, image: str) -> str:
    """Read what the name of a mask says that it shows; "" if nothing.

    Args:
        mask: Name of the mask.
        image: Name of its image; what both say is no structure.
    """
    of_image = _pairs(image)
    own = {key: value for key, value in _pairs(mask).items() if of_image.get(key) != value}
    value = next((own[key] for key in _STRUCTURE if key in own), "")
    if fold(value) == _LESION:
        return "lesion"
    return "" if is_only_mask_words(value) else "_".join(tokens(value))


def kinds(stem: str) -> frozenset[str]:
    """Words of a name that say what kind of image it is; `space-orig` says nothing of that."""
    return nouns("_".join(part for part in stem.split("_") if "-" not in part))


def image_core(stem: str) -> str:
    """Reduce the name of an image to what its masks have too: `sub-1_desc-T1_T1w` gives `sub-1`."""
    return _without(stem, (*_STRUCTURE, *_GRID[1:]))


def mask_cores(stem: str) -> set[str]:
    """List what `image_core` may give for the image of a mask: with its space, or without any."""
    return {image_core(stem), _without(stem, (*_STRUCTURE, *_GRID))}


def _pairs(stem: str) -> dict[str, str]:
    parts = stem.split("_")
    if not fold(parts[0]).startswith("sub-"):
        return {}
    split = (part.split("-", 1) for part in parts if "-" in part)
    return {fold(key): value for key, value in split}


def _without(stem: str, keys: tuple[str, ...]) -> str:
    """Remove pairs of these keys, and words for images and masks."""
    kept = [
        part
        for part in stem.split("_")
        if (fold(part.split("-", 1)[0]) not in keys if "-" in part else not _is_kind(part))
    ]
    return fold("_".join(kept))


def _is_kind(part: str) -> bool:
    return is_case_name(part) or bool(mark(part))

"""Names of masks: which words mark one, and what is left of a name without them.

Public datasets mark masks in as many ways as there are groups: `a_Mask.png`, `seg-a.png`,
`masks/a.png`, `labelsTr/a.nii.gz`. No library knows them.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Sequence
from functools import lru_cache
from pathlib import Path

_STRONG_WORDS = """
mask masks seg segs segm dseg segmentation segmentations segmented segmentationclass
segmentationobject gt gts groundtruth groundtruths label labels labelmap lbl annotation annotations
anno annot annots manual delineation delineations
"""
# Words that are diagnoses and contents of images too: they mark a file, never a folder alone.
_WEAK_WORDS = "lesion lesions roi rois contour contours outline outlines msk"
_IMAGE_WORDS = """
image images imaging img imgs im input inputs orig original originals photo photos picture pictures
pic pics jpegimages raw frame frames scan scans volume volumes vol vols data slice slices
"""
_READER_WORDS = "rater raters reader readers observer annotator expert radiologist grader"
_MODALITIES = "ct mr mri pet us flair t1 t1c t1ce t1gd t2 t1w t2w dwi adc"
_MASK = frozenset(_STRONG_WORDS.split())
_WEAK = frozenset(_WEAK_WORDS.split())
_IMAGE = frozenset(_IMAGE_WORDS.split())
_READERS = frozenset(_READER_WORDS.split())
_MODALITY = frozenset(_MODALITIES.split())
_SPLIT = {
    **dict.fromkeys(("train", "training", "tr"), "train"),
    **dict.fromkeys(("test", "testing", "ts"), "test"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
}
_FILL = frozenset(("all", "set", "sets"))
_MARKS, _NOUNS = _MASK | _WEAK, _IMAGE | _MODALITY | frozenset(_SPLIT)
_KNOWN = _MARKS | _NOUNS


def _shortest(words: Collection[str]) -> list[str]:
    """The words that have no other one in them, which find the others too."""
    return [word for word in sorted(words) if not any(o in word for o in words if o != word)]


_ENUMERATION = re.compile(r"^\w{1,2}[.)]\s+")
_PART = re.compile(r"(?<![^\W_])[tT][12](?:ce|gd|[cw])?(?![^\W_])|[^\W\d_]+|\d+")
_ANY_MARK = re.compile(rf"ground[\W_]*truth|{'|'.join(_shortest(_MARKS))}")
_ANY_NOUN = re.compile(rf"ground[\W_]*truth|{'|'.join(_shortest(_NOUNS))}")
_ENDS = re.compile(r"^[\W_]+|[\W_]+$")
_CAMEL = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[^\W\d_]")
_IMAGE_ENDS = re.compile(
    rf"^(?:{'|'.join(_IMAGE)})[_\-. ]+|[_\-. ]+(?:{'|'.join(_IMAGE)})$", re.IGNORECASE
)


def fold(name: str) -> str:
    """Bring a name to the form in which names are compared: composed, without case."""
    return unicodedata.normalize("NFC", name).casefold()


@lru_cache(maxsize=2**16)
def _spans(name: str) -> tuple[tuple[str, int, int], ...]:
    """Split a name into words and numbers, each with its place; "ground truth" is one word."""
    found: list[tuple[str, int, int]] = []
    for part in _PART.finditer(name):
        whole = part[0].casefold()
        if whole in _KNOWN or whole.isdigit():
            found.append((whole, part.start(), part.end()))
            continue
        for word in _CAMEL.finditer(part[0]):
            begin = part.start() + word.start()
            if word[0].casefold() in ("truth", "truths") and found and found[-1][0] == "ground":
                begin = found.pop()[1]
                found.append(("groundtruth", begin, part.start() + word.end()))
            else:
                found.append((word[0].casefold(), begin, part.start() + word.end()))
    return tuple(found)


def tokens(name: str) -> tuple[str, ...]:
    """Split a name into words and numbers, folded: `ISIC_01GroundTruth` gives three."""
    return tuple(word for word, _, _ in _spans(unicodedata.normalize("NFC", name)))


def has_mask_word(name: str) -> bool:
    """Whether a word of a file's name marks masks."""
    # Most names are those of images, without any of these letters.
    return bool(_ANY_MARK.search(name.casefold())) and any(word in _MARKS for word in tokens(name))


def is_mask_folder(name: str) -> bool:
    """Whether the name of a folder says that it holds masks; `no_mask_images` does not."""
    words = frozenset(tokens(name))
    return not words.isdisjoint(_MASK) and words.isdisjoint(_IMAGE)


def has_strong_word(name: str) -> bool:
    """Whether a word marks masks that is no word for a diagnosis or content."""
    return any(word in _MASK for word in tokens(name))


def is_only_mask_words(name: str) -> bool:
    """Whether a name says nothing but that it is a mask: `segmentation`, not `lesion`."""
    return all(word in _MASK for word in tokens(name))


def is_weak_mask_folder(name: str) -> bool:
    """Whether a folder may hold masks, if the names of its files say so too."""
    words = frozenset(tokens(name))
    return not words.isdisjoint(_WEAK) and words.isdisjoint(_IMAGE) and len(words) > 1


def is_split_folder(name: str) -> bool:
    """Whether a folder is one of training, validation or test images."""
    words = tokens(plain_folder(name))
    return bool(words) and all(word in _SPLIT or word in _FILL for word in words)


def is_image_folder(name: str) -> bool:
    """Whether a folder's name says only that it holds images, perhaps of one split."""
    words = [word for word in tokens(name) if not word.isdigit()]
    return any(word in _IMAGE for word in words) and all(
        word in _IMAGE or word in _SPLIT or word in _FILL for word in words
    )


def is_case_name(name: str) -> bool:
    """Whether a file's name says what it is, not which one: `image`, `ct`, `T1`."""
    return all(word in _NOUNS for word in tokens(name))


def core(name: str) -> str:
    """Reduce the name of an image to what distinguishes it from others: `img_007` gives `007`."""
    name = unicodedata.normalize("NFC", name)
    if not _ANY_NOUN.search(name.casefold()):
        return _ENDS.sub("", name).casefold()
    return _without(name, [word not in _NOUNS for word, _, _ in _spans(name)])


def mask_cores(name: str) -> set[str]:
    """List what `core` may give for the image of a mask, by which word marks the mask.

    Args:
        name: `lesion_1_mask` gives `lesion_1` and `1_mask`; `21_manual1` gives `21_1` and `21`, as
            a number at the word may be that of the mask.
    """
    name = unicodedata.normalize("NFC", name)
    spans = _spans(name)
    kept = [word not in _NOUNS for word, _, _ in spans]
    marks = [number for number, (word, _, _) in enumerate(spans) if word in _MARKS]
    cores = {_without(name, [keep and n != mark for n, keep in enumerate(kept)]) for mark in marks}
    numbered = [mark for mark in marks if _is_number_at(spans, mark)]
    others = {
        _without(name, [keep and n not in (mark, mark + 1) for n, keep in enumerate(kept)])
        for mark in numbered
    }
    return cores | (others - {""})


def _is_number_at(spans: Sequence[tuple[str, int, int]], mark: int) -> bool:
    """Whether a number follows a word without anything between them."""
    following = spans[mark + 1 : mark + 2]
    return any(word.isdigit() and begin == spans[mark][2] for word, begin, _ in following)


def _without(name: str, kept: Sequence[bool]) -> str:
    """Join the kept words of a name with the text before each."""
    joined, last = "", 0
    for (word, begin, end), keep in zip(_spans(name), kept, strict=True):
        if keep:
            joined += (name[last:begin] if joined else "") + word
        last = end
    return joined


def nouns(name: str) -> frozenset[str]:
    """Words of a name that say what kind of image it is: image, CT, T1."""
    return _NOUNS & frozenset(tokens(name))


@lru_cache(maxsize=2**12)
def folder_core(name: str, of_masks: bool = False) -> tuple[str, ...]:
    """Reduce the name of a folder, with one word for each split: `labelsTr` gives train.

    Args:
        name: Name of the folder.
        of_masks: Whether it is for masks, so that "lesion" in its name is no diagnosis.
    """
    words = (_SPLIT.get(word, word) for word in tokens(_ENUMERATION.sub("", name)))
    dropped = _MASK | _IMAGE | _FILL | (_WEAK if of_masks else frozenset())
    return tuple(word for word in words if word not in dropped)


def plain_folder(name: str) -> str:
    """Remove the numbering of a folder's name: `1. Microaneurysms` gives Microaneurysms."""
    return _ENUMERATION.sub("", name) or name


def label_core(name: str) -> str:
    """Remove the word for images from a folder's name: `benign_images` gives benign."""
    return _IMAGE_ENDS.sub("", name) or name


def structure_of(rest: str) -> tuple[str, str]:
    """Read what the name of a mask adds to that of its image.

    Args:
        rest: Such as `_mask_2` or `_MA`.

    Returns:
        Words that are no mask words, joined by `_`, and the number at the end.
    """
    number = re.search(r"\d+(?=\)?$)", rest)
    words = [word for word in tokens(rest) if word not in _MARKS]
    if number and words and words[-1] == number[0]:
        words.pop()
    elif number:
        words = [word for word in words if word != number[0]]
    return "_".join(words), number[0] if number else ""


def is_reader(structure: str) -> bool:
    """Whether a structure is who drew it: `rater1`, `expert_b`."""
    words = [word for word in tokens(structure) if len(word) > 1 and not word.isdigit()]
    return bool(words) and all(word in _READERS for word in words)


def marks_mask(rest: str) -> bool:
    """Whether a rest has a mask word and nothing else, but for a number: `_mask`, `-GT 2`."""
    return has_mask_word(rest) and not structure_of(rest)[0]


@lru_cache(maxsize=16)
def suffix_pattern(suffix: str) -> re.Pattern[str]:
    """Make the pattern of the folded name of a mask: a name, the suffix, perhaps a number.

    Args:
        suffix: Such as `_mask`.
    """
    return re.compile(rf"(.+){re.escape(fold(suffix))}(?:[_\-. ]*\(?\d+\)?)?", re.DOTALL)


def prefixes(stem: str) -> list[str]:
    """List the beginnings of a name that end at a boundary of its words, longest first.

    Args:
        stem: A folded name.
    """
    ends = {match.start() for match in re.finditer(r"[^\W\d_]+|\d+|[\W_]", stem)}
    joined = [len(stem) - len(word) for word in _MARKS if stem.endswith(word)]
    return [stem[:end] for end in sorted(ends | set(joined), reverse=True) if end > 0]


def mark(stem: str) -> tuple[str, ...]:
    """List the words of a name that mark it as a mask."""
    return tuple(word for word in tokens(stem) if word in _MARKS)


def numbers_hidden(text: str) -> str:
    """Replace the numbers of a text by N, so that files named alike have one text."""
    return re.sub(r"\d+", "N", text)


def pattern(mask: Path, image: Path) -> str:
    """Describe how a mask is named after its image, such as `masks/NAME_seg_N`.

    Args:
        mask: The mask.
        image: Its image.
    """
    stem = image.stem.removesuffix(".nii")
    name = mask.stem.removesuffix(".nii")
    if stem in name:
        shown = "NAME".join(numbers_hidden(part) for part in name.split(stem, 1))
    else:
        shown = numbers_hidden(name)
    return shown if mask.parent == image.parent else f"{mask.parent.name}/{shown}"

"""Masks drawn from annotations, and the images that they belong to."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

import numpy as np

from dxseg.data.importers.annotations.shapes import AnnotatedImage, Annotations, Shape
from dxseg.data.importers.file_index import FileIndex
from dxseg.data.importers.image_dataset import FoundCase
from dxseg.data.importers.names import fold_name, plain_name, unique_names
from dxseg.data.importers.report import LeftOut
from dxseg.data.readers.images import image_orientation, image_size, is_supported
from dxseg.data.readers.masks import Mask, write_mask
from dxseg.data.readers.orientation import shown_size
from dxseg.data.table.words import Words
from dxseg.errors import DxsegError, UsageError

NAMELESS = "lesion"
"""Mask class of shapes that have no label in their tool."""

_LISTED = 5


@dataclass
class DrawnMasks:
    """Draws the masks of annotated images and counts what becomes of the annotations.

    Attributes:
        root: Folder of the images.
        destination: Folder of the dataset, which may be below it.
        classes: Mask classes, in the order of their values.
        values: Mask value of each label.
        lesion_free: Label of images that are listed without any shape; "" leaves them unlabeled.
        skipped: Images and annotations left out, and why.
    """

    root: Path
    destination: Path
    classes: list[str]
    values: Mapping[str, int]
    lesion_free: str
    skipped: LeftOut = field(default_factory=LeftOut)
    _drawn: Counter[str] = field(default_factory=Counter)
    _incomplete: Counter[str] = field(default_factory=Counter)
    _ignored: Counter[str] = field(default_factory=Counter)
    _names: dict[str, list[str]] = field(default_factory=dict)

    def find(self, images: Sequence[AnnotatedImage]) -> Iterator[tuple[Path, list[AnnotatedImage]]]:
        """Find the file of each image; annotations of one image in several files are merged."""
        index = FileIndex(self.root)
        hits: dict[Path, list[tuple[AnnotatedImage, bool]]] = defaultdict(list)
        for image in images:
            try:
                path, guessed = self._file(image, index)
                hits[path].append((image, guessed))
            except DxsegError as error:
                self.skipped.image(image.name or image.source, str(error))
        owners = {path: kept for path, given in hits.items() if (kept := self._sure(path, given))}
        listed = {path.resolve() for path in owners}
        others = [path for path in self._images() if path.resolve() not in listed]
        if others:
            self._ignored[f"images without annotations ({_listed(others)})"] = len(others)
        yield from owners.items()

    def draw(self, path: Path, given: Sequence[AnnotatedImage], target: Path) -> FoundCase:
        """Write the mask of an image, if its annotations show all of its lesions.

        Args:
            path: The image.
            given: Its annotations.
            target: File of the mask.

        Returns:
            The image with its labels, and its mask if it has one.
        """
        shapes = [shape for image in given for shape in image.shapes]
        chosen = [shape for shape in shapes if self._label(shape) in self.values]
        self._ignored.update(
            f"shapes of label {self._label(shape)!r}, which has no mask class"
            for shape in shapes
            if self._label(shape) not in self.values
        )
        if not shapes:
            self._ignored["images listed without a shape"] += 1
            return FoundCase(path, label=self.lesion_free)
        case = FoundCase(path, label=self._labels(chosen))
        regions = Counter(shape.kind for shape in chosen if shape.fill is None)
        try:
            size = self._size(path, given)
            if regions:
                # A mask without the lesions in boxes would call them background.
                self._incomplete.update(regions)
                self._drawn["images with such shapes"] += 1
            elif (mask := self._fill(chosen, size)).any():
                write_mask(target, mask, len(self.classes))
                case.masks.append(target)
        except DxsegError as error:
            self.skipped.mask(path, f"kept without its mask: {error}")
        return case

    def notes(self) -> list[str]:
        """What was drawn and what was not, as lines of the report."""
        notes = [f"{self._drawn['shapes']} shapes drawn"]
        if self._drawn["without label"]:
            notes.append(
                f"{self._drawn['without label']} shapes have no label; they are {NAMELESS!r}"
            )
        if self._drawn["overlapping"]:
            notes.append(
                f"{self._drawn['overlapping']} images on which mask classes overlap; the later "
                f"of {', '.join(self.classes)} wins"
            )
        if self._incomplete:
            kinds = ", ".join(f"{count} {kind}" for kind, count in self._incomplete.items())
            notes.append(
                f"{kinds} are no masks: {self._drawn['images with such shapes']} images keep "
                "their labels and have no mask"
            )
        notes.extend(f"{count} {what}" for what, count in self._ignored.items())
        return notes

    def _sure(
        self, path: Path, given: Sequence[tuple[AnnotatedImage, bool]]
    ) -> list[AnnotatedImage]:
        """The annotations of a file without those that only a part of its name led to it.

        These stay if no other entry may be of another image: of two names, and of two folders of
        annotations, one may be an absent image's.
        """
        distinct = len({_place(image) for image, _ in given})
        kept = [image for image, guessed in given if not guessed or distinct == 1]
        for image, guessed in given:
            if guessed and distinct > 1:
                self.skipped.image(
                    image.name,
                    f"no such image; {path} has the same base name, but an entry of another name "
                    "or folder is of it; write the path of the file into both, or add the absent "
                    "image",
                )
        return kept

    def _file(self, image: AnnotatedImage, index: FileIndex) -> tuple[Path, bool]:
        """The file of an image, and whether only a part of its name led there."""
        name = image.name.replace("\\", "/")
        parts = PurePosixPath(name).parts
        if not parts:
            raise DxsegError(f"{image.source}: an image without a name")
        beside = Path(os.path.normpath(image.source.parent / name))
        if beside.is_relative_to(self.root) and beside.is_file():
            return beside, False
        if ".." not in parts and not name.startswith("/"):
            found = index.find(name)
            if found.is_file():
                return found, False
        if not self._names:
            for path in self._images():
                self._names.setdefault(path.name, []).append(str(path))
                self._names.setdefault(path.stem, []).append(str(path))
        folders = _parts(name)[:-1]
        candidates = [
            path
            for path in self._names.get(parts[-1], [])
            if _end_alike(folders, Path(path).relative_to(self.root).parts[:-1])
        ]
        if len(candidates) != 1:
            raise DxsegError(
                f"{len(candidates) or 'no'} such images below {self.root}; expected one; give the "
                "folder of the images as --images-root"
            )
        return Path(candidates[0]), True

    def _images(self) -> list[Path]:
        return [
            path
            for base, _, names in os.walk(self.root)
            for path in (Path(base, name) for name in names)
            if is_supported(path) and not path.is_relative_to(self.destination)
        ]

    def _size(self, path: Path, given: Sequence[AnnotatedImage]) -> tuple[int, int]:
        """Height and width that the annotations are for: of the image as shown, or as stored."""
        shown = image_size(path)
        sizes = {image.size for image in given if image.size is not None} or {shown}
        stored = shown_size(*shown, image_orientation(path))
        if len(sizes) > 1 or not sizes <= {shown, stored}:
            listed = ", ".join(f"{height} x {width}" for height, width in sorted(sizes))
            raise DxsegError(
                f"annotated at {listed} pixels, but it has {shown[0]} x {shown[1]}; export the "
                "annotations for this image"
            )
        return sizes.pop()

    def _fill(self, shapes: Sequence[Shape], size: tuple[int, int]) -> Mask:
        mask = np.zeros(size, np.uint8)
        overlap = False
        for shape in shapes:
            assert shape.fill is not None, "draw() has checked"
            value = self.values[self._label(shape)]
            inside = shape.fill(*size)
            if not inside.any():
                self._ignored["shapes that enclose no pixel"] += 1
                continue
            overlap |= bool(np.setdiff1d(mask[inside], (0, value)).size)
            mask[inside] = np.maximum(mask[inside], np.uint8(value))
            self._drawn["shapes"] += 1
            self._drawn["without label"] += not shape.label
        self._drawn["overlapping"] += overlap
        return mask

    def _labels(self, shapes: Sequence[Shape]) -> str:
        present = {self.values[self._label(shape)] for shape in shapes}
        return ";".join(self.classes[value - 1] for value in sorted(present))

    @staticmethod
    def _label(shape: Shape) -> str:
        return shape.label or NAMELESS


def join_labels(found: Annotations, given: Sequence[str]) -> list[str]:
    """Join spellings of a label that differ in case and blanks, as the same tables do.

    Args:
        found: The annotations; their shapes get the spelling that is used.
        given: Labels that are spelled as given.

    Returns:
        What was joined, as lines for the report.
    """
    words = Words("label", given=given)
    spelled = words.spellings(shape.label for image in found.images for shape in image.shapes)
    for image in found.images:
        # A word for nothing is a label here: somebody has drawn the shape.
        image.shapes = [
            replace(shape, label=spelled[shape.label] or shape.label.strip())
            for shape in image.shapes
        ]
    return Words("label", merged=words.merged).notes()


def mask_values(found: Annotations, regions: Mapping[str, str]) -> tuple[list[str], dict[str, int]]:
    """Choose the mask classes.

    Args:
        found: The annotations.
        regions: Mask class of each label that is taken; empty: each label is its own class.

    Returns:
        The classes, and the value of each label.

    Raises:
        UsageError: A label does not occur.
    """
    labels = Counter(shape.label or NAMELESS for image in found.images for shape in image.shapes)
    unknown = sorted(set(regions) - set(labels))
    if unknown:
        raise UsageError(
            f"region {unknown[0]!r}: no shape has that label; labels are "
            f"{', '.join(sorted(labels)[:20]) or 'absent'}"
        )
    chosen = dict(regions) or {label: label for label in sorted(labels)}
    classes = list(dict.fromkeys(chosen.values()))
    return classes, {label: classes.index(name) + 1 for label, name in chosen.items()}


def draw_all(found: Annotations, masks: DrawnMasks) -> Iterator[FoundCase]:
    """Draw the masks of all annotated images into the folder `masks` of the dataset.

    Args:
        found: The annotations.
        masks: Draws them.

    Yields:
        Each image that was found.
    """
    owners = list(masks.find(found.images))
    ids = unique_names(plain_name(path.stem) for path, _ in owners)
    folder = masks.destination / "masks"
    folder.mkdir(exist_ok=True)
    for (path, given), case_id in zip(owners, ids, strict=True):
        case = masks.draw(path, given, folder / f"{case_id}.png")
        case.values["case_id"] = case_id
        yield case


def _parts(name: str) -> list[str]:
    """The folders and the file of a path, without what only leads there."""
    return [part for part in name.replace("\\", "/").split("/") if part not in ("", ".", "..")]


def _place(image: AnnotatedImage) -> str:
    """Where an entry has its image: a name without folders may be meant beside its file."""
    parts = _parts(image.name)
    return fold_name("/".join(parts) if len(parts) > 1 else f"{image.source.parent}/{parts[-1]}")


def _end_alike(folders: Sequence[str], others: Sequence[str]) -> bool:
    """Whether two lists of folders end alike, as far as both go."""
    pairs = zip(reversed(folders), reversed(others), strict=False)
    return all(fold_name(one) == fold_name(other) for one, other in pairs)


def _listed(paths: Sequence[Path]) -> str:
    more = ", ..." if len(paths) > _LISTED else ""
    return ", ".join(path.name for path in sorted(paths)[:_LISTED]) + more

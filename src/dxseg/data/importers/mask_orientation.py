"""Masks of images with an EXIF orientation: drawn on the picture as shown, or on stored pixels.

Annotation tools show the picture turned; scripts often read the stored pixels. For an orientation
that exchanges height and width, the shape of a mask decides. For the others it does not: then
the other masks of the import decide, and without them the picture as shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from dxseg.data.readers.images import image_orientation, image_size
from dxseg.data.readers.masks import Mask
from dxseg.data.readers.orientation import UPRIGHT, as_shown, shown_size
from dxseg.errors import DxsegError

_REMEDY = (
    "if they were drawn on the stored pixels, remove the orientation from the images (such as with "
    "`exiftool -Orientation= -overwrite_original FILE`) and import again"
)


class MaskOrientations:
    """Turns masks that were drawn on stored pixels, and counts what it turned or assumed.

    Attributes:
        images: Number of images with an orientation other than 1.
    """

    def __init__(self, images: Iterable[tuple[Path, Sequence[Path]]]) -> None:
        """Read the orientation of images, and what the shapes of their masks tell.

        Args:
            images: Each image and its masks; files that cannot be read are reported elsewhere.
        """
        self._orientations: dict[Path, int] = {}
        self._on_stored = self._on_shown = False
        self._turned: list[Path] = []
        self._assumed: list[Path] = []
        for image, masks in images:
            with suppress(DxsegError):
                orientation = image_orientation(image)
                if orientation != UPRIGHT:
                    self._orientations[image] = orientation
                    self._compare(image_size(image), orientation, masks)
        self.images = len(self._orientations)

    def _compare(self, shown: tuple[int, int], orientation: int, masks: Sequence[Path]) -> None:
        stored = shown_size(*shown, orientation)
        for mask in masks if stored != shown else ():
            with suppress(DxsegError):
                size = image_size(mask)
                self._on_stored |= size == stored
                self._on_shown |= size == shown

    def as_shown(self, mask: Mask, path: Path, image: Path, shown: tuple[int, int]) -> Mask:
        """Turn a mask as its image is shown, if it was drawn on the stored pixels.

        Args:
            mask: (H, W).
            path: Its file.
            image: File of its image.
            shown: Height and width of the image as it is shown.

        Raises:
            DxsegError: It cannot be decided on what it was drawn.
        """
        orientation = self._orientations.get(image, UPRIGHT)
        stored = shown_size(*shown, orientation)
        if orientation == UPRIGHT or mask.shape != stored:
            return mask
        turned = np.ascontiguousarray(as_shown(mask, orientation))
        if stored == shown:
            if np.array_equal(turned, mask):
                return mask
            if self._on_stored and self._on_shown:
                raise DxsegError(
                    f"{path}: fits its image, of EXIF orientation {orientation}, as shown and as "
                    "stored, and other masks of this import are of both kinds; expected one; "
                    + _REMEDY
                )
            if not self._on_stored:
                self._assumed.append(path)
                return mask
        self._turned.append(path)
        return turned

    @property
    def notes(self) -> list[str]:
        """Lines of the report."""
        notes = []
        if self.images:
            notes.append(
                f"{self.images} images have an EXIF orientation; they are read as viewers show them"
            )
        if self._turned:
            notes.append(
                f"{len(self._turned)} masks drawn on the stored pixels of such images, turned like "
                "them"
            )
        if self._assumed:
            more = ", ..." if len(self._assumed) > 5 else ""
            notes.append(
                f"{len(self._assumed)} masks fit such an image both as shown and as stored; taken "
                f"as drawn on the picture as shown; {_REMEDY}: "
                f"{', '.join(str(path) for path in self._assumed[:5])}{more}"
            )
        return notes

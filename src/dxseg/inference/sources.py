"""Images to predict: files, or functions that return pixels, with their spacing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dxseg.data.geometry import Spacing
from dxseg.data.readers.images import image_spacing, read_image
from dxseg.inference.pipeline import Pixels


@dataclass(frozen=True)
class SpacedImage:
    """An image with its spacing, whatever its file says of it.

    Attributes:
        image: A file, or a function that returns the pixels (H, W, C) of an image that is no file.
        spacing: Height and width of a pixel, mm; None where they are unknown.
    """

    image: Path | Callable[[], Pixels]
    spacing: Spacing | None


Source = Path | Callable[[], Pixels] | SpacedImage
"""Without `SpacedImage`, the spacing is that of the file, if it has one (DICOM)."""


def file_of(source: Source) -> Path | None:
    """Find the file of an image; None if it is none.

    Args:
        source: The image.
    """
    image = source.image if isinstance(source, SpacedImage) else source
    return image if isinstance(image, Path) else None


def read_source(source: Source, *, with_spacing: bool) -> tuple[Pixels, Spacing | None]:
    """Read the pixels and the spacing of an image.

    Args:
        source: The image.
        with_spacing: Whether a file is asked for its spacing.

    Raises:
        DxsegError: Its file cannot be read.
    """
    if isinstance(source, SpacedImage):
        return read_source(source.image, with_spacing=False)[0], source.spacing
    if not isinstance(source, Path):
        return source(), None
    return read_image(source), image_spacing(source) if with_spacing else None

"""The number of image channels of a dataset, and images whose channels are separate files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dxseg.data.readers.images import read_image
from dxseg.data.readers.mask_like import is_mask_like
from dxseg.errors import DxsegError
from dxseg.io.atomic import atomic_path

_SAMPLE = 200
_COLOR_DIFFERENCE = 8
_COLOR_FRACTION = 0.1


def infer_channels(images: Sequence[Path]) -> tuple[int, str]:
    """Infer the number of image channels from up to 200 images, evenly spaced.

    An image of three channels counts as gray where they differ by more than 8 of 255 in at most a
    tenth of its pixels: calipers and labels are often drawn in color on ultrasound.

    Args:
        images: Files; those that cannot be decoded are ignored.

    Returns:
        The number, and a line of text on how it was found, and on images that look like masks.

    Raises:
        DxsegError: The numbers of channels differ, and not only as gray and RGB do.
    """
    step = max(1, -(-len(images) // _SAMPLE))
    found: Counter[int] = Counter()
    marked = 0
    like_masks: list[str] = []
    for path in images[::step]:
        try:
            pixels = read_image(path)
        except DxsegError:
            continue
        if is_mask_like(pixels):
            like_masks.append(path.name)
        fraction = _color_fraction(pixels)
        found[1 if pixels.shape[2] == 3 and fraction <= _COLOR_FRACTION else pixels.shape[2]] += 1
        marked += 0 < fraction <= _COLOR_FRACTION
    if set(found) - {1, 3} and len(found) > 1:
        counts = ", ".join(f"{number} in {count}" for number, count in sorted(found.items()))
        raise DxsegError(
            f"the images differ in channels ({counts} images); import them as separate datasets"
        )
    channels = max(found, default=1)
    examined = f"of {sum(found.values())} images examined"
    text = f"channels: {channels} ({found[1]} {examined} are gray"
    text += f", {marked} of them with colored marks)" if marked else ")"
    if like_masks:
        shown = ", ".join(like_masks[:5]) + (", ..." if len(like_masks) > 5 else "")
        text += f"; WARNING: {len(like_masks)} {examined} look like masks: {shown}"
    return channels, text


def stack_channels(paths: Sequence[Path], target: Path) -> None:
    """Write an image whose channels are separate files as one TIFF, without loss.

    Args:
        paths: Gray images of one size and type, in the order of the channels.
        target: The TIFF, replaced atomically.

    Raises:
        DxsegError: A file cannot be read or has several channels, or sizes or types differ.
    """
    import tifffile

    planes = [read_image(path) for path in paths]
    for path, plane in zip(paths, planes, strict=True):
        if plane.shape != (*planes[0].shape[:2], 1) or plane.dtype != planes[0].dtype:
            raise DxsegError(
                f"{path}: {plane.shape} {plane.dtype} (height, width, channels); expected one gray "
                f"channel of the size and type of {paths[0].name}: {planes[0].shape} "
                f"{planes[0].dtype}; export all channels in the same way"
            )
    with atomic_path(target, flush=False) as temporary:
        tifffile.imwrite(
            temporary,
            np.concatenate(planes, axis=2),
            photometric="minisblack",
            planarconfig="contig",
            compression="zlib",
        )


def _color_fraction(pixels: npt.NDArray[Any]) -> float:
    if pixels.shape[2] != 3:
        return 0.0
    scale = 1 if pixels.dtype == np.uint8 else 257
    spread = pixels.max(axis=2).astype(np.int64) - pixels.min(axis=2)
    return float((spread > _COLOR_DIFFERENCE * scale).mean())

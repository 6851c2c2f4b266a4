"""Reading and writing masks: the rules for the content of a mask file.

The rules are our own: libraries read numbers, and what a mask of 0 and 200, of soft edges or of a
color palette means is where silent errors of segmentation datasets come from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dxseg.data.readers.images import decode
from dxseg.data.readers.raster import MERGED_TAG, Raster
from dxseg.errors import DxsegError
from dxseg.io.atomic import atomic_path
from dxseg.io.remote import as_path

Mask = npt.NDArray[np.uint8]
# A mask's channels may differ by this much (of 255): lossy compression.
_CHANNEL_TOLERANCE = 8
_MIXED_FRACTION = 0.05
_MIXED_BLOCK = 5


@dataclass(frozen=True)
class MaskReading:
    """A mask and how its file was interpreted.

    Attributes:
        mask: (H, W) uint8 label map, 0 is background.
        repair: Interpretation beyond plain numbers, such as "in-between values along edges, cut at
            half"; empty for a plain mask.
        layout: Storage of the pixels if it is not one gray value each: "RGB", "transparency",
            "palette"; empty for gray.
        merged_count: Number of masks that an importer merged into this one.
    """

    mask: Mask
    repair: str = ""
    layout: str = ""
    merged_count: int = 1


def read_mask(path: str | Path, classes: int) -> Mask:
    """Read a mask as a label map; the rules are those of `inspect_mask`.

    Args:
        path: The file.
        classes: Number of mask classes, without background.

    Returns:
        (H, W) uint8, values 0 to `classes`.

    Raises:
        DxsegError: The mask is ambiguous.
    """
    return inspect_mask(path, classes).mask


def inspect_mask(path: str | Path, classes: int) -> MaskReading:
    """Read a mask and report how its file was interpreted.

    Values 0 to `classes` are labels. With one class, a mask may also range from 0 to a maximum of
    at least half the range (128 of 255): values of at least half the maximum are then lesion.
    Values between 10% and 90% of the maximum must look like anti-aliased or compressed edges: at
    most 5% of the pixels and no block of 5 x 5; values below 10%, as JPEG makes them around edges,
    no such block of one value. Soft maps and gray-coded regions are errors. A palette whose used
    colors are gray is read by color, any other by position (0 is black).

    Args:
        path: The file.
        classes: Number of mask classes, without background.

    Raises:
        DxsegError: The file is damaged; channels differ (a color mask); it is drawn in the
            transparency; it has values above `classes` or in-between values that are not edges.
    """
    raster = decode(path)
    reading = _parse_mask(raster, as_path(path), classes)
    return replace(reading, layout=_layout(raster), merged_count=raster.merged_count)


def read_masks_merged(paths: Sequence[str | Path], classes: int) -> Mask:
    """Read several masks of one image and merge them.

    Args:
        paths: At least one file.
        classes: Number of mask classes, without background.

    Returns:
        (H, W) uint8; where masks overlap the highest class wins, which is OR for one class.

    Raises:
        DxsegError: A mask cannot be read, or the sizes differ.
    """
    masks = [read_mask(path, classes) for path in paths]
    for path, mask in zip(paths, masks, strict=True):
        if mask.shape != masks[0].shape:
            raise DxsegError(
                f"{path}: {mask.shape[0]} x {mask.shape[1]} pixels, but {paths[0]} of the same "
                f"image has {masks[0].shape[0]} x {masks[0].shape[1]}; expected equal sizes"
            )
    merged: Mask = np.maximum.reduce(masks)
    return merged


def _layout(raster: Raster) -> str:
    if raster.indices is not None:
        return "palette"
    names = ["RGB"] if raster.pixels.shape[2] == 3 else []
    return " and ".join([*names, *(["transparency"] if raster.alpha is not None else [])])


def _parse_mask(raster: Raster, path: Path, classes: int) -> MaskReading:
    gray = gray_values(raster, path)
    # Gray levels of 1, 2 and 4 bit images were scaled to 0 to 255 in decoding.
    if gray is not None and gray.max(initial=0) // raster.step <= classes:
        return MaskReading((gray // raster.step).astype(np.uint8))
    indices = raster.indices
    by_position = indices is not None and _black_first(raster) and (gray is None or classes > 1)
    if indices is not None and by_position and indices.max(initial=0) <= classes:
        return MaskReading(indices.astype(np.uint8), "palette read by position")
    if gray is not None and classes == 1:
        return _one_class(gray, path)
    values: npt.NDArray[Any] = raster.pixels if indices is None else indices
    raise DxsegError(
        f"{path}: mask values {_listed(values)}; expected 0 to {classes} for {classes} mask "
        "class(es); write the class number into each pixel; `dxseg import` takes --mask-class "
        "VALUE=CLASS for each value"
    )


def gray_values(raster: Raster, path: Path) -> npt.NDArray[Any] | None:
    """Return (H, W) gray values, or None where a palette has colors.

    Args:
        raster: A decoded mask.
        path: The file named in errors.

    Raises:
        DxsegError: Its channels differ, or it is drawn in the transparency.
    """
    pixels = raster.pixels
    if raster.indices is not None and raster.palette is not None:
        colors = raster.palette[np.unique(raster.indices)]
        if (colors == colors[:, :1]).all():
            gray: npt.NDArray[Any] = raster.palette[raster.indices][:, :, 0]
            return gray
        if _black_first(raster):
            return None
    spread = pixels.max(axis=2).astype(np.int64) - pixels.min(axis=2)
    scale = 1 if pixels.dtype == np.uint8 else 257
    if spread.max(initial=0) > _CHANNEL_TOLERANCE * scale:
        raise DxsegError(
            f"{path}: a color mask (channels differ at {int((spread > 0).sum())} pixels), colors "
            f"{_colors(pixels)}; expected one gray value per pixel; `dxseg import` takes "
            "--mask-color '#RRGGBB=CLASS' for each color"
        )
    alpha = raster.alpha
    if alpha is not None and pixels.min() == pixels.max() and alpha.min() != alpha.max():
        raise DxsegError(
            f"{path}: the mask is drawn in the transparency only; expected it in the pixel values; "
            "flatten the image onto black"
        )
    middle: npt.NDArray[Any] = np.sort(pixels, axis=2)[:, :, pixels.shape[2] // 2]
    return middle


def _colors(pixels: npt.NDArray[Any]) -> str:
    """The most frequent colors of an image (H, W, C), but for black."""
    found, counts = np.unique(pixels.reshape(-1, pixels.shape[2]), axis=0, return_counts=True)
    order = [index for index in np.argsort(-counts) if found[index].any()][:3]
    scale = 1 if pixels.dtype == np.uint8 else 257
    shown = [bytes(int(part) // scale for part in found[index]).hex() for index in order]
    return ", ".join(f"#{color}" for color in shown)


def _black_first(raster: Raster) -> bool:
    return raster.palette is not None and not raster.palette[0].any()


def _one_class(values: npt.NDArray[Any], path: Path) -> MaskReading:
    highest = int(values.max())
    full = 255 if highest <= 255 else 65535
    if 2 * highest <= full:
        raise DxsegError(
            f"{path}: mask values {_listed(values)}; expected 0 and 1, or 0 and {full}, for one "
            "mask class; write those; `dxseg import` takes --mask-class VALUE=CLASS for each value"
        )
    if not ((values == 0) | (values == highest)).all():
        _check_edges(values, highest, path)
        mask = (2 * values.astype(np.int64) >= highest).astype(np.uint8)
        return MaskReading(mask, "in-between values along edges, cut at half")
    return MaskReading((values > 0).astype(np.uint8))


def _check_edges(values: npt.NDArray[Any], highest: int, path: Path) -> None:
    from scipy.ndimage import maximum_filter, minimum_filter

    mixed = (values > 0.1 * highest) & (values < 0.9 * highest)
    lowest = minimum_filter(values, _MIXED_BLOCK)
    # JPEG ringing varies from pixel to pixel; a flat region of faint values is a label.
    flat = (lowest > 0) & (lowest <= 0.1 * highest)
    flat &= lowest == maximum_filter(values, _MIXED_BLOCK)
    fraction = float(mixed.mean())
    wide = minimum_filter(mixed, _MIXED_BLOCK, mode="constant").any()
    if fraction > _MIXED_FRACTION or wide or flat.any():
        raise DxsegError(
            f"{path}: {fraction:.1%} of the pixels are between background and lesion, values "
            f"{_listed(values)}; expected two values, and others only along edges; threshold "
            "it; `dxseg import` takes --mask-class VALUE=CLASS for gray levels"
        )


def _listed(values: npt.NDArray[Any]) -> str:
    distinct = np.unique(values)
    shown = ", ".join(str(int(value)) for value in distinct[:6])
    return shown if len(distinct) <= 6 else f"{shown}, ... {int(distinct[-1])}"


def write_mask(path: Path, mask: Mask, classes: int, *, merged_count: int = 1) -> None:
    """Write a mask as a plain gray PNG.

    Args:
        path: The file, replaced atomically.
        mask: (H, W) label map, 0 to `classes`.
        classes: Number of mask classes; a single class is written as 0 and 255.
        merged_count: Number of masks that were merged into this one; kept in the file as PNG text.
    """
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    text = PngInfo()
    if merged_count > 1:
        text.add_text(MERGED_TAG, str(merged_count))
    with atomic_path(path) as temporary:
        Image.fromarray(mask * np.uint8(255) if classes == 1 else mask).save(
            temporary, pnginfo=text
        )

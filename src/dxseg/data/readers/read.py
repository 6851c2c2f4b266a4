"""Reading images and masks: one registry of formats, and the rules of what a mask may be."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dxseg.data.readers.dicom.image import decode_dicom, dicom_size
from dxseg.data.readers.dicom.objects import is_dicom
from dxseg.data.readers.raster import Pixels, Raster, decode_raster, raster_size
from dxseg.errors import DxsegError

Mask = npt.NDArray[np.uint8]

# ITU-R BT.601, the weights behind most "convert to grey".
_LUMINANCE = np.array([0.299, 0.587, 0.114])
# A mask's channels may differ by this much (of 255): lossy compression.
_CHANNEL_TOLERANCE = 8
_MIXED_SHARE = 0.05
_MIXED_BLOCK = 5


@dataclass(frozen=True)
class Reader:
    """How files of one suffix are read.

    Attributes:
        decode: Gives the pixels of a file.
        size: Gives (height, width) without decoding the pixels.
    """

    decode: Callable[[Path], Raster]
    size: Callable[[Path], tuple[int, int]]


_RASTER = Reader(decode_raster, raster_size)
_DICOM = Reader(decode_dicom, dicom_size)

READERS: dict[str, Reader] = {
    **dict.fromkeys((".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"), _RASTER),
    ".dcm": _DICOM,
}
"""The reader of each suffix, in lower case. Another format is one more entry."""


@dataclass(frozen=True)
class MaskReading:
    """A mask and how it had to be understood.

    Attributes:
        mask: (H, W) uint8 label map, 0 is background.
        repair: What was done beyond reading numbers, such as "anti-aliased edges, cut at half";
            empty for a plain mask.
        layout: How the pixels are stored where that is not one grey value each: "RGB",
            "transparency", "palette"; empty for grey.
        united: Of how many masks an importer made this one.
    """

    mask: Mask
    repair: str = ""
    layout: str = ""
    united: int = 1


def is_supported(path: str | Path) -> bool:
    """Tell whether a file's suffix has a reader."""
    return Path(path).suffix.lower() in READERS


def read_image(path: str | Path) -> Pixels:
    """Read an image with all its channels.

    PNG, JPEG, TIFF and BMP; grey, colour, palette, 1 to 16 bit. Transparency is dropped. A TIFF may
    have any number of channels, interleaved, planar or one a page. DICOM of one frame, as it is
    meant to be seen (`decode_dicom`); recognised without a suffix too.

    Args:
        path: The file.

    Returns:
        (H, W, C) uint8 or uint16; 1-bit images hold 0 and 255.

    Raises:
        DxsegError: The file is absent, empty, damaged, of an unknown kind or too large.
    """
    return np.ascontiguousarray(_reader(path).decode(Path(path)).pixels)


def image_size(path: str | Path) -> tuple[int, int]:
    """Read (height, width) in pixels from an image's header.

    Args:
        path: The file.

    Raises:
        DxsegError: As `read_image`, as far as the header shows it.
    """
    return _reader(path).size(Path(path))


def to_channels(array: Pixels, channels: int) -> Pixels:
    """Give an image the number of channels a model expects.

    Grey is repeated into RGB; RGB becomes grey by luminance (ITU-R BT.601), so that an RGB file of
    equal channels gives exactly its grey values.

    Args:
        array: (H, W, C) uint8 or uint16.
        channels: The number wanted.

    Returns:
        (H, W, channels) of the same type.

    Raises:
        DxsegError: Any other change of the number of channels.
    """
    given = array.shape[2]
    if given == channels:
        return array
    if (given, channels) == (1, 3):
        repeated: Pixels = np.repeat(array, 3, axis=2)
        return repeated
    if (given, channels) == (3, 1):
        grey: Pixels = np.rint(array @ _LUMINANCE).astype(array.dtype)[:, :, None]
        return grey
    raise DxsegError(
        f"an image has {given} channel(s), expected {channels}; only grey and RGB turn into each "
        "other; correct channels in dataset.yaml or export the image again"
    )


def read_mask(path: str | Path, classes: int) -> Mask:
    """Read a mask as a label map; the rules are those of `inspect_mask`.

    Args:
        path: The file.
        classes: The number of mask classes, background not counted.

    Returns:
        (H, W) uint8, values 0 to `classes`.

    Raises:
        DxsegError: The mask cannot be understood without guessing.
    """
    return inspect_mask(path, classes).mask


def inspect_mask(path: str | Path, classes: int) -> MaskReading:
    """Read a mask and tell whether it had to be repaired.

    Values 0 to `classes` are labels. With one class, a mask may also reach from 0 to a maximum of
    at least half the range (128 of 255): then values of at least half the maximum are lesion. What
    lies between 10% and 90% of the maximum must look like anti-aliased or compressed edges: at most
    5% of the pixels and nowhere a block of 5 x 5; values below 10%, as JPEG leaves them around
    edges, nowhere such a block of one value. Soft maps and grey-coded regions are refused.
    A palette whose used colours are grey is read by colour, any other by position (0 is black).

    Args:
        path: The file.
        classes: The number of mask classes, background not counted.

    Raises:
        DxsegError: The file is damaged; channels differ (a colour mask); it is drawn in the
            transparency; it has values above `classes` or in-between values that are no edges.
    """
    raster = _reader(path).decode(Path(path))
    reading = _understand(raster, Path(path), classes)
    return replace(reading, layout=_layout(raster), united=raster.united)


def read_masks_merged(paths: Sequence[str | Path], classes: int) -> Mask:
    """Read several masks of one image and unite them.

    Args:
        paths: At least one file.
        classes: The number of mask classes, background not counted.

    Returns:
        (H, W) uint8; where masks overlap the highest class wins, which for one class is OR.

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


def _reader(path: str | Path) -> Reader:
    suffix = Path(path).suffix.lower()
    if suffix not in READERS:
        # PACS export files whose names are a UID or a number.
        if is_dicom(Path(path)):
            return _DICOM
        raise DxsegError(
            f"{path}: unknown type {suffix or 'without a suffix'}; expected {', '.join(READERS)}"
        )
    return READERS[suffix]


def _layout(raster: Raster) -> str:
    if raster.indices is not None:
        return "palette"
    names = ["RGB"] if raster.pixels.shape[2] == 3 else []
    return " and ".join([*names, *(["transparency"] if raster.alpha is not None else [])])


def _understand(raster: Raster, path: Path, classes: int) -> MaskReading:
    grey = _grey_values(raster, path)
    # Grey levels of 1, 2 and 4 bit images were spread over 0 to 255 in decoding.
    if grey is not None and grey.max(initial=0) // raster.step <= classes:
        return MaskReading((grey // raster.step).astype(np.uint8))
    indices = raster.indices
    by_position = indices is not None and _black_first(raster) and (grey is None or classes > 1)
    if indices is not None and by_position and indices.max(initial=0) <= classes:
        return MaskReading(indices.astype(np.uint8), "palette read by position")
    if grey is not None and classes == 1:
        return _one_class(grey, path)
    values: npt.NDArray[Any] = raster.pixels if indices is None else indices
    raise DxsegError(
        f"{path}: mask values {_listed(values)}; expected 0 to {classes} for {classes} mask "
        "class(es); write the class number into each pixel, or list more mask_classes"
    )


def _grey_values(raster: Raster, path: Path) -> npt.NDArray[Any] | None:
    """Give (H, W) grey values, or None where a palette holds colours."""
    pixels = raster.pixels
    if raster.indices is not None and raster.palette is not None:
        colours = raster.palette[np.unique(raster.indices)]
        if (colours == colours[:, :1]).all():
            grey: npt.NDArray[Any] = raster.palette[raster.indices][:, :, 0]
            return grey
        if _black_first(raster):
            return None
    spread = pixels.max(axis=2).astype(np.int64) - pixels.min(axis=2)
    scale = 1 if pixels.dtype == np.uint8 else 257
    if spread.max(initial=0) > _CHANNEL_TOLERANCE * scale:
        raise DxsegError(
            f"{path}: a colour mask (channels differ at {int((spread > 0).sum())} pixels); "
            "expected one grey value a pixel; write 0 and 255, or class numbers"
        )
    alpha = raster.alpha
    if alpha is not None and pixels.min() == pixels.max() and alpha.min() != alpha.max():
        raise DxsegError(
            f"{path}: the mask is drawn in the transparency only; expected it in the pixel values; "
            "flatten the image onto black"
        )
    middle: npt.NDArray[Any] = np.sort(pixels, axis=2)[:, :, pixels.shape[2] // 2]
    return middle


def _black_first(raster: Raster) -> bool:
    return raster.palette is not None and not raster.palette[0].any()


def _one_class(values: npt.NDArray[Any], path: Path) -> MaskReading:
    highest = int(values.max())
    full = 255 if highest <= 255 else 65535
    if 2 * highest <= full:
        raise DxsegError(
            f"{path}: mask values {_listed(values)}; expected 0 and 1, or 0 and {full}, for one "
            "mask class; write those, or list more mask_classes"
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
    # JPEG's ringing varies from pixel to pixel; a flat region of faint values is a label.
    flat = (lowest > 0) & (lowest <= 0.1 * highest)
    flat &= lowest == maximum_filter(values, _MIXED_BLOCK)
    share = float(mixed.mean())
    wide = minimum_filter(mixed, _MIXED_BLOCK, mode="constant").any()
    if share > _MIXED_SHARE or wide or flat.any():
        raise DxsegError(
            f"{path}: {share:.1%} of the mask's pixels lie between background and lesion, values "
            f"{_listed(values)}; expected two values, in-between ones only along edges; threshold "
            "it, or list its grey levels as mask_classes"
        )


def _listed(values: npt.NDArray[Any]) -> str:
    distinct = np.unique(values)
    shown = ", ".join(str(int(value)) for value in distinct[:6])
    return shown if len(distinct) <= 6 else f"{shown}, ... {int(distinct[-1])}"

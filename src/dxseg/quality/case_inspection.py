"""Inspection of one case's files, in worker processes; therefore without heavy imports."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel

from dxseg.data.geometry import Zoom, attainable_by_lesion
from dxseg.data.readers.images import decode, read_image, to_channels
from dxseg.data.readers.masks import inspect_mask
from dxseg.data.readers.orientation import UPRIGHT
from dxseg.data.readers.raster import Pixels, raster_kind
from dxseg.data.splits.perceptual_hash import BYTES, gray_image, hash_gray
from dxseg.errors import DxsegError
from dxseg.io.atomic import sha256_file

BORDER_SIDE, BORDER_WIDTH = 64, 8
BORDER_PIXELS = BORDER_SIDE**2 - (BORDER_SIDE - 2 * BORDER_WIDTH) ** 2

FORMAT = "check 5"
"""Part of every cache key: increase it when an inspection would find something else."""

_VALUES_AT_ONCE = 1 << 22
_KINDS = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".tif": "tiff", ".tiff": "tiff"} | {
    ".bmp": "bmp"
}


@dataclass(frozen=True)
class CaseFiles:
    """The files of a case.

    Attributes:
        image: Image file.
        mask: Mask file; None if there is none.
        channels: Number of channels of the dataset.
        classes: Number of mask classes.
        lesions: Mask values of lesions.
        image_size: Side of the square for which the loss of detail is measured, pixels.
        zoom: That brings the image to the spacing at which it is measured, if there is one.
    """

    image: Path
    mask: Path | None
    channels: int
    classes: int
    lesions: tuple[int, ...]
    image_size: int
    zoom: Zoom | None


class CaseFacts(BaseModel):
    """Facts about a case's files; zeros where a file cannot be read.

    Attributes:
        image_code: Code of the image's finding; "" for none.
        image_problem: The same as text.
        height: Pixels.
        width: Pixels.
        channels: Number of channels of the file.
        bits: 8 or 16.
        orientation: EXIF orientation of the file, 1 to 8; height and width are as viewers show it.
        sha256: Digest of the image file.
        actual_format: Format of the file if its suffix does not match; else "".
        minimum: Lowest value, 0 to 1 of the range of the bit depth, over all channels.
        maximum: Highest value, likewise.
        mean: Mean value, likewise.
        deviation: Standard deviation, likewise.
        darkest_fraction: Fraction of values that are the lowest.
        brightest_fraction: Fraction of values that are the highest.
        mask_code: Code of the mask's finding; "" for none.
        mask_problem: The same as text.
        mask_area: Number of lesion pixels.
        mask_attainable: Lowest Dice of a lesion that a perfect network could reach at the input
            size; 1 without a lesion.
        mask_sides: Number of sides of the image that the lesion touches.
        mask_repair: How the mask was converted; "" for a plain one.
        mask_layout: As in `MaskReading`.
        mask_merged: As in `MaskReading`.
    """

    image_code: str = ""
    image_problem: str = ""
    height: int = 0
    width: int = 0
    channels: int = 0
    bits: int = 0
    orientation: int = 1
    sha256: str = ""
    actual_format: str = ""
    minimum: float = 0.0
    maximum: float = 0.0
    mean: float = 0.0
    deviation: float = 0.0
    darkest_fraction: float = 0.0
    brightest_fraction: float = 0.0
    mask_code: str = ""
    mask_problem: str = ""
    mask_area: int = 0
    mask_attainable: float = 1.0
    mask_sides: int = 0
    mask_repair: str = ""
    mask_layout: str = ""
    mask_merged: int = 1


def inspect_case(files: CaseFiles) -> bytes:
    """Inspect a case.

    Args:
        files: Its files.

    Returns:
        The perceptual hash and thumbnail (`BYTES`), the border strip (`BORDER_PIXELS`) and the
        facts as JSON. The first two are zeros if the image cannot be read.
    """
    facts = CaseFacts()
    arrays = bytes(BYTES + BORDER_PIXELS)
    try:
        facts.sha256 = sha256_file(files.image)
        raster = decode(files.image)
        pixels, facts.orientation = raster.pixels, raster.orientation
        _measure_image(pixels, facts)
        gray = gray_image(pixels)
        arrays = hash_gray(gray) + border_strip(gray).tobytes()
        facts.image_code = "image-channels"
        to_channels(pixels[:1, :1], files.channels)
        facts.image_code = ""
        facts.actual_format = _actual_format(files.image)
    except (DxsegError, OSError) as error:
        facts.image_code = facts.image_code or "image-unreadable"
        named = "" if str(files.image) in str(error) else f"{files.image}: "
        facts.image_problem = f"{named}{error}"
    if files.mask is not None:
        _measure_mask(files.mask, files, facts)
    return arrays + facts.model_dump_json().encode()


def unpack(record: bytes) -> tuple[bytes, NDArray[np.uint8], CaseFacts]:
    """Split a result of `inspect_case` into hash and thumbnail, border strip (1792,), and facts."""
    strip = np.frombuffer(record, np.uint8, BORDER_PIXELS, BYTES)
    return record[:BYTES], strip, CaseFacts.model_validate_json(record[BYTES + BORDER_PIXELS :])


def border_strip(gray: Image.Image) -> NDArray[np.uint8]:
    """Reduce an image to 64x64 and keep the outer 8 pixels of it, shape (1792,)."""
    size = (BORDER_SIDE, BORDER_SIDE)
    small = np.asarray(gray.resize(size, Image.Resampling.BILINEAR), np.uint8)
    outside = np.ones(size, np.bool_)
    outside[BORDER_WIDTH:-BORDER_WIDTH, BORDER_WIDTH:-BORDER_WIDTH] = False
    return small[outside]


def _measure_image(pixels: Pixels, facts: CaseFacts) -> None:
    facts.height, facts.width, facts.channels = pixels.shape
    facts.bits = 8 * pixels.dtype.itemsize
    levels = 2**facts.bits
    counts = np.zeros(levels, np.int64)
    for values in _blocks(pixels):
        counts += np.bincount(values, minlength=levels)
    present = np.flatnonzero(counts)
    scale, fractions = np.linspace(0, 1, levels), counts / counts.sum()
    facts.minimum, facts.maximum = float(scale[present[0]]), float(scale[present[-1]])
    facts.mean = float(scale @ fractions)
    facts.deviation = float(np.sqrt((scale - facts.mean) ** 2 @ fractions))
    facts.darkest_fraction = float(fractions[present[0]])
    facts.brightest_fraction = float(fractions[present[-1]])


def _blocks(pixels: Pixels) -> Iterator[Pixels]:
    # In blocks: counting needs eight bytes per value.
    flat = pixels.reshape(-1)
    for start in range(0, len(flat), _VALUES_AT_ONCE):
        yield flat[start : start + _VALUES_AT_ONCE]


def _actual_format(path: Path) -> str:
    expected = _KINDS.get(path.suffix.lower())
    kind = raster_kind(path) if expected else expected
    return kind or "" if kind != expected else ""


def _measure_mask(path: Path, files: CaseFiles, facts: CaseFacts) -> None:
    try:
        reading = inspect_mask(path, files.classes)
    except DxsegError as error:
        facts.mask_code, facts.mask_problem = _mask_error_code(path), str(error)
        return
    mask = reading.mask
    facts.mask_repair, facts.mask_layout = reading.repair, reading.layout
    facts.mask_merged = reading.merged_count
    facts.mask_area = int(np.count_nonzero(mask))
    lesions = np.isin(mask, files.lesions)
    if lesions.any():
        _, dice = attainable_by_lesion(lesions, files.image_size, files.zoom)
        facts.mask_attainable = float(dice.min())
    facts.mask_sides = sum(
        bool(side.any()) for side in (mask[0], mask[-1], mask[:, 0], mask[:, -1])
    )
    if facts.height and mask.shape != (facts.height, facts.width):
        facts.mask_code = "mask-size"
        facts.mask_problem = (
            f"{path}: {mask.shape[0]} x {mask.shape[1]} pixels, but its image has {facts.height} x "
            f"{facts.width}"
        )
        if facts.orientation != UPRIGHT:
            facts.mask_problem += f" as it is shown (EXIF orientation {facts.orientation})"


def _mask_error_code(path: Path) -> str:
    try:
        read_image(path)
    except DxsegError:
        return "mask-unreadable"
    return "mask-refused"

"""Bits and padding of stored values, which decoders leave to their caller."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dxseg.data.readers.dicom.elements import read_int, read_text
from dxseg.data.readers.dicom.objects import PixelLayout

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_AIR = -1024
"""Hounsfield units; nothing that was scanned is below, only what fills the picture around it."""


def describes_its_bits(layout: PixelLayout) -> bool:
    """Whether the pixels are a codestream such as JPEG, whose samples have no unused bits."""
    from pydicom.uid import UID, RLELossless

    syntax = UID(layout.syntax)
    return not syntax.is_private and syntax.is_encapsulated and syntax != RLELossless


def used_bits(raw: npt.NDArray[Any], layout: PixelLayout) -> npt.NDArray[Any]:
    """Take the bits of samples that BitsStored and HighBit name; others may hold anything.

    Args:
        raw: Samples with all their bits.
        layout: Their layout.
    """
    bits = 8 * raw.dtype.itemsize
    if layout.bits_stored == bits or describes_its_bits(layout):
        return raw
    # Up and down again: what is above HighBit falls out, and the sign is extended.
    raised = np.left_shift(raw, bits - 1 - layout.high_bit)
    used: npt.NDArray[Any] = np.right_shift(raised, bits - layout.bits_stored)
    return used


def find_padding(
    raw: npt.NDArray[Any], ds: Dataset, layout: PixelLayout, path: Path
) -> npt.NDArray[np.bool_] | None:
    """Find pixels that fill the picture outside what was scanned (PS3.3 C.7.5.1.1.2).

    Args:
        raw: Gray samples with all their bits: padding often uses more than BitsStored.
        ds: The object, with PixelPaddingValue and perhaps PixelPaddingRangeLimit.
        layout: Layout of the samples.
        path: The file named in errors.

    Returns:
        Where they are; None if the object declares none.

    Raises:
        DxsegError: The elements are damaged.
    """
    if ds.get("PixelPaddingValue") in (None, ""):
        return None
    value = _wrapped(read_int(ds, "PixelPaddingValue", path, 0), layout)
    limit = _wrapped(read_int(ds, "PixelPaddingRangeLimit", path, value), layout)
    inside: npt.NDArray[np.bool_] = (raw >= min(value, limit)) & (raw <= max(value, limit))
    return inside


def without_padding(
    measured: npt.NDArray[np.float64], padding: npt.NDArray[np.bool_] | None, ds: Dataset
) -> npt.NDArray[np.float64]:
    """Replace padding by NaN; in CT also whatever is below -1024 HU.

    Args:
        measured: A frame after rescaling.
        padding: From `find_padding`.
        ds: The object.
    """
    outside = padding
    if read_text(ds, "Modality") == "CT":
        below = measured < _AIR
        outside = below if padding is None else padding | below
    if outside is None or not outside.any():
        return measured
    return np.where(outside, np.nan, measured)


def _wrapped(value: int, layout: PixelLayout) -> int:
    """The value as samples have it: many files write 63536 for -2000, or the reverse."""
    span = 1 << layout.bits_allocated
    value %= span
    return value - span if layout.signed and value >= span // 2 else value

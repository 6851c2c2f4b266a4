"""Values of deep images for the page, so that window and level can change there."""

from __future__ import annotations

import base64
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from dxseg.data.readers.dicom.image import measured_image
from dxseg.data.readers.dicom.objects import is_dicom
from dxseg.data.readers.raster import Pixels

_TOP = 2**16 - 1


class StoredValues(BaseModel):
    """Gray values of more than 8 bit: slope x number + intercept."""

    deflated: str = Field(
        description="16-bit little-endian numbers by rows, zlib-compressed, in base64."
    )
    slope: float
    intercept: float
    unit: str = Field(description='HU for CT, else "".')
    window: tuple[float, float] | None = Field(
        description="Lowest and highest value as the file asks for; null without."
    )


def stored_values(path: Path, image: Pixels) -> StoredValues | None:
    """Read the values of a gray image of more than 8 bit.

    Args:
        path: The image.
        image: As it was decoded for the network, (H, W, C).

    Returns:
        The values; None for an image of 8 bit or in color, or one that is shown inverted.
    """
    if image.dtype != np.uint16 or image.shape[2] != 1:
        return None
    if not is_dicom(path):
        low, high = np.percentile(image, (0.5, 99.5))
        return pack_values(image[:, :, 0].astype(np.float64), "", (float(low), float(high)))
    measured = measured_image(path)
    return (
        None if measured is None else pack_values(measured.values, measured.unit, measured.window)
    )


def pack_values(
    values: NDArray[np.float64], unit: str, window: tuple[float, float] | None
) -> StoredValues:
    """Pack gray values as 16-bit numbers.

    Args:
        values: (H, W), finite.
        unit: "HU" for CT, else "".
        window: Lowest and highest value to show first; None for all.
    """
    low, high = float(values.min()), float(values.max())
    whole = high - low <= _TOP and bool((values == np.rint(values)).all())
    slope = 1.0 if whole else max((high - low) / _TOP, np.finfo(np.float64).tiny)
    numbers: NDArray[Any] = np.rint((values - low) / slope).astype("<u2")
    return StoredValues(
        deflated=base64.b64encode(zlib.compress(numbers.tobytes(), 1)).decode("ascii"),
        slope=slope,
        intercept=low,
        unit=unit,
        window=window,
    )

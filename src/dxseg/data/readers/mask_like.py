"""Whether pixels look like a mask: black, and one other value or a few flat ones.

A guess for questions to the user, never a rule for reading: that is `dxseg.data.readers.masks`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dxseg.data.readers.images import decode
from dxseg.errors import DxsegError

_FEW_VALUES = 12
_EXTREME = 0.12
_MAX_BETWEEN = 0.08
_SAMPLE = 2**16


def is_mask_like(pixels: npt.NDArray[Any]) -> bool:
    """Whether an image has background 0 and at most 11 other values, or nearly two values.

    Lossy compression and soft edges add values between two extremes; those are fewer than the
    pixels of the lesion. An image of one value is mask-like if that is 0. One with values below 0
    is, if it has 2 to 12 values.

    Args:
        pixels: (..., C), numbers of any type; a volume has one channel too.
    """
    values = pixels.reshape(-1, pixels.shape[-1]).max(axis=1)
    values = values[:: max(1, len(values) // _SAMPLE)].astype(np.float64)
    if not (values.size and np.isfinite(values).all()):
        return False
    lowest, highest = values.min(), values.max()
    if lowest < 0:
        # Label maps with the offset of CT; air and soft tissue are nearly two values too.
        return bool(lowest < highest) and len(np.unique(values)) <= _FEW_VALUES
    if highest == 0:
        return True
    low = values <= _EXTREME * highest
    if not low.any() or low.all():
        return False
    if not values.all() and len(np.unique(values)) <= _FEW_VALUES:
        return True
    high = float((values >= (1 - _EXTREME) * highest).mean())
    between = 1 - float(low.mean()) - high
    return between <= min(_MAX_BETWEEN, high)


def looks_like_mask(path: str | Path) -> bool:
    """Whether an image file looks like a mask; one that cannot be read does not.

    Args:
        path: The file.
    """
    try:
        return is_mask_like(decode(path).pixels)
    except DxsegError:
        return False

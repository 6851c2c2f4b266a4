"""Samples of any type as whole numbers of 8 or 16 bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dxseg.errors import DxsegError

_BRIGHTEST, _DEEPEST = 255, 65535


def to_integers(array: npt.NDArray[Any], path: Path) -> npt.NDArray[Any]:
    """Convert samples to uint8 or uint16.

    Args:
        array: Whole numbers of 0 to 65535, truth values, or floats of 0 to 1 or whole numbers.
        path: The file named in errors.

    Raises:
        DxsegError: They are others.
    """
    if array.dtype in (np.uint8, np.uint16):
        # Also converts the byte order to that of this machine.
        return array.astype(array.dtype.newbyteorder("="), copy=False)
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype.kind == "f" and array.size and np.isfinite(array).all() and array.min() >= 0:
        highest = float(array.max())
        if highest < 2**16 and (array == np.rint(array)).all():
            return array.astype(np.uint8 if highest <= _BRIGHTEST else np.uint16)
        if highest <= 1:
            # A picture of 0 to 1; a label map has whole numbers.
            return np.rint(array.astype(np.float64) * _DEEPEST).astype(np.uint16)
    if array.dtype.kind in "iu" and array.size and array.min() >= 0 and array.max() < 2**16:
        return array.astype(np.uint16)
    raise DxsegError(
        f"{path}: pixels of type {array.dtype} beyond 0 to 65535; expected 8 or 16 bit whole "
        "numbers, or floats of 0 to 1; rescale it to 16 bit"
    )

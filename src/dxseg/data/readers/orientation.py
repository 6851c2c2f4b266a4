"""EXIF orientation: how a camera was held; the pixels are stored as its sensor read them.

Viewers, browsers and annotation tools show the picture turned. Images, masks and predictions are
therefore of the picture **as it is shown**, everywhere in dxseg.
"""

from __future__ import annotations

import warnings
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

TAG = 274
UPRIGHT = 1

_Array = TypeVar("_Array", bound=npt.NDArray[Any])

# Whether rows and columns are exchanged, then rows reversed, then columns reversed (EXIF 2.32, tag
# 274: where the first row and the first column of the stored pixels are).
_STEPS = {
    1: (False, False, False),
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}


def as_shown(stored: _Array, orientation: int) -> _Array:
    """Turn stored pixels (H, W, ...) as viewers show them; a view.

    Args:
        stored: The pixels.
        orientation: 1 to 8.
    """
    exchanged, rows, columns = _STEPS[orientation]
    turned: Any = np.swapaxes(stored, 0, 1) if exchanged else stored
    return turned[:: -1 if rows else 1, :: -1 if columns else 1]  # type: ignore[no-any-return]


def shown_size(height: int, width: int, orientation: int) -> tuple[int, int]:
    """Height and width of the picture as viewers show it; also the reverse of itself.

    Args:
        height: Of the stored pixels.
        width: Likewise.
        orientation: 1 to 8.
    """
    return (width, height) if _STEPS[orientation][0] else (height, width)


def valid_orientation(value: object) -> int:
    """Return the value of a tag, or 1 for one that does not exist, as viewers do."""
    return value if isinstance(value, int) and value in _STEPS else UPRIGHT


def pillow_orientation(image: Any) -> int:
    """Read the orientation from the header of an image that Pillow has opened.

    Args:
        image: Its pixels need not be loaded.
    """
    from PIL.Image import Exif

    # Not `image.getexif`, which decodes all of a PNG first.
    stored = image.info.get("exif")
    if not stored:
        return UPRIGHT
    exif = Exif()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            exif.load(stored)
            return valid_orientation(exif.get(TAG))
        except Exception:  # noqa: BLE001 - Pillow raises many types; viewers ignore damage too
            return UPRIGHT

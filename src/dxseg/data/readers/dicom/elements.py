"""Reading elements of DICOM objects, damaged ones included."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dxseg.errors import DxsegError

if TYPE_CHECKING:
    from pydicom.dataset import Dataset


def read_int(ds: Dataset, keyword: str, path: Path, default: int) -> int:
    """Read a whole number.

    Args:
        ds: Object or item.
        keyword: DICOM keyword.
        path: The file named in the error.
        default: Value if it is absent or empty.

    Raises:
        DxsegError: It is not a whole number.
    """
    try:
        value = ds.get(keyword)
        return default if value is None or value == "" else int(value)
    except Exception:  # noqa: BLE001 - a damaged element raises when it is read
        raise DxsegError(f"{path}: {keyword} is not a whole number; export it again") from None


def read_text(ds: Dataset, keyword: str) -> str:
    """Read a value as text, "" if it is absent or damaged.

    Args:
        ds: Object or item.
        keyword: DICOM keyword.
    """
    try:
        value = ds.get(keyword)
    except Exception:  # noqa: BLE001 - a damaged element raises when it is read
        return ""
    return "" if value is None else str(value).strip(" \0")


def read_floats(ds: Dataset, keyword: str, count: int) -> tuple[float, ...] | None:
    """Read finite numbers, None if they are absent, damaged or not as many as expected.

    Args:
        ds: Object or item.
        keyword: DICOM keyword.
        count: Expected number of values.
    """
    import numpy as np

    try:
        values = np.atleast_1d(np.array(ds.get(keyword), dtype=np.float64))
    except Exception:  # noqa: BLE001 - a damaged element raises when it is read
        return None
    if values.shape != (count,) or not np.isfinite(values).all():
        return None
    return tuple(float(value) for value in values)


def read_items(ds: Dataset, keyword: str) -> list[Dataset]:
    """Read the items of a sequence, none if it is absent or damaged.

    Args:
        ds: Object or item.
        keyword: DICOM keyword.
    """
    try:
        return list(ds.get(keyword) or ())
    except Exception:  # noqa: BLE001 - a damaged element raises when it is read
        return []


def functional_group(ds: Dataset, index: int, keyword: str) -> Dataset | None:
    """Find the functional group of a frame, or the one shared by all frames.

    Args:
        ds: The object.
        index: The frame, from 0.
        keyword: Keyword of the functional group, such as `PlanePositionSequence`.
    """
    try:
        # The sequence itself: a list of it for each frame would be quadratic.
        frames = ds.get("PerFrameFunctionalGroupsSequence") or ()
        own = [frames[index]] if index < len(frames) else []
    except Exception:  # noqa: BLE001 - a damaged element raises when it is read
        own = []
    for group in (*own, *read_items(ds, "SharedFunctionalGroupsSequence")):
        found = read_items(group, keyword)
        if found:
            return found[0]
    return None

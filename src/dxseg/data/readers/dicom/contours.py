"""Contours of DICOM structure sets (RTSTRUCT), filled on their slices.

Own code, because the rule for the edge decides which pixels are lesion: a pixel is inside if its
centre is, by the even-odd rule. Pillow and scikit-image round corners or include the border.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from dxseg.data.readers.dicom.elements import read_floats, read_int, read_items, read_text
from dxseg.data.readers.dicom.headers import Header
from dxseg.data.readers.dicom.objects import open_object
from dxseg.data.readers.dicom.series import OFF_PLANE, Stack
from dxseg.errors import DxsegError

if TYPE_CHECKING:
    from pydicom.dataset import Dataset


def filled_contours(
    header: Header, chosen: Mapping[int, int], stack: Stack
) -> Iterator[tuple[int, int, npt.NDArray[np.bool_]]]:
    """Fill the closed contours of a structure set.

    Args:
        header: The structure set.
        chosen: Mask value of each region.
        stack: Grid of the volume.

    Yields:
        The slice, the mask value, and the filled pixels (rows, columns) by the even-odd rule.

    Raises:
        DxsegError: A contour is damaged, or in no slice.
    """
    ds = open_object(header.path)
    for region in read_items(ds, "ROIContourSequence"):
        value = chosen.get(read_int(region, "ReferencedROINumber", header.path, -1))
        if value is None:
            continue
        filled: dict[int, npt.NDArray[np.bool_]] = defaultdict(
            lambda: np.zeros((stack.rows, stack.columns), np.bool_)
        )
        for contour in read_items(region, "ContourSequence"):
            if read_text(contour, "ContourGeometricType") not in (
                "CLOSED_PLANAR",
                "CLOSEDPLANAR_XOR",
            ):
                # Points and open lines enclose nothing.
                continue
            index, polygon = _polygon(contour, stack, header)
            filled[index] ^= inside_polygon(polygon, stack.rows, stack.columns)
        for index, inside in filled.items():
            yield index, value, inside


def _polygon(contour: Dataset, stack: Stack, header: Header) -> tuple[int, npt.NDArray[np.float64]]:
    """Find the slice of a contour, and its corners (column, row) there."""
    count = read_int(contour, "NumberOfContourPoints", header.path, 0)
    flat = read_floats(contour, "ContourData", 3 * count) if count >= 3 else None
    if flat is None:
        raise DxsegError(f"{header.path}: a contour without three points or more; export it again")
    voxels = stack.voxels_at(np.reshape(flat, (-1, 3)))
    index = round(float(voxels[:, 2].mean()))
    off = np.abs(voxels[:, 2] - index).max()
    if off > OFF_PLANE or not 0 <= index < len(stack.slices):
        raise DxsegError(
            f"{header.path}: a contour is in none of its images' slices; expected contours drawn "
            "on them; draw it again on this series"
        )
    return index, voxels[:, :2]


def inside_polygon(
    polygon: npt.NDArray[np.float64], height: int, width: int
) -> npt.NDArray[np.bool_]:
    """Find the pixels whose centre a closed polygon encloses, by the even-odd rule.

    Args:
        polygon: (N, 2) corners (column, row); whole numbers are centres of pixels.
        height: In pixels.
        width: In pixels.

    Returns:
        (height, width).
    """
    inside = np.zeros((height, width), np.bool_)
    start, end = polygon, np.roll(polygon, -1, axis=0)
    first = max(int(np.ceil(polygon[:, 1].min())), 0)
    last = min(int(np.floor(polygon[:, 1].max())), height - 1)
    columns = np.arange(width)
    for row in range(first, last + 1):
        # Half-open, so that a corner on the row counts once.
        crossing = (start[:, 1] <= row) != (end[:, 1] <= row)
        ((x0, y0), (x1, y1)) = start[crossing].T, end[crossing].T
        at = np.sort(x0 + (row - y0) * (x1 - x0) / (y1 - y0))
        inside[row] = np.searchsorted(at, columns, side="right") % 2 == 1
    return inside

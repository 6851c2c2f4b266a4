"""Contours of DICOM structure sets (RTSTRUCT), filled on their slices.

The standard has one rule for holes, which few exports follow; the rule here is the one that
planning systems share: on a slice, a contour inside another one of its structure is a hole, one
inside that an island, and contours that overlap are merged.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from dxseg.data.readers.dicom.elements import read_floats, read_int, read_items, read_text
from dxseg.data.readers.dicom.headers import Header
from dxseg.data.readers.dicom.objects import open_object
from dxseg.data.readers.dicom.series import OFF_PLANE, Stack
from dxseg.data.readers.polygons import Polygon, inside_polygon, max_distance
from dxseg.errors import DxsegError

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_XOR = "CLOSEDPLANAR_XOR"
_CLOSED = ("CLOSED_PLANAR", _XOR)
_CONTOUR_LIMIT = 512
# A wall thinner than this (in pixels) is one contour that was exported twice, with other rounding.
_SAME_OUTLINE = 0.5
_COMPARED_CORNERS = 2**22


@dataclass
class FilledContours:
    """The closed contours of a structure set as pixels, and those that could not be filled.

    Attributes:
        regions: Slice, mask value and pixels (rows, columns) of each region on each slice.
        unknown: Slices on which a contour could not be filled, so that they may show more.
        left_out: Number of these contours, by reason.
        repeated: Number of contours that repeat another one.
    """

    regions: list[tuple[int, int, npt.NDArray[np.bool_]]] = field(default_factory=list)
    unknown: set[int] = field(default_factory=set)
    left_out: Counter[str] = field(default_factory=Counter)
    repeated: int = 0

    @property
    def notes(self) -> tuple[str, ...]:
        """What was left out, as lines of a report."""
        notes = [f"{self.repeated} repeated contours counted once"] if self.repeated else []
        if self.left_out:
            reasons = ", ".join(f"{count} {why}" for why, count in sorted(self.left_out.items()))
            unknown = f"; {len(self.unknown)} slices may show more than their mask"
            notes.append(
                f"{self.left_out.total()} contours left out: {reasons}"
                + (unknown if self.unknown else "")
            )
        return tuple(notes)


@dataclass(frozen=True)
class _Contour:
    polygon: Polygon
    inside: npt.NDArray[np.bool_]
    xor: bool

    @property
    def area(self) -> int:
        return int(self.inside.sum())

    def is_within(self, other: _Contour) -> bool:
        return not (self.inside & ~other.inside).any()

    def repeats(self, other: _Contour) -> bool:
        """Whether it is the outline of another contour, wherever it starts and leads."""
        if np.array_equal(self.inside, other.inside):
            return True
        if len(self.polygon) * len(other.polygon) > _COMPARED_CORNERS:
            return False
        one, two = self.polygon, other.polygon
        box = np.abs(one.min(axis=0) - two.min(axis=0)), np.abs(one.max(axis=0) - two.max(axis=0))
        if max(box[0].max(), box[1].max()) > _SAME_OUTLINE:
            return False
        return max(max_distance(one, two), max_distance(two, one)) <= _SAME_OUTLINE


def fill_contours(header: Header, chosen: Mapping[int, int], stack: Stack) -> FilledContours:
    """Fill the closed contours of a structure set.

    Args:
        header: The structure set.
        chosen: Mask value of each region.
        stack: Grid of the volume.

    Raises:
        DxsegError: There are more contours of a region on a slice than any structure has.
    """
    found = FilledContours()
    for region in read_items(open_object(header.path), "ROIContourSequence"):
        value = chosen.get(read_int(region, "ReferencedROINumber", header.path, -1))
        if value is None:
            continue
        slices: dict[int, list[_Contour]] = defaultdict(list)
        for item in read_items(region, "ContourSequence"):
            _fill(item, stack, found, slices)
        for index, contours in slices.items():
            if len(contours) > _CONTOUR_LIMIT:
                raise DxsegError(
                    f"{header.path}: {len(contours)} contours of one region on a slice; expected "
                    f"at most {_CONTOUR_LIMIT}; export it as a DICOM SEG"
                )
            distinct = _distinct(contours)
            found.repeated += len(contours) - len(distinct)
            found.regions.append((index, value, _combined(distinct)))
    return found


def _fill(
    item: Dataset, stack: Stack, found: FilledContours, slices: dict[int, list[_Contour]]
) -> None:
    """Add a contour to those of its slice, or to those left out."""
    kind = read_text(item, "ContourGeometricType")
    flat = _points(item)
    if flat is None:
        # It may be on any slice.
        found.unknown.update(range(len(stack.slices)))
        found.left_out["damaged"] += 1
        return
    voxels = stack.voxels_at(flat)
    index = round(float(voxels[:, 2].mean()))
    reason = ""
    if not -0.5 <= voxels[:, 2].mean() <= len(stack.slices) - 0.5:
        reason = "outside the volume"
    elif np.abs(voxels[:, 2] - index).max() > OFF_PLANE:
        reason = "on no slice"
    elif kind not in _CLOSED or len(voxels) < 3:
        reason = "of points or lines, which enclose nothing"
    else:
        polygon = voxels[:, :2]
        inside = inside_polygon(polygon, stack.rows, stack.columns)
        if inside.any():
            slices[index].append(_Contour(polygon, inside, kind == _XOR))
            return
        reason = "enclosing no pixel"
    found.left_out[reason] += 1
    lowest, highest = (
        np.floor(voxels[:, 2].min() + OFF_PLANE),
        np.ceil(voxels[:, 2].max() - OFF_PLANE),
    )
    touched = range(max(int(lowest), 0), min(int(highest), len(stack.slices) - 1) + 1)
    found.unknown.update(touched)


def _points(item: Dataset) -> Polygon | None:
    """Read the points (N, 3) of a contour; their number is often wrong or missing."""
    try:
        count = len(item.get("ContourData") or ())
    except Exception:  # noqa: BLE001 - a damaged element raises when it is read
        return None
    flat = read_floats(item, "ContourData", count) if count else None
    return None if flat is None or count % 3 else np.reshape(flat, (-1, 3))


def _distinct(contours: Sequence[_Contour]) -> list[_Contour]:
    distinct: list[_Contour] = []
    for contour in contours:
        if not any(contour.repeats(other) for other in distinct):
            distinct.append(contour)
    return distinct


def _combined(contours: Sequence[_Contour]) -> npt.NDArray[np.bool_]:
    """Unite the contours of a region on a slice; those inside an odd number of others are holes."""
    result = np.zeros_like(contours[0].inside)
    parity = np.zeros_like(result)
    larger: list[_Contour] = []
    for contour in sorted(contours, key=lambda one: -one.area):
        if contour.xor:
            parity ^= contour.inside
            continue
        depth = sum(contour.is_within(other) for other in larger)
        if depth % 2:
            result &= ~contour.inside
        else:
            result |= contour.inside
        larger.append(contour)
    result |= parity
    return result

"""Masks from SEG and RTSTRUCT land on the voxels they were drawn on, or are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from dicom_phantom import SQUARE, place, plain_segmentation, segmentation, structure_set
from dxseg.data.readers.dicom.headers import scan
from dxseg.data.readers.dicom.masks import (
    MaskObject,
    draw_on_image,
    draw_on_stack,
    read_mask_object,
)
from dxseg.data.readers.dicom.series import Stack, group_series, stack_slices
from dxseg.errors import DxsegError, UsageError

Make = Callable[..., Any]
Store = Callable[..., Path]

OBLIQUE = (0.8, 0.6, 0.0, -0.36, 0.48, 0.8)


def both(folder: Path) -> tuple[MaskObject, Stack]:
    headers, skipped, _ = scan(folder)
    assert skipped == []
    images = [header for header in headers if not header.is_mask]
    [mask] = [header for header in headers if header.is_mask]
    outlines = read_mask_object(mask)
    assert outlines.belongs_to(images)
    [group] = group_series(images).values()
    return outlines, stack_slices(group, "series-1")


@pytest.fixture(scope="module")
def lesions() -> dict[int, Any]:
    """(6, 9, 11) without symmetry, overlapping, some slices empty."""
    rng = np.random.default_rng(1)
    first, second = rng.random((2, 6, 9, 11)) > 0.6
    first[[0, 3]], second[[2, 3]] = False, False
    return {1: first, 2: second}


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
@pytest.mark.parametrize("orientation", [(1, 0, 0, 0, 1, 0), OBLIQUE], ids=["axial", "oblique"])
def test_a_segmentation_comes_back_on_its_voxels(
    series: Make, store: Store, phantom: Any, lesions: Any, kind: str, orientation: Any
) -> None:
    sources = series(phantom, orientation=orientation)
    if kind == "LABELMAP":
        lesions = {1: lesions[1] & ~lesions[2], 2: lesions[2]}
    seg = segmentation(sources, lesions, kind)
    outlines, stack = both(store([*sources, seg]))
    assert dict(outlines.regions) == {1: "label 1", 2: "label 2"}
    drawn = draw_on_stack(outlines, {1: 1, 2: 2}, stack)
    expected = np.maximum(lesions[1] * 1, lesions[2] * 2)
    assert np.array_equal(drawn.values.transpose(2, 1, 0), expected)
    only = draw_on_stack(outlines, {2: 5}, stack)
    assert np.array_equal(only.values.transpose(2, 1, 0), lesions[2] * 5)


def test_regions_are_chosen_by_number_or_label(
    series: Make, store: Store, phantom: Any, lesions: Any
) -> None:
    sources = series(phantom)
    outlines, _ = both(store([*sources, segmentation(sources, lesions)]))
    assert outlines.choose({"label 2": 1, "1": 2}) == {2: 1, 1: 2}
    assert outlines.choose({"something": 1}) == {}
    with pytest.raises(UsageError, match="2 regions, numbered 1, 2") as caught:
        outlines.choose({})
    assert "label 1" not in str(caught.value), "labels are free text"


def test_a_mask_of_a_part_is_drawn_on_the_whole(
    series: Make, store: Store, phantom: Any, lesions: Any
) -> None:
    sources = series(phantom)
    seg = segmentation(sources[1:3], {1: lesions[1][1:3]})
    outlines, stack = both(store([*sources, seg]))
    drawn = draw_on_stack(outlines, {1: 1}, stack).values.transpose(2, 1, 0)
    assert np.array_equal(drawn[1:3], lesions[1][1:3])
    assert not drawn[[0, 3, 4, 5]].any()


def moved(seg: Any) -> None:
    for group in seg.PerFrameFunctionalGroupsSequence:
        position = group.PlanePositionSequence[0]
        position.ImagePositionPatient = [
            float(value) + 0.5 for value in position.ImagePositionPatient
        ]


def turned(seg: Any) -> None:
    shared = seg.SharedFunctionalGroupsSequence[0]
    shared.PlaneOrientationSequence[0].ImageOrientationPatient = [0, 1, 0, 1, 0, 0]


def fractional(seg: Any) -> None:
    seg.SegmentationType = "FRACTIONAL"


def resized(seg: Any) -> None:
    seg.Rows, seg.Columns = 11, 9


def emptied(seg: Any) -> None:
    seg.PixelData = b"\0" * len(seg.PixelData)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (moved, "is on none of its images' slices"),
        (turned, "is on none of its images' slices"),
        (fractional, "not a binary segmentation"),
        (resized, "frames of .11, 9. pixels"),
        (emptied, "has no pixel in the requested regions"),
    ],
)
def test_segmentations_that_do_not_fit_are_refused(
    series: Make, store: Store, phantom: Any, lesions: Any, spoil: Any, told: str
) -> None:
    sources = series(phantom)
    seg = segmentation(sources, lesions)
    spoil(seg)
    outlines, stack = both(store([*sources, seg]))
    with pytest.raises(DxsegError, match=rf"^file \d: .*{told}"):
        draw_on_stack(outlines, {1: 1, 2: 2}, stack)


def test_a_segmentation_of_an_image_without_position(image: Make, store: Store) -> None:
    pixels = np.zeros((2, 12, 9), np.uint8)
    pictures = [image(part) for part in pixels]
    mask = np.random.default_rng(2).random((12, 9)) > 0.5
    seg = plain_segmentation(pictures[1], mask)
    headers, _, _ = scan(store([*pictures, seg]))
    [outlines] = [read_mask_object(header) for header in headers if header.is_mask]
    by_uid = {header.sop_uid: header for header in headers}
    first, second = (by_uid[picture.SOPInstanceUID] for picture in pictures)
    assert [outlines.belongs_to([header]) for header in (first, second)] == [False, True]
    assert np.array_equal(draw_on_image(outlines, {1: 1}, second), mask)


@pytest.mark.parametrize("orientation", [(1, 0, 0, 0, 1, 0), OBLIQUE], ids=["axial", "oblique"])
def test_contours_fill_the_slice_they_lie_in(
    series: Make, store: Store, phantom: Any, orientation: Any
) -> None:
    sources = series(phantom, orientation=orientation)
    hole = SQUARE[:2].mean(axis=0) + np.array([[-1, 1], [1, 1], [1, 3], [-1, 3]])
    rings = [place(sources[2], SQUARE), place(sources[2], hole), place(sources[4], SQUARE)]
    outlines, stack = both(store([*sources, structure_set(sources, rings)]))
    assert outlines.choose({"GTV": 3}) == {7: 3}
    drawn = draw_on_stack(outlines, {7: 3}, stack).values.transpose(2, 1, 0)
    assert [int((part > 0).sum()) for part in drawn] == [0, 0, 16 - 4, 0, 16, 0]
    assert np.array_equal(np.unique(drawn), [0, 3])
    assert (drawn[4, 2:6, 2:6] == 3).all()


def square(x: float, y: float, side: float) -> np.ndarray:
    """Corners around side x side pixels, the first at (column, row)."""
    return np.array([[0, 0], [side, 0], [side, side], [0, side]]) + np.array([x, y]) - 0.5


def draw(series: Make, store: Store, phantom: Any, rings: Any, kind: str = "CLOSED_PLANAR") -> Any:
    """Draw rings (slice, corners, lift) of one structure."""
    sources = series(phantom)
    contours = [place(sources[index], ring, lift) for index, ring, lift in rings]
    outlines, stack = both(store([*sources, structure_set(sources, contours, kind)]))
    return draw_on_stack(outlines, {7: 1}, stack)


@pytest.mark.parametrize(
    ("rings", "pixels"),
    [
        ([SQUARE, SQUARE], 16),
        ([SQUARE, SQUARE[::-1]], 16),
        ([SQUARE, np.roll(SQUARE, 2, axis=0)], 16),
        ([SQUARE, SQUARE, SQUARE], 16),
        ([SQUARE, 1.01 * (SQUARE - 3.5) + 3.5], 16),
        # A wall of less than half a pixel is one contour, exported twice with other rounding.
        ([square(1, 1, 7), square(1.4, 1.4, 6.2)], 49),
        ([square(1, 1, 7), square(2, 2, 5)], 49 - 25),
        ([square(2, 2, 5), square(1, 1, 7)], 49 - 25),
        ([square(1, 1, 7), square(2, 2, 5), square(3, 3, 2)], 49 - 25 + 4),
        ([square(1, 1, 4), square(3, 3, 4)], 16 + 16 - 4),
        ([square(1, 1, 4), square(5, 1, 4)], 32),
        ([square(1, 1, 7), square(2, 2, 2), square(5, 5, 2)], 49 - 4 - 4),
    ],
)
def test_contours_of_a_slice_are_united_and_those_inside_another_are_holes(
    series: Make, store: Store, phantom: Any, rings: Any, pixels: int
) -> None:
    drawn = draw(series, store, phantom, [(2, ring, 0.0) for ring in rings])
    assert [int(part.sum()) for part in drawn.values.transpose(2, 1, 0)] == [0, 0, pixels, 0, 0, 0]
    assert drawn.unknown is None


def test_repeated_contours_are_counted_and_xor_is_the_standards(
    series: Make, store: Store, phantom: Any
) -> None:
    drawn = draw(series, store, phantom, [(2, SQUARE, 0.0)] * 3)
    assert [note.split(": ")[1] for note in drawn.notes] == ["2 repeated contours counted once"]
    pair = [(2, square(1, 1, 4), 0.0), (2, square(3, 3, 4), 0.0)]
    drawn = draw(series, store, phantom, pair, "CLOSEDPLANAR_XOR")
    assert int(drawn.values.sum()) == 16 + 16 - 2 * 4


@pytest.mark.parametrize(
    ("ring", "told", "unknown"),
    [
        ((4, SQUARE, 1.0), "on no slice", [4, 5]),
        ((0, SQUARE, -40.0), "outside the volume", []),
        ((4, SQUARE[:2], 0.0), "of points or lines, which enclose nothing", [4]),
        ((4, square(3.6, 3.6, 0.3), 0.0), "enclosing no pixel", [4]),
        ((4, SQUARE + 100, 0.0), "enclosing no pixel", [4]),
    ],
)
def test_a_contour_that_cannot_be_filled_costs_its_own_slice(
    series: Make, store: Store, phantom: Any, ring: Any, told: str, unknown: list[int]
) -> None:
    drawn = draw(series, store, phantom, [(2, SQUARE, 0.0), ring])
    assert int(drawn.values[:, :, 2].sum()) == int(drawn.values.sum()) == 16
    [note] = drawn.notes
    assert f"1 contours left out: 1 {told}" in note
    found = [] if drawn.unknown is None else np.flatnonzero(drawn.unknown.any(axis=(0, 1))).tolist()
    assert found == unknown


def test_a_damaged_contour_may_be_on_any_slice(series: Make, store: Store, phantom: Any) -> None:
    sources = series(phantom)
    rings = [place(sources[2], SQUARE), place(sources[3], SQUARE)]
    structures = structure_set(sources, rings)
    del structures.ROIContourSequence[0].ContourSequence[1].ContourData
    outlines, stack = both(store([*sources, structures]))
    drawn = draw_on_stack(outlines, {7: 1}, stack)
    assert int(drawn.values.sum()) == 16
    assert drawn.unknown is not None
    assert drawn.unknown.all()


def test_a_structure_of_nothing_is_refused(series: Make, store: Store, phantom: Any) -> None:
    with pytest.raises(
        DxsegError, match=r"has no pixel in the requested regions \(1 contours left"
    ):
        draw(series, store, phantom, [(2, SQUARE[:1], 0.0)], "POINT")


def test_damaged_masks_raise_nothing_else(
    series: Make, store: Store, phantom: Any, lesions: Any, tmp_path: Path
) -> None:
    sources = series(phantom)
    folder = store([*sources, segmentation(sources, lesions)])
    headers, _, _ = scan(folder)
    [mask] = [header for header in headers if header.is_mask]
    stack = stack_slices([header for header in headers if not header.is_mask], "series-1")
    content = mask.path.read_bytes()
    rng = np.random.default_rng(3)
    refused = 0
    for _ in range(60):
        spoiled = bytearray(content)
        for at in rng.integers(400, len(content), 20):
            spoiled[at] = rng.integers(256)
        mask.path.write_bytes(spoiled[: rng.integers(1000, len(content) + 1)])
        try:
            outlines = read_mask_object(mask)
            draw_on_stack(outlines, dict.fromkeys(outlines.regions, 1), stack)
        except DxsegError:
            refused += 1
    assert refused > 0
    assert pydicom.dcmread(headers[0].path).Rows == 9

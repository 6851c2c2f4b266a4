"""Slices become the volume they were cut from, in the place they were cut from, or are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from scipy.spatial.transform import Rotation

from dxseg.data.readers.dicom.headers import Header, scan
from dxseg.data.readers.dicom.series import Stack, group_series, read_stack, stack_slices
from dxseg.errors import DxsegError

Make = Callable[..., list[Dataset]]
Store = Callable[..., Path]

ORIENTATIONS = {
    "axial": (1, 0, 0, 0, 1, 0),
    "coronal": (1, 0, 0, 0, 0, -1),
    "sagittal": (0, 1, 0, 0, 0, -1),
    "feet first": (-1, 0, 0, 0, 1, 0),
    "oblique": tuple(Rotation.from_euler("xyz", [20, -35, 50], degrees=True).as_matrix()[:2].flat),
}


def stack_of(folder: Path) -> Stack:
    headers, skipped, _ = scan(folder)
    assert skipped == []
    [group] = group_series(headers).values()
    return stack_slices(group, "series-1")


@pytest.mark.parametrize("orientation", ORIENTATIONS.values(), ids=ORIENTATIONS)
def test_every_voxel_lies_where_dicom_says(
    series: Make, store: Store, phantom: Any, orientation: tuple[float, ...]
) -> None:
    objects = series(phantom, orientation=orientation)
    volume = read_stack(stack_of(store(objects)))
    assert volume.voxels.dtype == np.int16
    assert np.array_equal(volume.voxels, phantom.transpose(2, 1, 0))
    # PS3.3 C.7.6.2.1.1, equation C.7.6.2.1-1, voxel by voxel; then LPS to RAS.
    for column, row, index in [(0, 0, 0), (10, 0, 0), (0, 8, 0), (3, 5, 5), (10, 8, 5)]:
        ds = objects[index]
        there = (
            np.array(ds.ImagePositionPatient)
            + np.array(ds.ImageOrientationPatient[:3]) * ds.PixelSpacing[1] * column
            + np.array(ds.ImageOrientationPatient[3:]) * ds.PixelSpacing[0] * row
        )
        placed = volume.affine @ [column, row, index, 1]
        assert placed[:3] == pytest.approx(there * [-1, -1, 1], abs=1e-9)
    assert np.linalg.det(volume.affine) > 0
    assert volume.spacing == pytest.approx((0.75, 0.5, 2.0))


@pytest.mark.parametrize("orientation", ORIENTATIONS.values(), ids=ORIENTATIONS)
def test_the_grid_is_the_one_that_highdicom_finds(
    series: Make, store: Store, phantom: Any, orientation: tuple[float, ...]
) -> None:
    highdicom = pytest.importorskip("highdicom")
    objects = series(phantom, orientation=orientation)
    theirs = highdicom.get_volume_from_series(objects)
    ours = read_stack(stack_of(store(objects)))
    # Axes may come in another order; the voxel of a place does not.
    values = {
        tuple(np.round(place, 4)): value
        for place, value in zip(
            theirs.map_indices_to_reference(np.argwhere(np.ones(theirs.spatial_shape))),
            theirs.array.ravel(),
            strict=True,
        )
    }
    assert len(values) == ours.voxels.size
    for index in np.ndindex(*ours.voxels.shape):
        place = (ours.affine @ [*index, 1])[:3] * [-1, -1, 1]
        assert values[tuple(np.round(place, 4))] == ours.voxels[index]


def test_nibabel_calls_a_usual_axial_series_lps(series: Make, store: Store, phantom: Any) -> None:
    nibabel = pytest.importorskip("nibabel")
    affine = stack_of(store(series(phantom))).affine
    assert nibabel.aff2axcodes(affine) == ("L", "P", "S")


@settings(max_examples=10)
@given(order=st.permutations(range(6)))
def test_the_order_of_files_and_instance_numbers_does_not_matter(
    series: Make, tmp_path_factory: pytest.TempPathFactory, order: list[int]
) -> None:
    phantom = np.arange(6 * 2 * 3).reshape(6, 2, 3)
    folder = tmp_path_factory.mktemp("series")
    for number, (ds, place) in enumerate(zip(series(phantom), order, strict=True)):
        ds.InstanceNumber = number
        ds.save_as(folder / f"{place}.dcm", enforce_file_format=True)
    assert np.array_equal(read_stack(stack_of(folder)).voxels, phantom.transpose(2, 1, 0))


def test_rescaled_values_that_are_not_whole_stay_exact(series: Make, store: Store) -> None:
    objects = series(np.arange(24).reshape(2, 3, 4), intercept=0, RescaleSlope=0.1)
    voxels = read_stack(stack_of(store(objects))).voxels
    assert voxels.dtype == np.float32
    expected = 0.1 * np.arange(24).reshape(2, 3, 4).transpose(2, 1, 0)
    assert voxels == pytest.approx(expected, rel=1e-6)


def test_a_single_slice_takes_its_thickness(series: Make, store: Store) -> None:
    stack = stack_of(store(series(np.zeros((1, 3, 4)), spacing=(5.0, 1.0, 1.0))))
    assert stack.affine[:3, 2] == pytest.approx([0, 0, 5])


def test_a_multi_frame_object_is_a_volume(series: Make, store: Store, phantom: Any) -> None:
    single = series(phantom)
    frames = np.stack([part.pixel_array for part in single])
    whole = single[0]
    whole.NumberOfFrames = len(frames)
    order = [3, 0, 5, 1, 4, 2]
    whole.PixelData = frames[order].tobytes()
    whole.PerFrameFunctionalGroupsSequence = [_group(single[place]) for place in order]
    whole.SharedFunctionalGroupsSequence = [_shared(whole)]
    for keyword in ("PixelSpacing", "RescaleSlope", "RescaleIntercept", "SliceThickness"):
        delattr(whole, keyword)
    del whole.ImageOrientationPatient, whole.ImagePositionPatient
    volume = read_stack(stack_of(store([whole])))
    assert np.array_equal(volume.voxels, phantom.transpose(2, 1, 0))
    assert volume.spacing == pytest.approx((0.75, 0.5, 2.0))


def _group(single: Dataset) -> Dataset:
    group, place = Dataset(), Dataset()
    place.ImagePositionPatient = single.ImagePositionPatient
    group.PlanePositionSequence = [place]
    return group


def _shared(whole: Dataset) -> Dataset:
    group, measures, orientation, values = Dataset(), Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = whole.PixelSpacing, whole.SliceThickness
    orientation.ImageOrientationPatient = whole.ImageOrientationPatient
    values.RescaleSlope, values.RescaleIntercept = whole.RescaleSlope, whole.RescaleIntercept
    group.PixelMeasuresSequence, group.PlaneOrientationSequence = [measures], [orientation]
    group.PixelValueTransformationSequence = [values]
    return group


def gap(objects: list[Dataset]) -> None:
    del objects[2]


def uneven(objects: list[Dataset]) -> None:
    objects[1].ImagePositionPatient = [-10, 20, 32.3]


def same_place(objects: list[Dataset]) -> None:
    objects[3].ImagePositionPatient = objects[2].ImagePositionPatient


def tilt(objects: list[Dataset]) -> None:
    for index, ds in enumerate(objects):
        ds.ImagePositionPatient = [-10, 20 + 0.5 * index, 30 + 2 * index]


def mixed_orientation(objects: list[Dataset]) -> None:
    objects[0].ImageOrientationPatient = [1, 0, 0, 0, 0, -1]


def skewed(objects: list[Dataset]) -> None:
    for ds in objects:
        ds.ImageOrientationPatient = [1, 0, 0, 0.3, 1, 0]


def mixed_spacing(objects: list[Dataset]) -> None:
    objects[0].PixelSpacing = [0.5, 0.8]


def no_spacing(objects: list[Dataset]) -> None:
    del objects[4].PixelSpacing


def zero_spacing(objects: list[Dataset]) -> None:
    for ds in objects:
        ds.PixelSpacing = [0, 0]


def mixed_size(objects: list[Dataset]) -> None:
    ds = objects[0]
    ds.Rows, ds.Columns = 11, 9


def two_spaces(objects: list[Dataset]) -> None:
    objects[0].FrameOfReferenceUID = generate_uid()


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (gap, "as if 1 were missing"),
        (uneven, "2.3 mm apart"),
        (same_place, "1 slice.s. have the position of another one"),
        (tilt, "gantry tilted by 14.0 degrees"),
        (mixed_orientation, "mixed orientation"),
        (skewed, "not at right angles"),
        (mixed_spacing, "0.8 mm"),
        (no_spacing, "without pixel spacing"),
        (zero_spacing, "without pixel spacing"),
        (mixed_size, "9 x 11, 11 x 9"),
        (two_spaces, "2 frames of reference"),
    ],
)
def test_series_that_are_no_grid_are_refused(
    series: Make,
    store: Store,
    phantom: Any,
    spoil: Callable[[list[Dataset]], None],
    told: str,
) -> None:
    objects = series(phantom)
    spoil(objects)
    with pytest.raises(DxsegError, match=told) as caught:
        stack_of(store(objects))
    assert str(caught.value).startswith("series-1: ")


def test_rounded_positions_are_no_gap(series: Make, store: Store) -> None:
    objects = series(np.zeros((40, 2, 2)), spacing=(0.625, 1.0, 1.0))
    for ds in objects:
        ds.ImagePositionPatient = [round(float(value), 2) for value in ds.ImagePositionPatient]
    assert len(stack_of(store(objects)).slices) == 40


def test_a_copy_of_a_slice_is_left_out_and_told(series: Make, store: Store, phantom: Any) -> None:
    objects = series(phantom)
    folder = store([*objects, objects[2]])
    headers, skipped, _ = scan(folder)
    assert len(headers) == 6
    assert [reason for _, reason in skipped] == [f"the same object as {_twin(headers, objects[2])}"]


def _twin(headers: list[Header], ds: Dataset) -> str:
    return next(header.name for header in headers if header.sop_uid == ds.SOPInstanceUID)


def test_a_damaged_slice_is_called_by_its_number(series: Make, store: Store, phantom: Any) -> None:
    folder = store(series(phantom))
    stack = stack_of(folder)
    path = stack.slices[2].header.path
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DxsegError, match=r"^file \d: damaged or cut short") as caught:
        read_stack(stack)
    assert str(folder) not in str(caught.value)


def test_localisers_and_objects_without_position_are_no_slices(series: Make, store: Store) -> None:
    objects = series(np.zeros((3, 2, 2)))
    objects[0].ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    del objects[1].ImagePositionPatient
    headers, skipped, _ = scan(store(objects))
    assert len(headers) == 1
    assert sorted(reason for _, reason in skipped) == [
        "CT without position; expected slices in space",
        "a localiser, not a slice of the volume",
    ]


@pytest.mark.parametrize("spoil", [gap, uneven, tilt])
def test_series_that_will_be_resampled_need_be_no_grid(
    series: Make, store: Store, phantom: Any, spoil: Callable[[list[Dataset]], None]
) -> None:
    """And every slice is still where DICOM says."""
    objects = series(phantom)
    spoil(objects)
    folder = store(objects)
    with pytest.raises(DxsegError, match="--resample"):
        stack_of(folder)
    headers, _, _ = scan(folder)
    [group] = group_series(headers).values()
    stack = stack_slices(group, "series-1", resample=True)
    volume = read_stack(stack)
    assert volume.positions is not None
    for index, part in enumerate(stack.slices):
        own = np.array(part.plane.position)
        np.testing.assert_allclose(volume.positions[index], own * [-1, -1, 1])
        corner = own + np.array([1, 0, 0]) * 0.75 * 3 + np.array([0, 1, 0]) * 0.5 * 2
        np.testing.assert_allclose(
            stack.voxels_at(np.stack([own, corner])), [[0, 0, index], [3, 2, index]], atol=1e-6
        )

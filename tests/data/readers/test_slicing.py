"""Slices: orientation against patient coordinates, windows in closed form, neighbors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dxseg.data.readers.sliced_volume import SlicedVolume, slice_grid
from dxseg.data.readers.slicing import WINDOWS, Slicing, make_slicing, parse_window
from dxseg.data.readers.volume import Volume
from dxseg.errors import DxsegError, UsageError
from volume_phantom import RAS, SHAPE, SPACING, TURNS, ct, turned, turned_affine

PLAIN = Slicing(window=(0.0, 2.0))
RIGHT, FRONT, HEAD = range(3)

# What changes along the slices, the rows and the columns, and in which direction.
SHOWN = {
    "axial": ((HEAD, 1), (FRONT, -1), (RIGHT, -1)),
    "coronal": ((FRONT, 1), (HEAD, -1), (RIGHT, -1)),
    "sagittal": ((RIGHT, 1), (HEAD, -1), (FRONT, -1)),
}


def coordinates(affine: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Right, front, head of every voxel in mm, (3, I, J, K)."""
    index = np.indices(shape).reshape(3, -1)
    return (affine[:3, :3] @ index + affine[:3, 3:]).reshape(3, *shape)


@pytest.mark.parametrize("turn", TURNS, ids=str)
def test_every_order_of_axes_is_shown_in_radiological_orientation(turn) -> None:
    shape = tuple(SHAPE[axis] for axis in turn[0])
    affine = turned_affine(turn)
    places = coordinates(affine, shape)
    for plane, expected in SHOWN.items():
        sliced = SlicedVolume(Volume(np.zeros(shape), affine), Slicing(axis=plane, window=(0, 1)))
        for axis, (patient, direction) in enumerate(expected):
            steps = np.diff(sliced.turn(places[patient]), axis=axis)
            np.testing.assert_allclose(steps, direction * SPACING[patient])
            assert sliced.spacing[axis] == pytest.approx(SPACING[patient])
            assert sliced.shape[axis] == SHAPE[patient]
        assert len(slice_grid(affine, shape, Slicing(axis=plane))) == len(sliced)


@pytest.mark.parametrize("turn", TURNS, ids=str)
def test_the_same_body_gives_the_same_images_however_it_is_stored(turn) -> None:
    hounsfield, labels = ct()
    rule = Slicing(window=WINDOWS["abdomen"], neighbours=1)
    reference = SlicedVolume(Volume(hounsfield, turned_affine(RAS)), rule)
    stored = turned(hounsfield, turn)
    sliced = SlicedVolume(Volume(stored, turned_affine(turn)), rule)
    assert sliced.plane == "axial"
    for index in range(len(reference)):
        np.testing.assert_array_equal(sliced.image(index), reference.image(index))
    stacked = sliced.turn(turned(labels, turn))
    np.testing.assert_array_equal(stacked, reference.turn(labels))
    np.testing.assert_array_equal(sliced.restore(stacked), turned(labels, turn))


@given(
    turn=st.sampled_from(TURNS),
    shape=st.tuples(*[st.integers(1, 5)] * 3),
    spacing=st.tuples(*[st.floats(0.1, 10)] * 3),
    axis=st.sampled_from(["through-plane", "axial", "coronal", "sagittal"]),
)
def test_restoring_undoes_turning(turn, shape, spacing, axis) -> None:
    voxels = np.arange(np.prod(shape)).reshape(shape)
    affine = turned_affine(turn, shape, spacing)
    sliced = SlicedVolume(Volume(voxels, affine), Slicing(axis=axis, window=(0, 1)))
    np.testing.assert_array_equal(sliced.restore(sliced.turn(voxels)), voxels)


def test_an_oblique_volume_counts_as_its_closest_axes() -> None:
    angle = np.deg2rad(25)
    turn = np.eye(4)
    turn[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    hounsfield, _ = ct()
    straight = SlicedVolume(Volume(hounsfield, turned_affine(RAS)), PLAIN)
    oblique = SlicedVolume(Volume(hounsfield, turn @ turned_affine(RAS)), PLAIN)
    assert oblique.plane == "axial"
    assert oblique.spacing == pytest.approx(straight.spacing)
    np.testing.assert_array_equal(oblique.image(4), straight.image(4))


@pytest.mark.parametrize(
    ("spacing", "plane"),
    [
        ((1, 1, 5), "axial"),
        ((1, 5, 1), "coronal"),
        ((5, 1, 1), "sagittal"),
        ((1, 1, 1), "axial"),
        ((1, 1.001, 1), "axial"),
        ((3, 3, 1), "coronal"),
    ],
)
def test_the_through_plane_axis_has_the_coarsest_spacing(spacing, plane) -> None:
    for turn in TURNS:
        affine = turned_affine(turn, SHAPE, spacing)
        assert SlicedVolume(Volume(np.zeros((2, 2, 2)), affine), PLAIN).plane == plane


@pytest.mark.parametrize("bits", [8, 16])
def test_a_window_in_closed_form(bits: int) -> None:
    values = np.array([-np.inf, -1000, -45, 30, 67.5, 105, 3000, np.inf, np.nan], np.float32)
    volume = Volume(values.reshape(1, 1, -1), turned_affine(RAS, (1, 1, 9), (1, 1, 1)))
    sliced = SlicedVolume(volume, Slicing(window=WINDOWS["liver"], bits=bits))
    top = 2**bits - 1
    gray = [int(sliced.image(index)[0, 0, 0]) for index in range(9)]
    assert gray == [0, 0, 0, round(top / 2), round(0.75 * top), top, top, top, 0]
    assert sliced.image(0).dtype == (np.uint8 if bits == 8 else np.uint16)


@given(gain=st.floats(0.01, 100), offset=st.floats(-1000, 1000))
def test_percentiles_do_not_see_the_units_of_mr(gain: float, offset: float) -> None:
    voxels = np.random.default_rng(0).normal(size=(4, 5, 6))
    affine = turned_affine(RAS, (4, 5, 6))
    one, other = (
        SlicedVolume(Volume(v, affine), Slicing()) for v in (voxels, gain * voxels + offset)
    )
    for index in range(len(one)):
        difference = one.image(index).astype(int) - other.image(index)
        assert np.abs(difference).max() <= 1
    gray = np.stack([one.image(index) for index in range(len(one))])
    assert (gray.min(), gray.max()) == (0, 255)


def test_a_constant_volume_is_black_and_one_without_numbers_is_refused() -> None:
    affine = turned_affine(RAS, (2, 2, 2))
    constant = SlicedVolume(Volume(np.full((2, 2, 2), 7), affine), Slicing())
    assert not constant.image(0).any()
    with pytest.raises(DxsegError, match="finite"):
        SlicedVolume(Volume(np.full((2, 2, 2), np.nan), affine), Slicing())


def test_neighbours_become_channels_and_repeat_at_the_ends() -> None:
    voxels = np.broadcast_to(np.arange(5.0), (2, 3, 5))
    volume = Volume(voxels, turned_affine(RAS, (2, 3, 5)))
    sliced = SlicedVolume(volume, Slicing(window=(127.5, 255.0), neighbours=2))
    channels = [sliced.image(index)[0, 0].tolist() for index in range(5)]
    assert channels == [
        [0, 0, 0, 1, 2],
        [0, 0, 1, 2, 3],
        [0, 1, 2, 3, 4],
        [1, 2, 3, 4, 4],
        [2, 3, 4, 4, 4],
    ]
    assert sliced.image(0).shape == (3, 2, 5)


def test_windows_as_the_command_line_takes_them() -> None:
    assert parse_window("lung") == (-600, 1500)
    assert parse_window("40,400") == (40, 400)
    assert parse_window("percentiles") is None
    for wrong in ("bone marrow", "40", "40,-1", "nan,5", "1,2,3", "inf,1", ""):
        with pytest.raises(UsageError, match=r"expected liver, lung.*LEVEL,WIDTH"):
            parse_window(wrong)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"axis": "diagonal"}, ["axis", "diagonal"]),
        ({"neighbours": -1}, ["neighbours", "-1"]),
        ({"bits": 12}, ["bits", "12"]),
        ({"percentiles": (90, 10)}, ["percentiles", "rising"]),
    ],
)
def test_wrong_rules_are_named(fields, words) -> None:
    with pytest.raises(UsageError) as caught:
        make_slicing(**fields)
    for word in words:
        assert word in str(caught.value)


def test_padding_below_air_is_in_no_percentile() -> None:
    affine = turned_affine(RAS, (10, 10, 10))
    scanned = np.random.default_rng(0).integers(-1000, 400, (10, 10, 10)).astype(np.int16)
    padded = scanned.copy()
    padded[:3] = -3024
    inside = SlicedVolume(
        Volume(scanned[3:], turned_affine(RAS, (7, 10, 10))), Slicing(axis="axial")
    )
    sliced = SlicedVolume(Volume(padded, affine), Slicing(axis="axial"))
    for index in range(10):
        shown = sliced.image(index)
        # The patient's right is at the left of the image, so low columns are at its right.
        assert not shown[:, -3:].any()
        assert np.array_equal(shown[:, :-3], inside.image(index))
    low = scanned.copy()
    low[:3] = np.random.default_rng(1).integers(-3000, -1024, (3, 10, 10))
    gray = SlicedVolume(Volume(low, affine), Slicing(axis="axial")).image(0)
    assert gray[:, -3:].any(), "low values of every kind are measured, as in a phase image of MR"

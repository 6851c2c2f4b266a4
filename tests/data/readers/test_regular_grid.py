"""Volumes that lie askew or unevenly, on a regular grid and back: a ball of known size."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from dxseg.data.readers import regular_grid
from dxseg.data.readers.regular_grid import RegularGrid, is_regular, oblique_degrees
from dxseg.data.readers.sliced_volume import SlicedVolume, slice_grid
from dxseg.data.readers.slicing import Slicing
from dxseg.data.readers.volume import Volume
from dxseg.errors import DxsegError
from volume_phantom import TURNS, depth_in_ball, dice, turned_affine

SHAPE = (48, 44, 26)
SPACING = np.array([1.0, 1.1, 2.5])
CENTER, RADIUS = (24.0, 23.0, 31.0), 13.0
BALL_MM3 = 4 / 3 * np.pi * RADIUS**3
RULE = Slicing(axis="axial", window=(100.0, 200.0), resample=True)

Points = NDArray[np.float64]


def straight() -> NDArray[np.float64]:
    return np.diag([*SPACING, 1.0])


def tilted() -> NDArray[np.float64]:
    """By 15 degrees: each slice is shifted to the front."""
    affine = straight()
    affine[1, 2] = SPACING[2] * np.tan(np.deg2rad(15))
    affine[1, 3] = -8.0
    return affine


def rotated() -> NDArray[np.float64]:
    """By 20 and 12 degrees about two axes, around the ball."""
    affine = straight()
    turn = Rotation.from_euler("xz", [20, 12], degrees=True).as_matrix()
    affine[:3, :3] = turn @ affine[:3, :3]
    affine[:3, 3] = CENTER - affine[:3, :3] @ ((np.array(SHAPE) - 1) / 2)
    return affine


def mirrored() -> NDArray[np.float64]:
    """Rotated, and stored from head to feet and from left to right."""
    flip = np.diag([-1.0, 1, -1, 1])
    flip[:3, 3] = [SHAPE[0] - 1, 0, SHAPE[2] - 1]
    return rotated() @ flip


def uneven_positions() -> Points:
    """Gaps of 1.5 to 4 mm; the slices are shifted a little too."""
    generator = np.random.default_rng(0)
    heights = np.cumsum(generator.choice([1.5, 2.5, 2.5, 2.5, 4.0], SHAPE[2])) - 1.5
    return np.stack([0.3 * generator.standard_normal(SHAPE[2]), 0 * heights, heights], axis=1)


def make(affine: NDArray[np.float64], positions: Points | None = None) -> Volume:
    """A volume of value 0 to 400 by the distance to the ball's surface: 200 on it."""
    indices = np.moveaxis(np.indices(SHAPE), 0, -1).astype(float)
    if positions is None:
        points = indices @ affine[:3, :3].T + affine[:3, 3]
    else:
        points = positions[indices[..., 2].astype(int)]
        points = points + indices[..., :2] @ affine[:3, :2].T
    return Volume(field(points).astype(np.float32), affine, positions=positions)


def field(points: Points) -> Points:
    return 200 + 20 * depth_in_ball(points, CENTER, RADIUS)


def uneven() -> Volume:
    positions = uneven_positions()
    affine = straight()
    affine[:3, 2] = (positions[-1] - positions[0]) / (SHAPE[2] - 1)
    affine[:3, 3] = positions[0]
    return make(affine, positions)


VOLUMES: dict[str, Callable[[], Volume]] = {
    "tilted gantry": lambda: make(tilted()),
    "rotated": lambda: make(rotated()),
    "rotated and mirrored": lambda: make(mirrored()),
    "uneven": uneven,
}


@pytest.mark.parametrize("name", VOLUMES)
def test_the_ball_is_where_it_is_and_its_mask_comes_back(name: str) -> None:
    volume = VOLUMES[name]()
    assert not is_regular(volume)
    inside = volume.voxels > 200
    sliced = SlicedVolume(volume, RULE)
    assert sliced.is_resampled
    masks = sliced.turn(inside.astype(np.uint8))
    grid = RegularGrid(volume)
    assert sliced.voxel_mm3 == pytest.approx(np.prod(grid.affine.diagonal()[:3]))
    points = np.moveaxis(np.indices(grid.shape), 0, -1) * grid.affine.diagonal()[:3]
    truth = np.moveaxis(field(points + grid.affine[:3, 3]) > 200, 2, 0)
    shown = np.flip(truth.transpose(0, 2, 1), (1, 2))
    assert dice(masks, shown) > 0.95
    # Between slices that are far apart, the outline is a straight line.
    near = 0.06 if volume.positions is not None else 0.03
    assert masks.sum() * sliced.voxel_mm3 == pytest.approx(BALL_MM3, rel=near)
    bright = np.stack([sliced.image(index)[:, :, 0] for index in range(len(sliced))]) > 254
    assert dice(bright, masks) > 0.95, "the mask lies on what the images show"
    back = sliced.restore(masks)
    assert back.shape == SHAPE
    assert back.dtype == np.uint8
    assert dice(back, inside) > 0.95


@pytest.mark.parametrize("name", VOLUMES)
def test_voxels_keep_their_values_and_outside_is_nan(name: str) -> None:
    """A linear field is interpolated without error."""
    volume = VOLUMES[name]()
    grid = RegularGrid(volume)
    slope = np.array([3.0, -2.0, 5.0])
    indices = np.moveaxis(np.indices(SHAPE), 0, -1).reshape(-1, 3).astype(float)
    at = grid._to_grid(indices) * grid.affine.diagonal()[:3] + grid.affine[:3, 3]
    np.testing.assert_allclose(grid.to_voxels(at), indices, atol=1e-6)
    linear = Volume(
        (at @ slope).reshape(SHAPE).astype(np.float32),
        volume.affine,
        positions=volume.positions,
    )
    found = grid.resample(linear).voxels
    points = np.moveaxis(np.indices(grid.shape), 0, -1) * grid.affine.diagonal()[:3]
    expected = (points + grid.affine[:3, 3]) @ slope
    inner = np.moveaxis(np.indices(grid.shape), 0, -1).reshape(-1, 3).astype(float)
    places = grid._to_volume(inner).reshape(*grid.shape, 3)
    within = ((places >= 0) & (places <= np.array(SHAPE) - 1)).all(axis=-1)
    np.testing.assert_allclose(found[within], expected[within], atol=0.02)
    beyond = ((places < -0.51) | (places > np.array(SHAPE) - 0.49)).any(axis=-1)
    assert np.isnan(found[beyond]).all()
    assert within.mean() > 0.3


def test_values_of_label_maps_stay_apart() -> None:
    volume = make(rotated())
    labels = np.zeros(SHAPE, np.uint16)
    labels[8:24, 8:36, 6:20], labels[24:40, 8:36, 6:20] = 300, 7
    grid = RegularGrid(volume)
    found = grid.labels(labels)
    assert found.dtype == np.uint16
    assert set(np.unique(found)) == {0, 7, 300}
    back = grid.restore(found)
    for value in (7, 300):
        assert dice(back == value, labels == value) > 0.93
    unknown = np.broadcast_to(np.arange(SHAPE[2]) > 20, SHAPE)
    assert grid.labels(unknown).dtype == np.bool_


def test_volumes_along_the_axes_are_left_alone() -> None:
    for turn in TURNS:
        shape = tuple(SHAPE[axis] for axis in turn[0])
        volume = Volume(np.zeros(shape, np.int16), turned_affine(turn, SHAPE))
        assert is_regular(volume)
        assert not SlicedVolume(volume, RULE).is_resampled
        assert oblique_degrees(volume.affine) == pytest.approx(0, abs=1e-4)
    slight = straight()
    slight[:3, :3] = Rotation.from_euler("x", 0.3, degrees=True).as_matrix() @ slight[:3, :3]
    assert is_regular(make(slight)), "by less than half a voxel"
    assert oblique_degrees(rotated()) == pytest.approx(21.9, abs=3)
    assert not SlicedVolume(
        make(rotated()), RULE.model_copy(update={"resample": None})
    ).is_resampled


def test_slices_are_counted_without_voxels() -> None:
    for volume in (uneven(), make(rotated())):
        counted = slice_grid(volume.affine, SHAPE, RULE, volume.positions)
        assert len(counted) == len(SlicedVolume(volume, RULE))


def test_a_giant_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(regular_grid, "VOXEL_LIMIT", 10_000)
    with pytest.raises(DxsegError, match=r"48 x 44 x 26 voxels would be .* along the patient's"):
        RegularGrid(make(rotated()))


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (0, 2, 1)])
def test_the_distance_of_sheared_slices_is_that_across_them(order: tuple[int, int, int]) -> None:
    """Whichever axis of the file the slices are along, they are as far apart."""
    affine = tilted()[:, [*order, 3]]
    shape = tuple(SHAPE[axis] for axis in order)
    grid = RegularGrid(Volume(np.zeros(shape, np.int16), affine))
    np.testing.assert_allclose(grid.affine.diagonal()[:3], SPACING)


def test_one_slice_has_its_thickness() -> None:
    affine = rotated()
    volume = Volume(np.ones((30, 30, 1), np.float32), affine)
    found = RegularGrid(volume).resample(volume).voxels
    assert np.nansum(found) == pytest.approx(900, rel=0.35)

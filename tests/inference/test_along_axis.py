"""Slices of a volume together: what the stream predicts of them, against scipy and by hand."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import pandas as pd
import pytest
from scipy.ndimage import gaussian_filter1d

from dxseg.data.readers.slicing import Slicing
from dxseg.data.readers.volume import Volume
from dxseg.data.table.volumes import SlicePosition, slice_positions
from dxseg.errors import DxsegError
from dxseg.inference.components import ComponentFilter
from dxseg.inference.files.volumes import predict_slices, predict_volume
from dxseg.inference.pipeline import Prediction

SIZE, SPACING = 32, 2.0


def noise(slices: int, seed: int = 0) -> np.ndarray:
    """Gray values (D, H, W) around the network's threshold."""
    return np.random.default_rng(seed).integers(90, 170, (slices, SIZE, SIZE), dtype=np.uint8)


def items(gray: np.ndarray, volume: str = "a") -> Iterator[tuple[str, partial[np.ndarray]]]:
    for index, pixels in enumerate(gray):
        yield f"{volume}{index}", partial(np.array, pixels[:, :, None])


def positions(count: int, volume: str = "a", spacing: float | None = SPACING) -> dict:
    return {f"{volume}{n}": SlicePosition(volume, n, spacing) for n in range(count)}


def stacked(results: list[tuple[str, Prediction | DxsegError]]) -> np.ndarray:
    found = [result.probabilities[0] for _, result in results if isinstance(result, Prediction)]
    return np.stack(found)


def by_scipy(probabilities: np.ndarray, sigma: float) -> np.ndarray:
    """A Gaussian along the first axis, whose weights add up to one at the ends too."""
    options = {"axis": 0, "mode": "constant", "truncate": 3.0}
    weights = gaussian_filter1d(np.ones_like(probabilities), sigma, **options)
    return gaussian_filter1d(probabilities, sigma, **options) / weights


@pytest.mark.parametrize("sigma_mm", [1.0, 2.0, 4.5])
@pytest.mark.parametrize("count", [1, 2, 13])
def test_probabilities_are_those_of_scipys_gaussian(make_predictor, sigma_mm, count):
    gray = noise(count)
    alone = stacked(list(make_predictor(size=SIZE).stream(items(gray))))
    predictor = make_predictor(size=SIZE, smoothing_mm=sigma_mm)
    results = list(predictor.stream(items(gray), positions=positions(count)))
    expected = by_scipy(alone.astype(np.float64), sigma_mm / SPACING)
    np.testing.assert_allclose(stacked(results), expected, atol=1e-6)
    for (name, result), probabilities, index in zip(results, expected, range(count), strict=True):
        assert name == f"a{index}"
        certain = np.abs(probabilities - 0.5) > 1e-5
        assert np.array_equal(result.mask[certain] > 0, probabilities[certain] >= 0.5)


def test_volumes_images_and_unknown_distances_do_not_mix(make_predictor):
    predictor = make_predictor(size=SIZE, smoothing_mm=3.0)
    parts = {"a": noise(5), "b": noise(3, 1), "c": noise(4, 2)}
    places = positions(5, "a") | positions(4, "c", None)
    every = [one for name, gray in parts.items() for one in items(gray, name)]
    results = list(predictor.stream(every, positions=places))
    assert [name for name, _ in results] == [name for name, _ in every]
    found = stacked(results)
    alone = stacked(list(predictor.stream(every)))
    np.testing.assert_array_equal(found[5:], alone[5:])
    np.testing.assert_allclose(found[:5], by_scipy(alone[:5].astype(np.float64), 1.5), atol=1e-6)


def test_slices_that_fail_or_are_missing_leave_their_weight_to_the_others(make_predictor):
    predictor = make_predictor(size=SIZE, smoothing_mm=SPACING, components=ComponentFilter())
    gray = noise(6)

    def broken() -> np.ndarray:
        raise DxsegError("unreadable")

    given = [("a2", broken) if name == "a2" else (name, read) for name, read in items(gray)]
    del given[4]
    results = list(predictor.stream(given, positions=positions(6)))
    assert [isinstance(result, DxsegError) for _, result in results] == [False] * 2 + [True] + [
        False
    ] * 2
    alone = {
        index: make_predictor(size=SIZE).predict([gray[index][..., None]])[0] for index in range(6)
    }
    weights = {other: np.exp(-0.5 * (3 - other) ** 2) for other in (0, 1, 3, 5)}
    mean = sum(w * alone[other].probabilities for other, w in weights.items())
    np.testing.assert_allclose(results[3][1].probabilities, mean / sum(weights.values()), atol=1e-6)


def test_few_slices_are_ahead_of_what_was_yielded(make_predictor):
    taken = []

    def endless():
        for name, read in items(np.broadcast_to(noise(1), (10_000, SIZE, SIZE))):
            taken.append(name)
            yield name, read

    predictor = make_predictor(size=SIZE, smoothing_mm=2 * SPACING, batch_size=2)
    stream = predictor.stream(endless(), positions=positions(10_000))
    for number in range(50):
        next(stream)
        assert len(taken) <= number + 1 + 6 + 3 * 2
    stream.close()


def lesion_and_speck() -> np.ndarray:
    """A lesion of 2 x 2 pixels through five slices, and a speck of 3 x 3 in one of them."""
    gray = np.full((9, SIZE, SIZE), 10, np.uint8)
    gray[2:7, 4:6, 4:6] = 250
    gray[4, 20:23, 20:23] = 250
    return gray


@pytest.mark.parametrize(
    "chosen",
    [
        ComponentFilter(by_volume=True, min_area=12),
        ComponentFilter(by_volume=True, largest_only=True),
    ],
)
def test_components_are_those_of_the_volume(make_predictor, chosen):
    gray = lesion_and_speck()
    predictor = make_predictor(size=SIZE, components=chosen)
    both = [*items(gray), *items(gray, "b")]
    results = list(predictor.stream(both, positions=positions(9) | positions(9, "b")))
    assert [name for name, _ in results] == [name for name, _ in both]
    masks = np.stack([result.mask for _, result in results]).reshape(2, 9, SIZE, SIZE)
    truth = gray > 127
    truth[4, 20:] = False
    assert np.array_equal(masks[0] > 0, truth)
    assert np.array_equal(masks[1] > 0, truth)
    # Slices alone have no components of a volume.
    assert [result.mask.any() for _, result in predictor.stream(items(gray))] == [
        plane.any() for plane in gray > 127
    ]


def test_a_slice_that_is_known_to_have_a_lesion_keeps_it(make_predictor):
    gray = lesion_and_speck()
    gray[0, 10, 10] = 250
    predictor = make_predictor(
        size=SIZE, lesion_free=("normal",), components=ComponentFilter(by_volume=True, min_area=12)
    )
    masks = {
        name: result.mask
        for name, result in predictor.stream(
            items(gray), labels={"a0": "bright"}, positions=positions(9)
        )
    }
    assert masks["a0"].sum() == 1
    assert masks["a4"].sum() == 4
    unprompted = dict(predictor.stream(items(gray), positions=positions(9)))
    assert not unprompted["a0"].mask.any()


def lesion_of_160_mm3(distance: float) -> np.ndarray:
    """4 x 4 pixels of 1 mm through 10 mm, and a speck of one voxel."""
    gray = np.full((round(30 / distance), SIZE, SIZE), 10, np.uint8)
    gray[2 : 2 + round(10 / distance), 4:8, 4:8] = 250
    gray[0, 20, 20] = 250
    return gray


@pytest.mark.parametrize("distance", [1.0, 2.5, 5.0])
@pytest.mark.parametrize(
    ("chosen", "stays"),
    [
        (ComponentFilter(by_volume=True, min_volume_mm3=150), True),
        (ComponentFilter(by_volume=True, min_volume_mm3=170), False),
    ],
)
def test_the_smallest_volume_does_not_depend_on_the_distance_of_slices(
    make_predictor, distance, chosen, stays
):
    gray = lesion_of_160_mm3(distance)
    slicing = Slicing(axis="axial", window=(127.5, 255.0))
    predictor = make_predictor(size=SIZE, slicing=slicing, components=chosen)
    voxels = gray.transpose(2, 1, 0)[::-1, ::-1].astype(np.float32)
    affine = np.diag([1.0, 1.0, distance, 1.0])
    found = predict_volume(predictor, Volume(np.ascontiguousarray(voxels), affine)).slices
    assert found.sum() * distance == (160 if stays else 0)
    rows = {"volume_id": "a", "slice_index": pd.array(range(len(gray)), "Int64")}
    table = pd.DataFrame(rows | {"spacing_y": 1.0, "spacing_x": 1.0, "spacing_z": distance})
    places = slice_positions(table, physical=True)
    stream = predictor.stream(
        items(gray), positions={f"a{place.index}": place for place in places if place}
    )
    np.testing.assert_array_equal(np.stack([result.mask for _, result in stream]), found)


def test_a_model_that_recorded_pixels_still_counts_pixels(make_predictor):
    recorded = '{"by_volume": true, "largest_only": false, "min_area": 64}'
    predictor = make_predictor(size=SIZE, components=ComponentFilter.model_validate_json(recorded))
    for distance, stays in ((1.0, True), (5.0, False)):
        gray = lesion_of_160_mm3(distance)
        places = {f"a{n}": SlicePosition("a", n, distance, distance) for n in range(len(gray))}
        stream = predictor.stream(items(gray), positions=places)
        assert any(result.mask.any() for _, result in stream) == stays


def test_a_volume_is_predicted_as_its_slices_are(make_predictor):
    """One path: a volume in a file, its slices in a table, and some of its slices for a reader."""
    gray = noise(12, 3)
    voxels = gray.transpose(2, 1, 0)[::-1, ::-1].astype(np.float32)  # columns lead to the left
    volume = Volume(np.ascontiguousarray(voxels), np.diag([1.0, 1.0, SPACING, 1.0]))
    slicing = Slicing(axis="axial", window=(127.5, 255.0))
    for components in (None, ComponentFilter(by_volume=True, min_area=20)):
        predictor = make_predictor(
            size=SIZE, slicing=slicing, smoothing_mm=3.0, components=components
        )
        stream = predictor.stream(items(gray), positions=positions(12))
        expected = np.stack([result.mask for _, result in stream])
        found = predict_volume(predictor, volume).mask
        assert 0.05 < expected.astype(bool).mean() < 0.95
        assert np.array_equal(found[::-1, ::-1].transpose(2, 1, 0), expected)
    predictor = make_predictor(size=SIZE, slicing=slicing, smoothing_mm=3.0)
    where = {"spacing": None, "distance": SPACING}
    some = dict(predict_slices(predictor, lambda n: gray[n][..., None], range(5, 8), 12, **where))
    assert list(some) == [5, 6, 7]
    stream = dict(predictor.stream(items(gray), positions=positions(12)))
    for index, result in some.items():
        np.testing.assert_allclose(
            result.probabilities, stream[f"a{index}"].probabilities, atol=1e-6
        )

"""From an image of any size to the network's square and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from dxseg.data.geometry import (
    Geometry,
    attainable_by_lesion,
    attainable_dice,
    fit_geometry,
    zoom_to,
)
from dxseg.data.preprocessing import (
    Preprocessing,
    cut_mask,
    fit_image,
    fit_mask,
    fit_soft_mask,
    intensity_range,
)
from dxseg.errors import DxsegError

SIZES = st.tuples(st.integers(1, 150), st.integers(1, 150))


def preprocessing(**changes: Any) -> Preprocessing:
    values: dict[str, Any] = {"image_size": 64, "channels": 1, "mean": (0.5,), "std": (0.25,)}
    return Preprocessing(**(values | changes))


def smooth(height: int, width: int) -> np.ndarray:
    """A slow wave (H, W) in [0, 1]; a resize and back should hardly change it."""
    y = np.linspace(0, np.pi, height)[:, None]
    x = np.linspace(0, np.pi, width)[None]
    return (np.sin(y) * np.cos(x) + 1) / 2


class TestFit:
    @given(SIZES, st.sampled_from([32, 48, 64]))
    @settings(max_examples=60, deadline=None)
    def test_the_longer_side_fills_the_square_and_the_aspect_is_kept(
        self, size: tuple[int, int], image_size: int
    ) -> None:
        geometry = fit_geometry(*size, image_size)
        fitted = (geometry.fitted_height, geometry.fitted_width)
        assert max(fitted) == image_size
        assert min(fitted) >= 1
        exact = [side * image_size / max(size) for side in size]
        assert all(
            abs(got - want) <= 0.5 or got == 1 for got, want in zip(fitted, exact, strict=True)
        )

    @given(SIZES, st.sampled_from([np.uint8, np.uint16]), st.sampled_from([1, 3, 5]))
    @settings(max_examples=40, deadline=None)
    def test_padding_is_zero_below_and_right(
        self, size: tuple[int, int], dtype: Any, channels: int
    ) -> None:
        image = np.full((*size, channels), np.iinfo(dtype).max, dtype)
        square, geometry = fit_image(image, 48)
        assert square.shape == (48, 48, channels)
        assert square.dtype == dtype
        inside = square[: geometry.fitted_height, : geometry.fitted_width]
        assert (inside == np.iinfo(dtype).max).all()  # not wrapped round by the interpolation
        assert square.sum(dtype=np.int64) == inside.sum(dtype=np.int64)
        assert (geometry.height, geometry.width) == size

    def test_an_image_that_fits_already_is_untouched(self) -> None:
        image = np.random.default_rng(0).integers(0, 65536, (32, 20, 2)).astype(np.uint16)
        square, geometry = fit_image(image, 32)
        assert np.array_equal(square[:, :20], image)
        assert geometry == Geometry(32, 20, 32, 20)

    def test_shrinking_averages(self) -> None:
        """A fine chequerboard becomes gray; without anti-aliasing it would stay black or white."""
        board = (np.indices((128, 128)).sum(axis=0) % 2 * 254).astype(np.uint8)[..., None]
        square, _ = fit_image(board, 32)
        assert np.abs(square[2:-2, 2:-2].astype(int) - 127).max() <= 6

    @pytest.mark.parametrize(
        ("shape", "dtype"), [((8, 8, 3), np.uint8), ((8, 8, 1), np.uint16), ((8, 8, 1), np.float32)]
    )
    def test_another_kind_of_image_than_the_models_is_refused(
        self, shape: tuple[int, ...], dtype: Any
    ) -> None:
        with pytest.raises(DxsegError, match="trained on 1 channels, uint8"):
            preprocessing().fit(np.zeros(shape, dtype))


class TestMask:
    @given(SIZES, st.integers(1, 4), st.integers(0, 2**32 - 1))
    @settings(max_examples=40, deadline=None)
    def test_values_stay_classes_and_padding_background(
        self, size: tuple[int, int], classes: int, seed: int
    ) -> None:
        mask = np.random.default_rng(seed).integers(0, classes + 1, size).astype(np.uint8)
        square = fit_mask(mask, 32, classes)
        geometry = fit_geometry(*size, 32)
        assert square.shape == (32, 32)
        assert square.dtype == np.uint8
        assert set(np.unique(square)) <= set(range(classes + 1))
        assert not square[geometry.fitted_height :].any()
        assert not square[:, geometry.fitted_width :].any()

    @pytest.mark.parametrize("value", [1, 2, 3])
    def test_a_uniform_mask_keeps_its_class(self, value: int) -> None:
        assert (fit_mask(np.full((90, 90), value, np.uint8), 32, 3) == value).all()

    def test_the_mask_lies_where_its_lesion_lies_in_the_image(self) -> None:
        y, x = np.mgrid[:120, :90]
        disk = ((y - 70) ** 2 + (x - 30) ** 2 < 20**2).astype(np.uint8)
        square, _ = fit_image(disk[..., None] * np.uint8(255), 64)
        mask = fit_mask(disk, 64, 1)
        assert np.array_equal(mask > 0, square[..., 0] >= 128)

    def test_a_pixel_takes_the_class_that_covers_half_of_it(self) -> None:
        """Class 2 next to class 1 leaves no gap of background where the two meet."""
        mask = np.ones((64, 64), np.uint8)
        mask[:, 33:] = 2
        square = fit_mask(mask, 32, 2)
        assert (square[:, :16] == 1).all()
        assert (square[:, 17:] == 2).all()


class TestRestore:
    @given(st.tuples(st.integers(40, 150), st.integers(40, 150)))
    @settings(max_examples=25, deadline=None)
    def test_undoes_fit_for_smooth_images(self, size: tuple[int, int]) -> None:
        image = smooth(*size)
        square, geometry = fit_image((image * 65535).astype(np.uint16)[..., None], 96)
        probabilities = torch.from_numpy(square[..., 0].astype(np.float32) / 65535)[None]
        restored = preprocessing(image_size=96).postprocess(probabilities, geometry)
        assert restored.shape == (1, *size)
        assert restored.dtype == torch.float32
        assert np.abs(restored[0].numpy() - image).max() < 0.04

    def test_padding_never_comes_back(self) -> None:
        """What the network says of the padding does not leak into the image."""
        geometry = fit_geometry(100, 25, 64)
        probabilities = torch.ones(2, 64, 64)
        probabilities[:, : geometry.fitted_height, : geometry.fitted_width] = 0
        assert not preprocessing().postprocess(probabilities, geometry).any()

    def test_a_disk_comes_back_in_place(self) -> None:
        y, x = np.mgrid[:150, :110]
        disk = (y - 90) ** 2 + (x - 40) ** 2 < 25**2
        mask = fit_mask(disk.astype(np.uint8), 64, 1)
        probabilities = torch.from_numpy(mask.astype(np.float32))[None]
        restored = preprocessing().postprocess(probabilities, fit_geometry(150, 110, 64))[0] > 0.5
        overlap = (restored.numpy() & disk).sum() / (restored.numpy() | disk).sum()
        assert overlap > 0.93


class TestNormalize:
    @pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16])
    def test_closed_form(self, dtype: torch.dtype) -> None:
        stored = torch.tensor([0, 51, 102, 255], dtype=dtype).reshape(1, 1, 2, 2)
        wanted = (torch.tensor([0.0, 0.2, 0.4, 1.0]) - 0.5) / 0.25
        got = preprocessing().normalize(stored)
        assert got.dtype == torch.float32
        assert torch.allclose(got.flatten(), wanted)

    def test_what_lies_outside_the_range_is_clipped(self) -> None:
        stored = torch.tensor([0, 100, 1000, 3000, 60000], dtype=torch.uint16).reshape(1, 1, 1, 5)
        scaled = preprocessing(dtype="uint16", low=100, high=2100).scale(stored)
        assert torch.allclose(scaled.flatten(), torch.tensor([0.0, 0.0, 0.45, 1.0, 1.0]))

    def test_every_channel_has_its_own_statistics(self) -> None:
        p = preprocessing(channels=2, mean=(0.0, 1.0), std=(1.0, 0.5))
        got = p.normalize(torch.full((3, 2, 4, 4), 255, dtype=torch.uint8))
        assert torch.allclose(got[:, 0], torch.ones(3, 4, 4))
        assert torch.allclose(got[:, 1], torch.zeros(3, 4, 4))

    @pytest.mark.parametrize(
        "changes",
        [
            {"mean": (0.5, 0.5)},
            {"std": (0.0,)},
            {"std": (-1.0,)},
            {"low": 5.0, "high": 5.0},
            {"high": float("nan")},
            {"image_size": 16},
            {"channels": 0},
            {"dtype": "float32"},
            {"unknown": 1},
        ],
    )
    def test_senseless_values_are_refused(self, changes: dict[str, Any]) -> None:
        with pytest.raises(ValidationError):
            preprocessing(**changes)


class TestIntensityRange:
    def test_eight_bit_uses_all_of_it(self) -> None:
        images = np.full((3, 4, 4, 1), 7, np.uint8)
        assert intensity_range(images, np.arange(3)) == (0.0, 255.0)

    @given(st.integers(1, 40), st.integers(0, 2**32 - 1))
    @settings(max_examples=20, deadline=None)
    def test_sixteen_bit_percentiles_are_numpys(self, count: int, seed: int) -> None:
        generator = np.random.default_rng(seed)
        images = generator.integers(0, 4096, (count, 8, 8, 2)).astype(np.uint16)
        low, high = intensity_range(images, np.arange(count))
        assert (low, high) == pytest.approx(tuple(np.percentile(images, [0.1, 99.9])))

    def test_only_the_given_rows_count(self) -> None:
        images = np.zeros((4, 8, 8, 1), np.uint16)
        images[1], images[3] = 1000, 60000
        assert intensity_range(images, np.array([1])) == (1000.0, 1001.0)  # never an empty range
        low, high = intensity_range(images, np.array([0, 1]))
        assert (low, high) == (0.0, 1000.0)

    def test_a_few_hot_pixels_do_not_darken_everything(self) -> None:
        images = np.full((4, 64, 64, 1), 1000, np.uint16)
        images[:, ::2] = 200
        images[0, 0, 0] = 65535
        assert intensity_range(images, np.arange(4)) == (200.0, 1000.0)

    def test_a_large_archive_is_sampled_not_read(self) -> None:
        class Counting:
            dtype = np.dtype(np.uint16)
            read = 0

            def __getitem__(self, row: int) -> np.ndarray:
                self.read += 1
                return np.arange(16, dtype=np.uint16).reshape(4, 4, 1)

        images: Any = Counting()
        low, high = intensity_range(images, np.arange(1_000_000))
        assert images.read <= 256
        assert 0 <= low < high <= 15


@settings(deadline=None, max_examples=60)
@given(st.integers(33, 150), st.integers(33, 150), st.integers(1, 12), st.integers(0, 9999))
def test_the_attainable_dice_is_that_of_true_masks_through_preprocessing_and_back(
    height: int, width: int, radius: int, seed: int
) -> None:
    """Written without torch, so it is compared with what a prediction goes through."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    row, column = generator.uniform(0, height), generator.uniform(0, width)
    mask = ((y - row) ** 2 + (x - column) ** 2 <= radius**2).astype(np.uint8)
    if not mask.any():
        return
    reduced = torch.from_numpy(fit_mask(mask, 32, 1))[None].float()
    p = preprocessing(image_size=32)
    predicted = p.postprocess(reduced, fit_geometry(height, width, 32))[0].numpy() >= 0.5
    expected = 2 * (predicted & (mask > 0)).sum() / (predicted.sum() + mask.sum())
    # Sums of the two libraries round differently where a pixel is covered by exactly one half.
    assert attainable_dice(mask, 32) == pytest.approx(expected, abs=0.03)


def test_a_lesion_of_one_pixel_vanishes_and_native_size_loses_nothing() -> None:
    mask = np.zeros((256, 256), np.uint8)
    mask[100, 100] = 1
    assert attainable_dice(mask, 64) == 0
    assert attainable_dice(mask, 256) == 1
    mask[98:103, 103:120] = 1
    areas, dice = attainable_by_lesion(mask > 0, 64)
    assert areas.tolist() == [85, 1]
    assert dice[0] > 0.6
    assert dice[1] == 0
    assert (attainable_by_lesion(mask > 0, 256)[1] == 1).all()
    alone = attainable_by_lesion(mask[:, 102:] > 0, 256)[1]
    assert alone == attainable_dice(mask[:, 102:], 256)


class TestSpacing:
    """An image is brought to the spacing of the network before it is fitted into the square."""

    @pytest.mark.parametrize(
        ("size", "spacing", "fitted"),
        [
            ((40, 60), (1.0, 1.0), (20, 30)),
            ((40, 20), (2.0, 4.0), (40, 40)),
            ((40, 60), None, (40, 60)),
            ((10, 12), (2.0, 2.0), (10, 12)),
            ((200, 100), (2.0, 2.0), (64, 32)),
            ((100, 100), (1e6, 1e-6), (64, 1)),
        ],
        ids=["finer", "oblong pixels", "unknown", "small, not enlarged", "too large", "absurd"],
    )
    def test_size(
        self, size: tuple[int, int], spacing: tuple[float, float] | None, fitted: tuple[int, int]
    ) -> None:
        square, geometry = preprocessing(spacing=(2.0, 2.0)).fit(
            np.full((*size, 1), 200, np.uint8), spacing
        )
        assert geometry == Geometry(*size, *fitted)
        assert (square[: fitted[0], : fitted[1]] == 200).all()
        assert square.sum() == 200 * fitted[0] * fitted[1]

    def test_without_a_spacing_of_the_network_that_of_an_image_changes_nothing(self) -> None:
        image = np.arange(24, dtype=np.uint8).reshape(4, 6, 1)
        square, geometry = preprocessing().fit(image, (3.0, 0.1))
        assert geometry == fit_geometry(4, 6, 64)
        np.testing.assert_array_equal(square, fit_image(image, 64)[0])

    def test_a_disk_in_millimeters_is_one_in_the_square_and_comes_back(self) -> None:
        """16 mm across, in pixels of 0.5 x 1 mm."""
        y, x = np.mgrid[:100, :50]
        disk = (((y - 40) * 0.5) ** 2 + (x - 25) ** 2 <= 64).astype(np.uint8)
        p = preprocessing(spacing=(0.8, 0.8))
        zoom = zoom_to(p.spacing, (0.5, 1.0))
        square = fit_mask(disk, 64, 1, zoom)
        sides = [int(square.any(axis=axis).sum()) for axis in (0, 1)]
        assert sides == pytest.approx([16 / 0.8] * 2, abs=1.5)
        geometry = fit_geometry(100, 50, 64, zoom)
        restored = p.postprocess(torch.from_numpy(square)[None].float(), geometry)[0] > 0.5
        overlap = 2 * (restored.numpy() & (disk > 0)).sum() / (restored.sum() + disk.sum())
        assert float(overlap) > 0.93
        assert attainable_dice(disk, 64, zoom) == pytest.approx(float(overlap), abs=0.02)

    def test_a_spacing_that_makes_a_giant_is_refused(self) -> None:
        p = preprocessing(spacing=(0.001, 0.001))
        with pytest.raises(DxsegError, match="correct its spacing"):
            p.resample(np.zeros((100, 100, 1), np.uint8), (5.0, 5.0))


class TestSoftMasks:
    def test_they_are_the_covered_fraction_of_each_pixel(self) -> None:
        """Native size: all or nothing. At half: the filter 1/8, 3/8, 3/8, 1/8."""
        mask = np.zeros((64, 64), np.uint8)
        mask[20:31, 11:40] = 2
        native = fit_soft_mask(mask, 64, 2)
        np.testing.assert_array_equal(native, np.stack([mask * 0, (mask == 2) * 255]))
        half = fit_soft_mask(mask, 32, 2)
        kernel = np.zeros((32, 64))
        for row in range(32):
            for column, weight in enumerate((1, 3, 3, 1), 2 * row - 1):
                kernel[row, min(max(column, 0), 63)] += weight / 8
        expected = kernel @ (mask == 2) @ kernel.T
        assert half.shape == (2, 32, 32)
        assert not half[0].any()
        np.testing.assert_allclose(half[1] / 255, expected, atol=0.5 / 255 + 1e-6)

    @settings(deadline=None, max_examples=30)
    @given(SIZES, st.integers(0, 9999))
    def test_cut_at_one_half_they_are_the_masks_that_are_not_soft(
        self, size: tuple[int, int], seed: int
    ) -> None:
        mask = np.random.default_rng(seed).integers(0, 3, size, dtype=np.uint8)
        soft = fit_soft_mask(mask, 32, 2)
        differs = cut_mask(soft, 255) != fit_mask(mask, 32, 2)
        top = np.sort(soft.astype(int), axis=0)
        tie = (np.abs(top[1] - 127.5) < 1) | (top[1] - top[0] <= 1)
        assert not (differs & ~tie).any()

    def test_true_masks_keep_more_of_themselves(self) -> None:
        y, x = np.mgrid[:256, :256]
        disks = [
            ((y - row) ** 2 + (x - 1.3 * row) ** 2 <= radius**2).astype(np.uint8)
            for row, radius in ((60.2, 4.3), (100.7, 6.1), (150.1, 9.4))
        ]
        cut, soft = (
            np.mean([attainable_dice(disk, 128, soft=soft) for disk in disks])
            for soft in (False, True)
        )
        assert soft > cut
        assert soft > 0.97

"""Image and mask move together, and the same seed moves them the same way."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dxseg.config.schema import AugmentConfig
from dxseg.data.batches.augment import augment_pair, build_augmentation, random_state

STILL: dict[str, Any] = {
    "degrees": 0,
    "translate": 0,
    "scale": (1, 1),
    "shear": 0,
    "horizontal_flip": 0,
    "vertical_flip": 0,
    "brightness": 0,
    "contrast": 0,
    "gamma": 0,
    "noise": 0,
}
GEOMETRY = {"brightness": 0, "contrast": 0, "gamma": 0, "noise": 0}


def disk(size: int = 64, channels: int = 1) -> tuple[Tensor, Tensor]:
    """A bright disk off the center and its mask."""
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    mask = ((y - size * 0.4) ** 2 + (x - size * 0.6) ** 2 < (size * 0.2) ** 2).to(torch.uint8)
    return mask.float()[None].repeat(channels, 1, 1), mask


def augment(config: AugmentConfig, image: Tensor, mask: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    with random_state(seed):
        return augment_pair(build_augmentation(config), image, mask)


@pytest.mark.parametrize("seed", range(12))
def test_the_mask_stays_on_the_disk(seed: int) -> None:
    config = AugmentConfig(**GEOMETRY, vertical_flip=0.5, degrees=90, scale=(0.6, 1.4))
    image, mask = augment(config, *disk(), seed)
    bright = image[0] > 0.5
    overlap = (bright & (mask > 0)).sum() / (bright | (mask > 0)).sum()
    assert overlap > 0.9
    assert set(mask.unique().tolist()) <= {0, 1}


@pytest.mark.parametrize(("flip", "axis"), [("horizontal_flip", -1), ("vertical_flip", -2)])
def test_a_flip_is_a_flip_of_both(flip: str, axis: int) -> None:
    image, mask = disk()
    out_image, out_mask = augment(AugmentConfig(**(STILL | {flip: 1})), image, mask, 0)
    assert torch.equal(out_image, image.flip(axis))
    assert torch.equal(out_mask, mask.flip(axis))


def test_no_strength_changes_nothing() -> None:
    image, mask = torch.rand(3, 32, 32), torch.randint(0, 3, (32, 32), dtype=torch.uint8)
    out_image, out_mask = augment(AugmentConfig(**STILL), image, mask, 7)
    assert torch.allclose(out_image, image, atol=1e-6)
    assert torch.equal(out_mask, mask)


def test_intensity_leaves_the_mask_alone() -> None:
    config = AugmentConfig(**(STILL | {"brightness": 1, "contrast": 0.9, "gamma": 0.9}))
    image, mask = disk()
    out_image, out_mask = augment(config, image * 0.5 + 0.2, mask, 3)
    assert torch.equal(out_mask, mask)
    assert not torch.allclose(out_image, image * 0.5 + 0.2, atol=1e-3)


def test_the_source_is_not_changed() -> None:
    image, mask = disk()
    kept = image.clone(), mask.clone()
    augment(AugmentConfig(noise=0.5), image, mask, 0)
    assert torch.equal(image, kept[0])
    assert torch.equal(mask, kept[1])


def test_a_seed_decides_everything() -> None:
    config = AugmentConfig()
    image, mask = disk()
    first = augment(config, image, mask, 11)
    torch.rand(5)  # whatever else was drawn
    again = augment(config, image, mask, 11)
    other = augment(config, image, mask, 12)
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])


def test_the_global_generator_is_left_as_it_was() -> None:
    torch.manual_seed(0)
    wanted = torch.rand(3)
    torch.manual_seed(0)
    augment(AugmentConfig(), *disk(), seed=99)
    assert torch.equal(torch.rand(3), wanted)


def test_the_global_generator_is_restored_after_an_error() -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("broken")

    state = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="broken"), random_state(5):
        augment_pair(fail, *disk())  # type: ignore[arg-type]
    assert torch.equal(torch.get_rng_state(), state)


@given(
    degrees=st.floats(0, 180),
    scale=st.tuples(st.floats(0.3, 1), st.floats(1, 3)),
    brightness=st.floats(0, 1),
    contrast=st.floats(0, 0.99),
    gamma=st.floats(0, 0.99),
    noise=st.floats(0, 1),
    channels=st.sampled_from([1, 3, 5]),
    seed=st.integers(0, 2**62 - 1),
)
@settings(max_examples=30, deadline=None)
def test_values_stay_in_range_and_shapes_stay(channels: int, seed: int, **strengths: Any) -> None:
    config = AugmentConfig(**strengths)
    generator = np.random.default_rng(seed)
    image = torch.from_numpy(generator.random((channels, 32, 32), dtype=np.float32))
    mask = torch.from_numpy(generator.integers(0, 4, (32, 32)).astype(np.uint8))
    out_image, out_mask = augment(config, image, mask, seed)
    assert out_image.shape == image.shape
    assert out_image.dtype == torch.float32
    assert out_image.isfinite().all()
    assert out_image.min() >= 0
    assert out_image.max() <= 1
    assert out_mask.shape == mask.shape
    assert out_mask.dtype == torch.uint8
    assert set(out_mask.unique().tolist()) <= {0, 1, 2, 3}


def test_all_the_directions_and_strengths_are_used() -> None:
    """Over many seeds, shifts go both ways and brightness is centered."""
    config = AugmentConfig(**(STILL | {"brightness": 0.4}))
    image, mask = torch.full((1, 8, 8), 0.5), torch.zeros(8, 8, dtype=torch.uint8)
    means = [float(augment(config, image, mask, seed)[0].mean()) - 0.5 for seed in range(200)]
    assert min(means) == pytest.approx(-0.2, abs=0.01)
    assert max(means) == pytest.approx(0.2, abs=0.01)
    assert abs(sum(means) / 200) < 0.03


@pytest.mark.parametrize(
    "changes",
    [
        {"scale": (1.2, 0.8)},
        {"scale": (0.0, 1.0)},
        {"scale": (-1.0, 1.0)},
        {"gamma": 1.0},
        {"translate": 2.0},
        {"horizontal_flip": 1.5},
        {"degrees": float("nan")},
    ],
)
def test_senseless_strengths_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="1 validation error"):
        AugmentConfig(**changes)

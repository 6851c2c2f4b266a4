"""The smoothing along the axis of volumes: off unless validation volumes gain by it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from brightness import BrightnessSegmenter
from dxseg.config.network import ModelConfig
from dxseg.data.batches.batches import CaseDataset
from dxseg.data.preprocessing import Preprocessing
from dxseg.data.table.volumes import SlicePosition
from dxseg.inference.components import ComponentFilter
from dxseg.inference.model_info import ModelInfo
from dxseg.training.axis_smoothing import choose_smoothing
from dxseg.training.component_filter import choose_components
from dxseg.training.validation_predictions import predictions
from dxseg.training.validation_predictions import volumes as volumes_of

SIZE, SLICES = 64, 10
INFO = ModelInfo(
    model=ModelConfig(),
    preprocessing=Preprocessing(image_size=SIZE, channels=1, mean=(0.5,), std=(1.0,)),
    labels=[],
)


def volumes(
    count: int,
    *,
    noise: float = 0.0,
    specks: int = 0,
    spacing: float | None = 2.5,
    through: slice = slice(2, 8),
) -> CaseDataset:
    """Volumes whose lesion is the same in `through` slices, in an order that is not theirs."""
    generator = np.random.default_rng(0)
    masks = np.zeros((count, SLICES, SIZE, SIZE), np.uint8)
    masks[:, through, 8:28, 8:28] = 1
    bright = masks.astype(float)
    for number in range(specks):
        bright[:, number, 40:44, 40:44] = 1
    gray = 60 + 135 * bright + generator.normal(0, noise, bright.shape)
    images = gray.clip(0, 255).astype(np.uint8).reshape(-1, SIZE, SIZE, 1)
    places = np.empty(count * SLICES, object)
    for volume in range(count):
        for index in range(SLICES):
            place = SlicePosition(f"v{volume}", index, spacing)
            places[volume * SLICES + index] = place
    order = generator.permutation(count * SLICES)
    flat = masks.reshape(-1, SIZE, SIZE)
    rows = np.arange(count * SLICES)
    labels = np.full(len(rows), -1)
    return CaseDataset(images[order], rows, flat[order], rows, labels, 1, None, places[order])


def test_noise_of_single_slices_is_smoothed_away() -> None:
    cases = volumes(3, noise=60)
    sigma, record = choose_smoothing(BrightnessSegmenter(labels=0, gain=8), INFO, cases)
    assert sigma in (1.25, 2.5, 5.0)
    assert record["volumes"] == 3
    assert record["sigma_mm"] == sigma
    assert record["dice_after"] > record["dice_before"] + 0.05
    # What training has measured is what inference does.
    info = INFO.model_copy(update={"smoothing_mm": sigma})
    found = dict(
        predictions(BrightnessSegmenter(labels=0, gain=8), info, cases, np.arange(len(cases)))
    )
    units = volumes_of(cases)
    dice = []
    for unit in units:
        truth = np.stack([cases.mask(row) for row in unit]) > 0
        mask = np.stack([found[row].mask for row in unit]) > 0
        dice.append(2 * (truth & mask).sum() / (truth.sum() + mask.sum()))
    assert np.mean(dice) == pytest.approx(record["dice_after"], abs=1e-6)


def test_lesions_of_one_slice_are_not_smoothed_away() -> None:
    sigma, record = choose_smoothing(
        BrightnessSegmenter(labels=0, gain=8), INFO, volumes(3, through=slice(4, 5))
    )
    assert sigma == 0
    assert record["dice_before"] == 1
    assert "no smoothing gains" in record["note"]


def test_the_gain_of_one_volume_does_not_decide() -> None:
    """One volume of noise gains much, two others nothing."""
    noisy, plain = volumes(1, noise=60), volumes(2)
    plain.positions[:] = [replace(one, volume=f"plain {one.volume}") for one in plain.positions]
    for name in ("images", "masks"):
        joined = np.concatenate([getattr(noisy, name), getattr(plain, name)])
        noisy = replace(noisy, **{name: joined})
    rows = np.arange(3 * SLICES)
    places = np.concatenate([noisy.positions, plain.positions])
    mixed = replace(
        noisy, image_rows=rows, mask_rows=rows, labels=np.full(len(rows), -1), positions=places
    )
    sigma, record = choose_smoothing(BrightnessSegmenter(labels=0, gain=8), INFO, mixed)
    assert sigma == 0
    assert "standard error" in record["note"]


@pytest.mark.parametrize(
    ("cases", "note"),
    [
        (None, "no validation volume"),
        (volumes(3, noise=60, spacing=None), "distance of slices"),
        (volumes(1, noise=60), "fewer than 2 volumes"),
    ],
)
def test_too_little_chooses_slices_alone(cases: CaseDataset | None, note: str) -> None:
    sigma, record = choose_smoothing(BrightnessSegmenter(labels=0, gain=8), INFO, cases)
    assert sigma == 0
    assert note in record["note"]


def test_volumes_of_which_some_masks_are_hidden_are_not_measured() -> None:
    """Their slices without a lesion are known: a network that finds nothing would look best."""
    cases = volumes(6, noise=60)
    expected = choose_smoothing(
        BrightnessSegmenter(labels=0, gain=8), INFO, cases.subset(in_first(cases, 3))
    )
    hidden = ~in_first(cases, 3) & [cases.mask(row).any() for row in range(len(cases))]
    cases.mask_rows[hidden] = -1
    assert choose_smoothing(BrightnessSegmenter(labels=0, gain=8), INFO, cases) == expected
    assert (
        choose_components(BrightnessSegmenter(labels=0, gain=8), INFO, cases, cases)[1]["volumes"]
        == 3
    )
    cases.mask_rows[[place.index == 4 for place in cases.positions]] = -1
    assert choose_smoothing(BrightnessSegmenter(labels=0, gain=8), INFO, cases)[0] == 0


def in_first(cases: CaseDataset, count: int) -> np.ndarray[Any, Any]:
    return np.array([int(place.volume[1:]) < count for place in cases.positions])


def with_voxels(cases: CaseDataset, voxel_mm3: float) -> CaseDataset:
    places = [replace(place, voxel_mm3=voxel_mm3) for place in cases.positions]
    return replace(cases, positions=np.array(places, object))


def test_no_filter_would_remove_a_lesion_of_training_by_its_volume() -> None:
    """Its 400 voxels are as small as 12 of the others."""
    cases = with_voxels(volumes(3, specks=2), 10.0)
    small = with_voxels(volumes(1, through=slice(4, 5)), 0.3)
    chosen, _ = choose_components(BrightnessSegmenter(labels=0, gain=8), INFO, cases, small)
    assert chosen == ComponentFilter(by_volume=True, largest_only=True)


def test_components_of_volumes_are_chosen_by_their_voxels() -> None:
    """Specks of 16 pixels in two slices are 32 voxels; a lesion of one slice has 400."""
    cases = volumes(3, specks=2)
    chosen, record = choose_components(
        BrightnessSegmenter(labels=0, gain=8), INFO, cases, volumes(2, through=slice(4, 5))
    )
    assert chosen == ComponentFilter(by_volume=True, min_area=64)
    assert (record["images"], record["volumes"]) == (30, 3)
    voxels = 6 * 400
    before = 2 * voxels / (2 * voxels + 32)
    assert record["dice_before"] == pytest.approx(before, abs=1e-6)
    assert record["dice_after"] == 1
    sized = with_voxels(cases, 12.5)
    training = with_voxels(volumes(2, through=slice(4, 5)), 12.5)
    physical, own = choose_components(BrightnessSegmenter(labels=0, gain=8), INFO, sized, training)
    assert physical == ComponentFilter(by_volume=True, min_volume_mm3=64 * 12.5)
    assert own == record
    few, record = choose_components(
        BrightnessSegmenter(labels=0, gain=8), INFO, volumes(1, specks=2), cases
    )
    assert few is None
    assert "fewer than 2 volumes" in record["note"]

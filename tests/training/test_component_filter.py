"""The filter of components: off unless validation gains, and never at the price of a lesion."""

from __future__ import annotations

from typing import Any

import numpy as np

from brightness import BrightnessSegmenter
from dxseg.config.network import ModelConfig
from dxseg.data.batches.batches import CaseDataset
from dxseg.data.preprocessing import Preprocessing
from dxseg.inference.components import ComponentFilter
from dxseg.inference.model_info import ModelInfo
from dxseg.training.component_filter import choose_components

SIZE = 64
INFO = ModelInfo(
    model=ModelConfig(),
    preprocessing=Preprocessing(image_size=SIZE, channels=1, mean=(0.5,), std=(1.0,)),
    labels=[],
)


def cases(count: int, specks: int, side: int = 12, speck: int = 2) -> CaseDataset:
    """Images of a lesion of `side` pixels, and specks that are none."""
    masks = np.zeros((count, SIZE, SIZE), np.uint8)
    masks[:, 4 : 4 + side, 4 : 4 + side] = 1
    bright = masks.copy()
    for number in range(specks):
        row = 30 + 4 * number
        bright[:, row : row + speck, 40 : 40 + speck] = 1
    rows = np.arange(count)
    images = np.where(bright, 250, 5).astype(np.uint8)[..., None]
    return CaseDataset(images, rows, masks, rows, np.full(count, -1), 1)


def choose(
    validation: CaseDataset | None, training: CaseDataset | None = None
) -> tuple[ComponentFilter | None, dict[str, Any]]:
    return choose_components(
        BrightnessSegmenter(labels=0), INFO, validation, training or cases(2, specks=0)
    )


def test_specks_are_removed_by_the_smallest_area_that_does() -> None:
    chosen, record = choose(cases(8, specks=6))
    assert chosen == ComponentFilter(min_area=8)
    assert record["images"] == 8
    before = 2 * 144 / (144 + 144 + 24)
    np.testing.assert_allclose(
        (record["dice_before"], record["dice_after"]), (before, 1), atol=1e-6
    )


def test_masks_without_specks_are_left_alone() -> None:
    chosen, record = choose(cases(8, specks=0))
    assert chosen is None
    assert "no filter gains" in record["note"]
    assert record["dice_before"] == 1


def test_no_lesion_that_was_found_is_lost() -> None:
    # The lesions of one image are smaller than the specks of the others.
    few = cases(7, specks=6)
    small = cases(1, specks=0, side=2)
    images = np.concatenate([few.images, small.images])
    masks = np.concatenate([few.masks, small.masks])
    rows = np.arange(8)
    mixed = CaseDataset(images, rows, masks, rows, np.full(8, -1), 1)
    chosen, _ = choose(mixed)
    assert chosen == ComponentFilter(largest_only=True)


def test_no_filter_would_change_a_mask_of_training() -> None:
    validation = cases(8, specks=6)
    small = cases(1, specks=0, side=2)
    assert choose(validation, small)[0] == ComponentFilter(largest_only=True)
    small.masks[0, 40, 40] = 1
    chosen, record = choose(validation, small)
    assert chosen is None
    assert "would remove a part of a true mask" in record["note"]


def test_too_few_masks_choose_nothing() -> None:
    chosen, record = choose(cases(4, specks=6))
    assert chosen is None
    assert "fewer than 5 masks" in record["note"]
    assert choose(None)[0] is None

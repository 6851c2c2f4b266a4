"""Patches: where they lie, and what a batch of them holds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dxseg.config.schema import AugmentConfig
from dxseg.data.batches.augment import build_augmentation
from dxseg.data.batches.batches import BatchDataset, CaseDataset
from dxseg.data.batches.patches import LESION_FRACTION, PatchSampler
from dxseg.data.preprocessing import Preprocessing


@given(
    st.integers(1, 40), st.integers(0, 30), st.integers(0, 30), st.booleans(), st.integers(0, 9999)
)
def test_a_patch_lies_in_its_image(
    size: int, more_rows: int, more_columns: int, lesion: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    height, width = size + more_rows, size + more_columns
    target = torch.zeros(1, height, width)
    if lesion:
        target[0, torch.randint(height, ()), torch.randint(width, ())] = 1
    sampler = PatchSampler(size, [0])

    x, y = sampler.draw(target)

    assert 0 <= x <= width - size
    assert 0 <= y <= height - size
    assert sampler.cut(target, (x, y)).shape == (1, size, size)


def test_most_patches_show_a_lesion_and_all_places_are_drawn() -> None:
    torch.manual_seed(0)
    target = torch.zeros(2, 100, 100)
    target[1, 90, 5] = 1  # one pixel, at the edge
    sampler = PatchSampler(10, [0, 1])
    corners = [sampler.draw(target) for _ in range(3000)]

    shown = np.mean([bool(sampler.cut(target, corner).any()) for corner in corners])

    assert shown == pytest.approx(LESION_FRACTION, abs=0.04)
    assert min(x for x, _ in corners) == 0
    assert max(x for x, _ in corners) == 90
    # The lesion is not always in the middle of its patch.
    around = {(x, y) for x, y in corners if sampler.cut(target, (x, y)).any()}
    assert len(around) > 20


def test_patches_are_drawn_for_lesions_and_not_for_the_organ_around_them() -> None:
    torch.manual_seed(0)
    target = torch.zeros(2, 100, 100)
    target[0, 10:90, 10:90] = 1
    target[:, 50, 50] = torch.tensor([0, 1])
    sampler = PatchSampler(10, [1])

    corners = [sampler.draw(target) for _ in range(2000)]
    shown = np.mean([bool(sampler.cut(target[1], corner).any()) for corner in corners])

    anywhere = 10 * 10 / 91**2
    expected = LESION_FRACTION + (1 - LESION_FRACTION) * anywhere
    assert shown == pytest.approx(expected, abs=0.04)
    target[1] = 0
    corners = [sampler.draw(target) for _ in range(2000)]
    assert np.mean([x == 0 for x, _ in corners]) == pytest.approx(1 / 91, abs=0.01)


def test_image_mask_and_corner_of_a_patch_belong_together() -> None:
    """The image holds its own mask, so they can be compared after augmentation."""
    masks = np.zeros((3, 96, 96), np.uint8)
    masks[:, 20:60, 30:50] = 1
    cases = CaseDataset(
        images=masks[..., None] * 255,
        image_rows=np.arange(3),
        masks=masks,
        mask_rows=np.arange(3),
        labels=np.array([0, 1, 1]),
        mask_classes=1,
    )
    preprocessing = Preprocessing(image_size=96, channels=1, mean=(0.0,), std=(1.0,))
    plain = AugmentConfig(brightness=0, contrast=0, gamma=0, noise=0)
    batches = BatchDataset(
        cases, preprocessing, build_augmentation(plain), patches=PatchSampler(32, [0])
    )

    batch = batches[[(0, 1), (1, 2), (2, 3)]]

    assert batch["image"].shape == batch["mask"].shape == (3, 1, 32, 32)
    assert batch["whole"].shape == (3, 1, 96, 96)
    for image, mask, whole, (x, y) in zip(
        batch["image"], batch["mask"], batch["whole"], batch["corner"].tolist(), strict=True
    ):
        torch.testing.assert_close(image, whole[:, y : y + 32, x : x + 32])
        assert ((image > 0.5).float() != mask).float().mean() < 0.06  # interpolation at edges
    again = batches[[(0, 1), (1, 2), (2, 3)]]
    torch.testing.assert_close(batch["image"], again["image"])

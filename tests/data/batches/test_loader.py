"""Batches: so many from each pool, every row as often, the same wherever they are made."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import Dataset

from dxseg.config.schema import AugmentConfig
from dxseg.data.batches.augment import build_augmentation
from dxseg.data.batches.loader import (
    BatchDataset,
    CaseDataset,
    SequentialBatchSampler,
    StratifiedBatchSampler,
    make_dataloader,
)
from dxseg.data.preprocessing import Preprocessing


def pool(start: int, length: int) -> np.ndarray:
    return np.arange(start, start + length)


def rows_of(sampler: StratifiedBatchSampler) -> list[list[int]]:
    return [[row for row, _ in batch] for batch in sampler]


class TestPoolSampler:
    @given(
        st.integers(1, 40),
        st.integers(1, 6),
        st.integers(1, 15),
        st.integers(1, 4),
        st.integers(1, 12),
    )
    @settings(max_examples=60, deadline=None)
    def test_every_batch_takes_its_share_and_no_row_is_favoured(
        self, lesions: int, of_lesions: int, free: int, of_free: int, batches: int
    ) -> None:
        pools = [(pool(0, lesions), of_lesions), (pool(lesions, free), of_free)]
        drawn = rows_of(StratifiedBatchSampler(pools, batches, seed=1))
        assert len(drawn) == batches
        for batch in drawn:
            assert sum(row < lesions for row in batch) == of_lesions
            assert len(batch) == of_lesions + of_free
        for rows, _ in pools:
            counts = Counter(row for batch in drawn for row in batch if row in set(rows.tolist()))
            times = [counts[int(row)] for row in rows]
            assert max(times) - min(times) <= 1

    def test_an_epoch_is_a_function_of_its_number(self) -> None:
        sampler = StratifiedBatchSampler([(pool(0, 30), 4)], 5, seed=3)
        sampler.set_epoch(2)
        second = list(sampler)
        sampler.set_epoch(3)
        third = list(sampler)
        fresh = StratifiedBatchSampler([(pool(0, 30), 4)], 5, seed=3)
        fresh.set_epoch(2)  # as a resumed run does, without going through epochs 0 and 1
        assert list(fresh) == second == list(fresh)
        assert third != second

    def test_seeds_draw_streams_of_their_own(self) -> None:
        streams = [list(StratifiedBatchSampler([(pool(0, 100), 8)], 10, seed)) for seed in (0, 1)]
        assert streams[0] != streams[1]
        one, other = ({seed for batch in stream for _, seed in batch} for stream in streams)
        assert not one & other

    def test_runs_draw_what_they_have_always_drawn(self) -> None:
        """Results that are published must come out again."""
        assert rows_of(StratifiedBatchSampler([(pool(0, 9), 3)], 2, seed=0)) == [
            [4, 5, 2],
            [6, 3, 8],
        ]

    def test_every_draw_is_augmented_differently(self) -> None:
        seeds = [
            seed for batch in StratifiedBatchSampler([(pool(0, 3), 8)], 50, 0) for _, seed in batch
        ]
        assert len(set(seeds)) == len(seeds)

    def test_empty_pools_are_left_out(self) -> None:
        sampler = StratifiedBatchSampler([(pool(0, 4), 2), (pool(0, 0), 3), (pool(4, 4), 0)], 2, 0)
        assert all(len(batch) == 2 and max(batch)[0] < 4 for batch in sampler)
        assert len(sampler) == 2


def test_in_order_gives_every_row_once() -> None:
    sampler = SequentialBatchSampler(7, 3)
    assert [[row for row, _ in batch] for batch in sampler] == [[0, 1, 2], [3, 4, 5], [6]]
    assert len(sampler) == 3


def arrays(*, dtype: Any = np.uint8, channels: int = 1, classes: int = 1) -> CaseDataset:
    """Ten stored images; case i is image 9 - i and mask i."""
    images = np.zeros((10, 32, 32, channels), dtype)
    images[:] = (np.arange(10) * 20).astype(dtype)[:, None, None, None]
    masks = np.zeros((10, 32, 32), np.uint8)
    for index in range(10):
        masks[index, :index] = 1 + index % classes
    return CaseDataset(images, np.arange(10)[::-1], masks, np.arange(10), np.arange(10), classes)


def preprocessing(channels: int = 1) -> Preprocessing:
    return Preprocessing(
        image_size=32, channels=channels, mean=(0.0,) * channels, std=(1.0,) * channels
    )


class TestBatches:
    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
    def test_rows_point_into_the_shared_arrays(self, dtype: Any) -> None:
        batches = BatchDataset(arrays(dtype=dtype, channels=2), preprocessing(2), None)
        batch = batches[[(3, 0), (8, 0)]]
        assert batch["image"].shape == (2, 2, 32, 32)
        assert batch["image"].dtype == torch.float32
        assert batch["image"][:, 0, 0, 0].tolist() == pytest.approx([120 / 255, 20 / 255])
        assert batch["mask"].sum(dim=(1, 2, 3)).tolist() == [3 * 32, 8 * 32]
        assert batch["label"].tolist() == [3, 8]

    def test_label_maps_become_one_plane_a_class(self) -> None:
        batch = BatchDataset(arrays(classes=3), preprocessing(), None)[[(1, 0), (2, 0), (3, 0)]]
        assert batch["mask"].shape == (3, 3, 32, 32)
        # Case i has class 1 + i % 3 on its first i rows and nothing else.
        wanted = [[0, 32, 0], [0, 0, 64], [96, 0, 0]]
        assert batch["mask"].sum(dim=(2, 3)).tolist() == wanted

    def test_without_masks_the_mask_is_empty(self) -> None:
        a = arrays()
        labels_only = CaseDataset(a.images, a.image_rows, None, a.mask_rows, a.labels, 1)
        batch = BatchDataset(labels_only, preprocessing(), None)[[(5, 0)]]
        assert not batch["mask"].any()

    def test_multi_label_rows_keep_their_unknowns(self) -> None:
        a = arrays()
        labels = np.array([[0, 1], [np.nan, np.nan]] * 5, np.float32)
        several = CaseDataset(a.images, a.image_rows, a.masks, a.mask_rows, labels, 1)
        batch = BatchDataset(several, preprocessing(), None)[[(0, 0), (1, 0)]]
        assert batch["label"][0].tolist() == [0, 1]
        assert batch["label"][1].isnan().all()

    def test_the_arrays_are_never_written_to(self) -> None:
        a = arrays()
        for array in (a.images, a.masks):
            array.flags.writeable = False
        augmentation = build_augmentation(AugmentConfig(noise=1.0))
        BatchDataset(a, preprocessing(), augmentation)[[(0, 1), (1, 2)]]

    def test_standardisation_comes_after_augmentation(self) -> None:
        """A black border that a shift brings in is black, not the mean of the pretraining."""
        p = Preprocessing(image_size=32, channels=1, mean=(0.5,), std=(0.5,))
        augmentation = build_augmentation(AugmentConfig(translate=0.5, noise=0, brightness=0))
        image = BatchDataset(arrays(), p, augmentation)[[(0, seed) for seed in range(8)]]["image"]
        assert float(image.min()) == pytest.approx(-1)
        assert float(image.max()) <= 1


def make_loader(workers: int) -> Any:
    batches = BatchDataset(arrays(), preprocessing(), build_augmentation(AugmentConfig()))
    return make_dataloader(batches, StratifiedBatchSampler([(pool(0, 10), 4)], 3, seed=5), workers)


def test_workers_make_the_batches_of_the_main_process() -> None:
    """Two epochs, so that the workers that persist are told of the second one."""
    here, elsewhere = make_loader(0), make_loader(2)
    for epoch in (0, 1):
        for loader in (here, elsewhere):
            loader.sampler.set_epoch(epoch)
        torch.manual_seed(epoch)  # nothing global may matter
        for mine, theirs in zip(here, elsewhere, strict=True):
            assert all(torch.equal(mine[key], theirs[key]) for key in mine)


class OwnDraws(Dataset[Any]):
    """An augmentation of a user's own, which asks the global generators."""

    def __getitem__(self, draws: Any) -> tuple[float, float, float]:
        return torch.rand(()).item(), np.random.random(), random.random()  # noqa: NPY002


def test_a_worker_s_global_generators_are_seeded_too() -> None:
    def drawn(seed: int) -> list[Any]:
        batches: Any = OwnDraws()
        return list(
            make_dataloader(batches, StratifiedBatchSampler([(pool(0, 9), 3)], 2, seed), workers=1)
        )

    before = torch.get_rng_state()
    first = drawn(1)
    assert first == drawn(1)
    assert all(one != other for one, other in zip(first[0], drawn(2)[0], strict=True))
    assert torch.equal(torch.get_rng_state(), before), "starting workers draws from none"

"""Samplers: fixed numbers from each pool, the same for a seed and an epoch, divided by rank."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dxseg.data.batches.bag_sampler import BagSampler
from dxseg.data.batches.samplers import (
    EpochSampler,
    RankSampler,
    SequentialBatchSampler,
    StratifiedBatchSampler,
)
from dxseg.errors import UsageError


def pool(start: int, length: int) -> np.ndarray:
    return np.arange(start, start + length)


def rows_of(sampler: StratifiedBatchSampler) -> list[list[int]]:
    return [[row for row, _ in batch] for batch in sampler]


class TestStratifiedBatchSampler:
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

    def test_every_sample_is_augmented_differently(self) -> None:
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


@given(st.integers(1, 30), st.integers(1, 8), st.integers(1, 5))
def test_validation_sees_every_row_once_and_all_processes_the_same_number_of_batches(
    rows: int, batch_size: int, size: int
) -> None:
    parts = [
        list(SequentialBatchSampler(rows, batch_size, rank=rank, world_size=size))
        for rank in range(size)
    ]
    assert len({len(part) for part in parts}) == 1
    assert len(parts[0]) == len(SequentialBatchSampler(rows, batch_size, world_size=size))
    seen = [row for part in parts for batch in part for row, _ in batch]
    assert sorted(seen) == list(range(rows))
    whole = list(SequentialBatchSampler(rows, batch_size))
    assert all(batch in whole for part in parts for batch in part if batch)


def stratified(batch_size: int) -> StratifiedBatchSampler:
    return StratifiedBatchSampler([(np.arange(20), batch_size)], 3, seed=1)


@given(st.integers(1, 5), st.integers(5, 12), st.integers(0, 3))
def test_rows_of_a_batch_are_divided_among_processes(
    size: int, batch_size: int, epoch: int
) -> None:
    alone = stratified(batch_size)
    ranks = [RankSampler(stratified(batch_size), rank, size) for rank in range(size)]
    for sampler in (alone, *ranks):
        sampler.set_epoch(epoch)
        assert len(sampler) == 3  # type: ignore[arg-type]
    for whole, *parts in zip(alone, *ranks, strict=True):
        dealt = [parts[place % size][place // size] for place in range(len(whole))]
        assert dealt == whole
        assert sum(map(len, parts)) == len(whole)


def test_the_images_of_a_study_stay_in_one_process() -> None:
    """Rows 0 to 8 are of two studies, the others of none."""
    studies = np.array([0] * 6 + [1] * 3 + [-1] * 5)

    def bags() -> EpochSampler:
        images = StratifiedBatchSampler([(np.arange(9, 14), 2)], 4, 0)
        return BagSampler(images, [np.arange(6), np.arange(6, 9)], count=2, size=4)

    ranks = [RankSampler(bags(), rank, 2, studies) for rank in (0, 1)]
    for whole, *parts in zip(bags(), *ranks, strict=True):
        assert sorted(parts[0] + parts[1]) == sorted(whole)
        of_study = [{studies[row] for row, _ in part if row < 9} for part in parts]
        assert not of_study[0] & of_study[1]
        assert all(sum(row >= 9 for row, _ in part) == 1 for part in parts)


def test_a_batch_that_is_too_small_is_refused_by_every_process() -> None:
    for rank in range(3):
        with pytest.raises(UsageError, match=r"batch of 2 .* 3 processes; raise data\.batch_size"):
            list(RankSampler(stratified(2), rank, 3))

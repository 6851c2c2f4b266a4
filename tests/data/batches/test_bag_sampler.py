"""Samples of studies: spread out, all seen, the same wherever a run is taken up again."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from dxseg.data.batches.bag_sampler import BagSampler
from dxseg.data.batches.batches import Studies
from dxseg.data.batches.samplers import StratifiedBatchSampler

IMAGES = np.arange(1000, 1030)


def make(lengths: list[int], *, count: int = 1, size: int = 4, batches: int = 5, seed: int = 0):
    """A sampler of studies of consecutive rows, and two images a batch from `IMAGES`."""
    bags = np.split(np.arange(sum(lengths)), np.cumsum(lengths)[:-1])
    return BagSampler(
        StratifiedBatchSampler([(IMAGES, 2)], batches, seed), bags, count=count, size=size
    )


def drawn(sampler: BagSampler, epoch: int) -> list[list[int]]:
    """The rows of studies in each batch of an epoch."""
    sampler.set_epoch(epoch)
    return [[row for row, _ in batch if row < 1000] for batch in sampler]


@given(st.lists(st.integers(1, 6), min_size=1, max_size=4), st.integers(1, 8), st.integers(1, 7))
@settings(max_examples=30)
def test_after_enough_rounds_every_image_was_seen_as_often(
    lengths: list[int], size: int, batches: int
) -> None:
    sampler = make(lengths, size=size, batches=batches)
    samples = [-(-length // size) for length in lengths]
    rounds = int(np.lcm.reduce(samples))
    visits = rounds * len(lengths)
    epochs = -(-visits // batches)
    sampled = [rows for epoch in range(epochs) for rows in drawn(sampler, epoch)][:visits]
    assert all(len(set(rows)) == len(rows) <= size for rows in sampled)
    seen = Counter(row for rows in sampled for row in rows)
    for start, length, parts in zip(np.cumsum([0, *lengths[:-1]]), lengths, samples, strict=True):
        assert {seen[row] for row in range(start, start + length)} == {rounds // parts}


def test_several_studies_a_batch_are_consecutive_visits() -> None:
    one, two = make([5, 9, 2], batches=6), make([5, 9, 2], batches=3, count=2)
    for epoch in range(3):
        single = drawn(one, epoch)
        pairs = [a + b for a, b in zip(single[::2], single[1::2], strict=True)]
        assert drawn(two, epoch) == pairs


def test_a_sample_is_spread_so_that_a_lesion_of_that_many_slices_is_in_it() -> None:
    sampler = make([30], size=8)
    for epoch in range(4):
        for rows in drawn(sampler, epoch):
            assert set(np.diff(rows)) == {4}
            assert 7 <= len(rows) <= 8


def test_each_study_comes_up_once_a_round_across_epochs() -> None:
    sampler = make([3] * 7, batches=5)
    visits = [rows[0] // 3 for epoch in range(7) for rows in drawn(sampler, epoch)]
    assert all(sorted(visits[n : n + 7]) == list(range(7)) for n in range(0, 35, 7))
    assert len({tuple(visits[n : n + 7]) for n in range(0, 35, 7)}) > 1


def test_an_epoch_is_a_function_of_its_number() -> None:
    sampler = make([9, 14, 3], count=2)
    epochs = []
    for epoch in range(4):
        sampler.set_epoch(epoch)
        epochs.append(list(sampler))
    fresh = make([9, 14, 3], count=2)
    fresh.set_epoch(2)  # as a resumed run does, without going through epochs 0 and 1
    assert list(fresh) == epochs[2] != epochs[3]
    seeds = [seed for batches in epochs for batch in batches for _, seed in batch]
    assert len(set(seeds)) == len(seeds)


def test_images_come_as_without_studies_and_may_be_absent() -> None:
    sampler = make([9, 14, 3])
    plain = StratifiedBatchSampler([(IMAGES, 2)], 5, 0)
    for epoch in (0, 1):
        sampler.set_epoch(epoch)
        plain.set_epoch(epoch)
        assert [batch[:2] for batch in sampler] == list(plain)
    alone = BagSampler(StratifiedBatchSampler([], 3, 0), [np.arange(4)], count=2, size=8)
    assert [[row for row, _ in batch] for batch in alone] == [[0, 1, 2, 3] * 2] * 3
    assert len(alone) == 3


def test_seeds_draw_streams_of_their_own() -> None:
    one, other = (drawn(make([40] * 9, seed=seed), 0) for seed in (0, 1))
    assert one != other


def test_members_of_a_study_in_the_order_of_their_slices() -> None:
    numbers = np.array([1, -1, 0, 1, 0, 1])
    studies = Studies(numbers, np.zeros(6), np.array([5, 0, 1, 2, 0, 3]))
    assert [rows.tolist() for rows in studies.members()] == [[4, 2], [3, 5, 0]]
    none = Studies(np.array([-1, -1]), np.zeros(2), np.array([0, 1]))
    assert none.members() == []

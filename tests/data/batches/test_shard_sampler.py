"""Random order over shards: every row as often, a window at a time, wherever a run is taken up."""

from __future__ import annotations

from collections import Counter, OrderedDict

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from dxseg.data.batches.bag_sampler import BagSampler
from dxseg.data.batches.loader import StratifiedBatchSampler
from dxseg.data.batches.shard_sampler import ShardPoolSampler, Windows

ROWS = 5
"""In each shard."""


def windows(rows: int, size: int) -> Windows:
    return Windows(np.arange(rows) // ROWS, size)


def make(rows: int, *, count: int = 4, batches: int = 3, size: int = 2, seed: int = 0):
    """A sampler of every other row, as if the others had no label."""
    pool = np.arange(0, rows, 2)
    return ShardPoolSampler([(pool, count)], batches, seed, windows(rows, size))


def drawn(sampler: StratifiedBatchSampler | BagSampler, epochs: int) -> list[int]:
    rows: list[int] = []
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        rows += [row for batch in sampler for row, _ in batch]
    return rows


@given(st.integers(2, 60), st.integers(1, 5), st.integers(1, 9), st.integers(1, 4))
@settings(max_examples=50)
def test_from_the_start_of_training_no_row_comes_up_twice_more_often(
    rows: int, count: int, batches: int, size: int
) -> None:
    sampler = make(rows, count=count, batches=batches, size=size)
    seen = drawn(sampler, 4)
    pool = set(range(0, rows, 2))
    assert len(seen) == 4 * count * batches
    times = Counter(seen)
    assert set(times) <= pool
    counts = [times[row] for row in pool]
    assert max(counts) - min(counts) <= 1


def fetches(rows: list[int], room: int) -> int:
    """Of shards, where so many are kept and the one least lately used is dropped."""
    kept: OrderedDict[int, None] = OrderedDict()
    fetched = 0
    for shard in np.array(rows) // ROWS:
        if shard not in kept:
            fetched += 1
            if len(kept) == room:
                kept.popitem(last=False)
        kept[shard] = None
        kept.move_to_end(shard)
    return fetched


def test_twice_a_window_of_local_space_fetches_each_shard_once_a_round() -> None:
    rows, size = 200, 3
    sampler = make(rows, count=10, batches=5, size=size)  # two epochs are a round
    seen = drawn(sampler, 8)
    assert fetches(seen, 2 * size) <= 4 * rows // ROWS
    alike = drawn(StratifiedBatchSampler([(np.arange(0, rows, 2), 10)], 5, 0), 8)
    assert fetches(alike, 2 * size) > 2 * fetches(seen, 2 * size)


def test_order_is_random_within_windows_and_between_them() -> None:
    one = make(100, count=5, batches=10, size=4)
    rounds = [drawn(one, 2)[:50], drawn(one, 2)[50:]]
    assert sorted(rounds[0]) == sorted(rounds[1]) == list(range(0, 100, 2))
    assert rounds[0] != rounds[1]
    window = rounds[0][:10]
    assert window != sorted(window)
    assert drawn(make(100, seed=1), 2) != drawn(make(100), 2)


def test_an_epoch_is_a_function_of_its_number_and_seeds_are_drawn_anew() -> None:
    sampler = make(60)
    epochs = []
    for epoch in range(4):
        sampler.set_epoch(epoch)
        epochs.append(list(sampler))
    fresh = make(60)
    fresh.set_epoch(2)  # as a resumed run does, without going through epochs 0 and 1
    assert list(fresh) == epochs[2] != epochs[3]
    seeds = [seed for batches in epochs for batch in batches for _, seed in batch]
    assert len(set(seeds)) == len(seeds)


def test_studies_come_up_once_a_round_window_by_window() -> None:
    bags = np.split(np.arange(120), range(4, 120, 4))
    sampler = BagSampler(
        StratifiedBatchSampler([], 10, 0), bags, count=1, size=4, windows=windows(120, size=2)
    )
    seen = drawn(sampler, 6)
    for first in (0, 120):
        assert sorted(seen[first : first + 120]) == list(range(120))
    assert seen[:120] != seen[120:240]
    # A study may reach into the next shard.
    assert fetches(seen[:120], 4) <= 2 * 24
    alike = drawn(BagSampler(StratifiedBatchSampler([], 10, 0), bags, count=1, size=4), 3)
    assert fetches(alike, 4) > fetches(seen[:120], 4)

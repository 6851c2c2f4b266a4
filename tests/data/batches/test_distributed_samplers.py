"""Several processes together read the batches of one, each row once."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dxseg.data.batches import distributed_samplers
from dxseg.data.batches.bag_sampler import BagSampler
from dxseg.data.batches.distributed_samplers import DistributedBatchSampler, DistributedRowSampler
from dxseg.data.batches.loader import SampleIndex, SequentialBatchSampler, StratifiedBatchSampler
from dxseg.errors import UsageError


def read(
    sampler: DistributedRowSampler | DistributedBatchSampler, size: int
) -> list[list[list[SampleIndex]]]:
    """The batches of each process."""
    shares = []
    for rank in range(size):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                distributed_samplers, "rank_and_world_size", lambda rank=rank: (rank, size)
            )
            assert len(sampler) == len(list(sampler))
            shares.append(list(sampler))
    return shares


@given(st.integers(1, 5), st.integers(5, 12), st.integers(0, 3))
def test_rows_of_a_batch_are_dealt_out(size: int, batch_size: int, epoch: int) -> None:
    alone = StratifiedBatchSampler([(np.arange(20), batch_size)], 3, seed=1)
    shared = DistributedRowSampler(StratifiedBatchSampler([(np.arange(20), batch_size)], 3, seed=1))
    alone.set_epoch(epoch)
    shared.set_epoch(epoch)
    for whole, *parts in zip(alone, *read(shared, size), strict=True):
        dealt = [parts[place % size][place // size] for place in range(len(whole))]
        assert dealt == whole
        assert sum(map(len, parts)) == len(whole)


def test_studies_too() -> None:
    def bags() -> BagSampler:
        return BagSampler(
            StratifiedBatchSampler([], 4, 0), [np.arange(6), np.arange(6, 9)], count=2, size=4
        )

    for whole, *parts in zip(bags(), *read(DistributedRowSampler(bags()), 2), strict=True):
        assert sorted(parts[0] + parts[1]) == sorted(whole)


def test_a_batch_that_is_too_small_is_refused() -> None:
    sampler = DistributedRowSampler(StratifiedBatchSampler([(np.arange(20), 2)], 3, seed=1))
    with pytest.raises(UsageError, match=r"batch of 2 .* 3 processes; raise data\.batch_size"):
        read(sampler, 3)


@given(st.integers(1, 30), st.integers(1, 8), st.integers(1, 5))
def test_validation_sees_every_row_once_and_all_processes_the_same_number_of_batches(
    rows: int, batch_size: int, size: int
) -> None:
    shares = read(DistributedBatchSampler(SequentialBatchSampler(rows, batch_size)), size)
    assert len({len(share) for share in shares}) == 1
    seen = [row for share in shares for batch in share for row, _ in batch]
    assert sorted(seen) == list(range(rows))
    whole = list(SequentialBatchSampler(rows, batch_size))
    assert all(batch in whole for share in shares for batch in share if batch)


def test_the_process_group_says_who_one_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked when batches are drawn: the sampler is made before the group starts."""
    sampler = DistributedRowSampler(StratifiedBatchSampler([(np.arange(20), 4)], 2, seed=1))
    alone = list(sampler)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 1)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    assert list(sampler) == [batch[1::2] for batch in alone]

"""Which part of the batches each of several training processes reads.

The draws themselves do not depend on the number of processes: together they see the batches of one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import Sampler

from dxseg.data.batches.loader import SampleIndex
from dxseg.errors import UsageError


def rank_and_world_size() -> tuple[int, int]:
    """Number of this process and number of processes; (0, 1) without a process group."""
    group = torch.distributed
    if not (group.is_available() and group.is_initialized()):
        return 0, 1
    return group.get_rank(), group.get_world_size()


class DistributedRowSampler(Sampler[list[SampleIndex]]):
    """Of every batch of another sampler the rows of this process, every so-many-th.

    The group is asked at every epoch, for it may start after the sampler is made.
    """

    def __init__(self, batches: Sampler[list[SampleIndex]]) -> None:
        self.batches = batches

    def set_epoch(self, epoch: int) -> None:
        """Choose which epoch the next iteration draws; Lightning calls it."""
        batches: Any = self.batches
        batches.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.batches)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[list[SampleIndex]]:
        """Draw.

        Raises:
            UsageError: a batch has fewer rows than there are processes.
        """
        rank, size = rank_and_world_size()
        for batch in self.batches:
            if len(batch) < size:
                raise UsageError(
                    f"a batch of {len(batch)} images cannot be shared out to {size} processes; "
                    "raise data.batch_size, or start fewer"
                )
            yield batch[rank::size]


class DistributedBatchSampler(Sampler[list[SampleIndex]]):
    """Every so-many-th batch of another sampler, whole; empty ones where there are none left.

    So each batch is seen once, and all processes count the same number.
    """

    def __init__(self, batches: Sampler[list[SampleIndex]]) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return -(-len(self.batches) // rank_and_world_size()[1])  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[list[SampleIndex]]:
        rank, size = rank_and_world_size()
        own = [batch for place, batch in enumerate(self.batches) if place % size == rank]
        yield from own
        yield from [[]] * (len(self) - len(own))

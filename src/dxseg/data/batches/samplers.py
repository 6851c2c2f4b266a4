"""Which rows make up a batch: functions of seed and epoch, so that a resumed run draws the same."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from dxseg.errors import UsageError

SampleIndex = tuple[int, int]
"""A row and the seed of everything that is random about this sample."""


class EpochSampler(Sampler[list[SampleIndex]]):
    """Base of samplers of whole batches whose epoch Lightning sets."""

    seed: int = 0
    epoch: int = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch that the next iteration draws."""
        self.epoch = epoch


class StratifiedBatchSampler(EpochSampler):
    """Batches with a fixed number of rows from each of several pools.

    Each pool is passed through in random order, again and again: within an epoch no row is drawn
    more than once more often than another of its pool.
    """

    def __init__(
        self, pools: Sequence[tuple[NDArray[np.int64], int]], batches: int, seed: int
    ) -> None:
        """Store the pools.

        Args:
            pools: (rows, number of them in each batch); empty pools are left out.
            batches: per epoch.
            seed: of the run.
        """
        self.pools = [(rows, count) for rows, count in pools if len(rows) and count]
        self.batches = batches
        self.seed = seed

    def __len__(self) -> int:
        return self.batches

    def draws(self, count: int) -> NDArray[np.float64]:
        """How often a batch draws each of `count` rows, on average: (count,)."""
        draws = np.zeros(count)
        for rows, drawn in self.pools:
            draws[rows] = drawn / len(rows)
        return draws

    def __iter__(self) -> Iterator[list[SampleIndex]]:
        # The last number has no meaning any more; without it every run would draw otherwise.
        generator = np.random.default_rng([self.seed, self.epoch, 0])
        orders = [_order(rows, count * self.batches, generator) for rows, count in self.pools]
        seeds = generator.integers(2**62, size=(self.batches, sum(c for _, c in self.pools)))
        for batch in range(self.batches):
            rows = [
                int(row)
                for order, (_, count) in zip(orders, self.pools, strict=True)
                for row in order[batch * count : (batch + 1) * count]
            ]
            yield list(zip(rows, seeds[batch].tolist(), strict=True))


def _order(
    rows: NDArray[np.int64], length: int, generator: np.random.Generator
) -> NDArray[np.int64]:
    """The rows of a pool as often as an epoch needs them."""
    rounds = -(-length // len(rows))
    return np.concatenate([generator.permutation(rows) for _ in range(rounds)])[:length]


class SequentialBatchSampler(Sampler[list[SampleIndex]]):
    """Every row once, in order, for validation.

    Several processes take whole batches in turns. Each iterates over the same number of them, as
    collective operations need: the last one may be empty.
    """

    def __init__(self, rows: int, batch_size: int, *, rank: int = 0, world_size: int = 1) -> None:
        self.rows = rows
        self.batch_size = batch_size
        self.rank = rank
        self.world_size = world_size

    def __len__(self) -> int:
        return -(-self.rows // (self.batch_size * self.world_size))

    def __iter__(self) -> Iterator[list[SampleIndex]]:
        for turn in range(len(self)):
            start = (turn * self.world_size + self.rank) * self.batch_size
            yield [(row, 0) for row in range(start, min(start + self.batch_size, self.rows))]


class RankSampler(EpochSampler):
    """The part of every batch that one of several processes trains on.

    What is drawn does not depend on the number of processes. Images of one study stay together,
    since their loss is one.
    """

    def __init__(
        self,
        batches: EpochSampler,
        rank: int,
        world_size: int,
        studies: NDArray[np.int64] | None = None,
    ) -> None:
        """Store the sampler to divide.

        Args:
            batches: draws the batches of all processes.
            rank: of this process.
            world_size: number of processes.
            studies: (N,) number of each row's study, -1 for none.
        """
        self.batches = batches
        self.seed = batches.seed
        self.rank = rank
        self.world_size = world_size
        self.studies = studies

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch that the next iteration draws."""
        self.batches.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.batches)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[list[SampleIndex]]:
        """Iterate over this process's samples of each batch.

        Raises:
            UsageError: a batch has fewer images and studies than there are processes.
        """
        for batch in self.batches:
            units = [list(unit) for _, unit in groupby(batch, self._unit)]
            if len(units) < self.world_size:
                raise UsageError(
                    f"a batch of {len(units)} images or studies cannot be divided among "
                    f"{self.world_size} processes; raise data.batch_size, or use fewer devices"
                )
            yield [sample for unit in units[self.rank :: self.world_size] for sample in unit]

    def _unit(self, sample: SampleIndex) -> tuple[int, ...]:
        """The study of a sample, or the sample itself."""
        study = -1 if self.studies is None else int(self.studies[sample[0]])
        return (study,) if study >= 0 else sample

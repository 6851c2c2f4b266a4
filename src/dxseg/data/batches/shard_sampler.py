"""Random order over images in shards, few of which fit the local disk at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dxseg.data.batches.loader import StratifiedBatchSampler


@dataclass(frozen=True)
class Windows:
    """Shuffles within windows of shards, and the shards themselves.

    Attributes:
        shards: (N,) the shard of each row.
        size: Shards in a window.
    """

    shards: NDArray[np.int64]
    size: int

    def permutation(
        self, rows: NDArray[np.int64], generator: np.random.Generator
    ) -> NDArray[np.int64]:
        """A random order of some rows, as places among them: window after window.

        Args:
            rows: (M,) rows.
            generator: Draws which shards make a window, and the order in it.
        """
        shards, place = np.unique(self.shards[rows], return_inverse=True)
        window = generator.permutation(len(shards)) // self.size
        order = generator.permutation(len(rows))
        return order[np.argsort(window[place[order]], kind="stable")]


class ShardPoolSampler(StratifiedBatchSampler):
    """A StratifiedBatchSampler that visits its pools window by window; a function of (seed, epoch).

    An epoch goes on in each pool where the one before it ended, in the middle of a window too:
    epochs are short, and each would otherwise fetch windows of its own. So no row comes up more
    than once more often than another from the start of training.
    """

    def __init__(
        self,
        pools: Sequence[tuple[NDArray[np.int64], int]],
        batches: int,
        seed: int,
        windows: Windows,
    ) -> None:
        """Hold the pools, see StratifiedBatchSampler, and how they are shuffled."""
        super().__init__(pools, batches, seed)
        self.windows = windows
        self._last: dict[int, tuple[int, NDArray[np.int64]]] = {}

    def _streams(self, generator: np.random.Generator) -> list[NDArray[np.int64]]:  # noqa: ARG002
        return [self._stream(pool) for pool in range(len(self.pools))]

    def _stream(self, pool: int) -> NDArray[np.int64]:
        """The rows of this epoch, counted from the start of training."""
        rows, count = self.pools[pool]
        length = count * self.batches
        first, start = divmod(self.epoch * length, len(rows))
        turns = range(first, first - (-(start + length) // len(rows)))
        return np.concatenate([self._turn(pool, turn) for turn in turns])[start : start + length]

    def _turn(self, pool: int, turn: int) -> NDArray[np.int64]:
        """All rows of a pool, once; kept for the epochs that follow: millions take seconds."""
        if pool not in self._last or self._last[pool][0] != turn:
            rows = self.pools[pool][0]
            # Five numbers, and a last one that no stream of studies has
            # (dxseg.data.batches.bag_sampler).
            generator = np.random.default_rng([self.seed, turn, 0, pool, 3])
            self._last[pool] = turn, rows[self.windows.permutation(rows, generator)]
        return self._last[pool][1]

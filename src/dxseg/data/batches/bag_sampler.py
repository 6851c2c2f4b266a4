"""Batches of stage 1 where labels are of studies: images, and samples of studies (bags)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from dxseg.data.batches.samplers import EpochSampler, SampleIndex, StratifiedBatchSampler


class BagSampler(EpochSampler):
    """Adds samples of studies to the batches of another sampler.

    Studies are drawn in random rounds, each once per round, however long an epoch is. A study of n
    images is divided into m = ceil(n / size) samples of every m-th image, and each time the study
    is drawn its next sample is used: it is spread over the whole volume, so that a lesion of m
    neighboring slices is in every sample, and after m rounds every image has been used once.
    """

    def __init__(
        self,
        images: StratifiedBatchSampler,
        bags: Sequence[NDArray[np.int64]],
        *,
        count: int,
        size: int,
    ) -> None:
        """Store the studies.

        Args:
            images: What else is in each batch; it may have no pool. Gives seed and epoch.
            bags: The rows of each study, neighboring slices beside each other.
            count: Studies in each batch.
            size: Images of a study in a batch, at most.
        """
        self.images = images
        self.seed = images.seed
        self.bags = bags
        self.count = count
        self.size = size

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch that the next iteration draws."""
        self.images.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.images)

    def __iter__(self) -> Iterator[list[SampleIndex]]:
        first = self.images.epoch * len(self) * self.count
        visits = self._visits(first, len(self) * self.count)
        for drawn in self.images:
            yield drawn + [draw for _ in range(self.count) for draw in next(visits)]

    def _visits(self, first: int, number: int) -> Iterator[list[SampleIndex]]:
        """Consecutive visits to studies, counted from the start of training."""
        order: NDArray[np.int64] = np.empty(0, np.int64)
        for visit in range(first, first + number):
            turn, place = divmod(visit, len(self.bags))
            # Five numbers, so that no stream is one of the images' sampler.
            if place == 0 or visit == first:
                generator = np.random.default_rng([self.images.seed, turn, 0, 0, 1])
                order = generator.permutation(len(self.bags))
            yield self._sample(int(order[place]), turn)

    def _sample(self, bag: int, turn: int) -> list[SampleIndex]:
        rows = self.bags[bag]
        samples = -(-len(rows) // self.size)
        cycle, position = divmod(turn, samples)
        generator = np.random.default_rng([self.images.seed, cycle, 0, bag, 2])
        chosen = rows[generator.permutation(samples)[position] :: samples]
        seeds = generator.integers(2**62, size=(samples, self.size))[position, : len(chosen)]
        return list(zip(chosen.tolist(), seeds.tolist(), strict=True))

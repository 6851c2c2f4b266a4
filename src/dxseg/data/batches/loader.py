"""Batches for training and validation, the same for the same seed whatever happens in between."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision.transforms import v2

from dxseg.data.batches.augment import augment_pair
from dxseg.data.preprocessing import Preprocessing

SampleIndex = tuple[int, int]
"""A row and the seed of its augmentation."""


class Batch(TypedDict):
    """What a training step sees.

    ``image`` (B, C, S, S) standardised; ``mask`` (B, K, S, S) of 0 and 1 or a teacher's
    probabilities, empty where it is not known; ``masked`` (B,) whether it is; ``label`` (B,) class
    indices, -1 where unknown, or (B, L) of 0, 1 and NaN; ``study`` (B,) number of the study whose
    label the image shares with others, -1 for none, and ``study_label`` that label, as ``label``.
    """

    image: Tensor
    mask: Tensor
    masked: Tensor
    label: Tensor
    study: Tensor
    study_label: Tensor


@dataclass(frozen=True)
class Studies:
    """Study-level labels of N cases, see `dxseg.data.table.dataset.Dataset.studies`.

    Attributes:
        numbers: (N,) the study of each case, -1 for none.
        labels: (N,) or (N, L), the label of that study; see :class:`Batch`.
        places: (N,) where in its volume a case lies, such as its slice number.
    """

    numbers: NDArray[np.int64]
    labels: NDArray[Any]
    places: NDArray[np.int64]

    def members(self) -> list[NDArray[np.int64]]:
        """The cases of each study, neighbours beside each other."""
        order = np.lexsort((self.places, self.numbers))
        order = order[self.numbers[order] >= 0]
        _, starts = np.unique(self.numbers[order], return_index=True)
        return np.split(order, starts[1:]) if len(order) else []


@dataclass(frozen=True)
class CaseDataset:
    """N cases of one stage, as rows of arrays that other stages share.

    Attributes:
        images: memory map (M, S, S, C), uint8 or uint16.
        image_rows: (N,) the row of each case in ``images``.
        masks: memory map (P, S, S) of label maps, or None where only labels are looked at.
        mask_rows: (N,) the row of each case in ``masks``; -1 where its mask may not be used.
        labels: (N,) or (N, L), see :class:`Batch`.
        mask_classes: K.
        studies: labels that several of the cases share, or None where there are none.
    """

    images: NDArray[Any]
    image_rows: NDArray[np.int64]
    masks: NDArray[np.uint8] | None
    mask_rows: NDArray[np.int64]
    labels: NDArray[Any]
    mask_classes: int
    studies: Studies | None = None

    def __len__(self) -> int:
        return len(self.image_rows)

    def image(self, case: int) -> NDArray[Any]:
        """The stored image (S, S, C) of a case, a copy."""
        return np.array(self.images[self.image_rows[case]])

    def mask(self, case: int) -> NDArray[np.uint8]:
        """The label map (S, S) of a case, a copy; empty where it is not looked at."""
        if self.masks is None or self.mask_rows[case] < 0:
            return np.zeros(self.images.shape[1:3], dtype=np.uint8)
        return np.array(self.masks[self.mask_rows[case]])

    def targets(self, mask: Tensor) -> Tensor:
        """What :meth:`mask` stores of a case, augmented, as a target (K, S, S) of 0 and 1."""
        classes = torch.arange(1, self.mask_classes + 1)[:, None, None]
        return (mask == classes).float()


class SoftLabelDataset(CaseDataset):
    """Cases whose ``masks`` are (P, K, S, S) of probabilities in 255ths, not label maps."""

    def targets(self, mask: Tensor) -> Tensor:
        """Probabilities (K, S, S), 0 to 1."""
        return mask.float() / 255


class BatchDataset(Dataset[Batch]):
    """Map-style dataset whose index is a whole batch of draws.

    Augmentation is seeded per draw, so a batch does not depend on which process makes it.
    """

    def __init__(
        self, arrays: CaseDataset, preprocessing: Preprocessing, augmentation: v2.Compose | None
    ) -> None:
        """Hold the arrays; ``augmentation`` None is for validation."""
        self.arrays = arrays
        self.preprocessing = preprocessing
        self.augmentation = augmentation

    def __getitem__(self, draws: Sequence[SampleIndex]) -> Batch:
        """The batch of the given (row, augmentation seed) draws; none give one without rows."""
        if not draws:
            some = cast(dict[str, Tensor], self[[(0, 0)]])
            return cast(Batch, {name: rows[:0] for name, rows in some.items()})
        pairs = [self._pair(row, seed) for row, seed in draws]
        rows = [row for row, _ in draws]
        label = torch.from_numpy(self.arrays.labels[rows])
        unknown = float("nan") if label.is_floating_point() else -1
        study, study_label = torch.full((len(rows),), -1), torch.full_like(label, unknown)
        if self.arrays.studies is not None:
            study = torch.from_numpy(self.arrays.studies.numbers[rows])
            study_label = torch.from_numpy(self.arrays.studies.labels[rows])
        return {
            "image": self.preprocessing.standardise(torch.stack([image for image, _ in pairs])),
            "mask": torch.stack([self.arrays.targets(mask) for _, mask in pairs]),
            "masked": torch.from_numpy(self.arrays.mask_rows[rows] >= 0),
            "label": label,
            "study": study,
            "study_label": study_label,
        }

    def _pair(self, case: int, seed: int) -> tuple[Tensor, Tensor]:
        stored = torch.from_numpy(self.arrays.image(case)).permute(2, 0, 1)
        image = self.preprocessing.scale(stored)
        mask = torch.from_numpy(self.arrays.mask(case))
        if self.augmentation is None:
            return image, mask
        return augment_pair(self.augmentation, image, mask, seed)


class StratifiedBatchSampler(Sampler[list[SampleIndex]]):
    """Batches drawn from pools of rows, so many from each; a function of (seed, epoch).

    Each pool is gone through in random order, again and again, so within an epoch no row comes
    up more than once more often than another. Lightning calls :meth:`set_epoch`.
    """

    def __init__(
        self,
        pools: Sequence[tuple[NDArray[np.int64], int]],
        batches: int,
        seed: int,
    ) -> None:
        """Hold the pools.

        Args:
            pools: (rows, how many of them in each batch); pools without rows are left out.
            batches: batches an epoch.
            seed: of the run.
        """
        self.pools = [(rows, count) for rows, count in pools if len(rows) and count]
        self.batches = batches
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose which epoch the next iteration draws."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[list[SampleIndex]]:
        # The last number is of no use any more; without it every run would draw otherwise.
        generator = np.random.default_rng([self.seed, self.epoch, 0])
        streams = [_stream(rows, count * self.batches, generator) for rows, count in self.pools]
        seeds = generator.integers(2**62, size=(self.batches, sum(c for _, c in self.pools)))
        for batch in range(self.batches):
            rows = [
                int(row)
                for stream, (_, count) in zip(streams, self.pools, strict=True)
                for row in stream[batch * count : (batch + 1) * count]
            ]
            yield list(zip(rows, seeds[batch].tolist(), strict=True))


def _stream(
    rows: NDArray[np.int64], length: int, generator: np.random.Generator
) -> NDArray[np.int64]:
    rounds = -(-length // len(rows))
    return np.concatenate([generator.permutation(rows) for _ in range(rounds)])[:length]


class SequentialBatchSampler(Sampler[list[SampleIndex]]):
    """Every row once, in order, for validation."""

    def __init__(self, rows: int, batch_size: int) -> None:
        self.rows = rows
        self.batch_size = batch_size

    def __len__(self) -> int:
        return -(-self.rows // self.batch_size)

    def __iter__(self) -> Iterator[list[SampleIndex]]:
        for start in range(0, self.rows, self.batch_size):
            yield [(row, 0) for row in range(start, min(start + self.batch_size, self.rows))]


def make_dataloader(
    batches: BatchDataset, sampler: Sampler[list[SampleIndex]], workers: int
) -> DataLoader[Batch]:
    """A DataLoader whose sampler yields whole batches.

    Its generator seeds torch, numpy and random in the workers. No draw of a batch asks them; an
    augmentation of a user's own may, and starting a worker must not move the global generator.
    """
    return DataLoader(
        batches,
        batch_size=None,
        sampler=sampler,
        num_workers=workers,
        persistent_workers=workers > 0,
        generator=torch.Generator().manual_seed(getattr(sampler, "seed", 0)),
    )

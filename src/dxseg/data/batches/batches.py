"""Batches of samples: decoded pixels, augmented by each sample's own seed, with their targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NotRequired, TypedDict, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision.transforms import v2

from dxseg.data.batches.augment import StrongAugmentation, augment_pair, random_state
from dxseg.data.batches.patches import PatchSampler
from dxseg.data.batches.samplers import SampleIndex
from dxseg.data.preprocessing import FULL, Preprocessing, cut_mask

_StrongViews = tuple[Tensor, Tensor]
"""Of `StrongAugmentation`: views (V, C, S, S), and boxes (V, 1, S, S)."""


class Batch(TypedDict):
    """What a training step gets.

    `image` (B, C, S, S) standardized; `strong_views` (B, V, C, S, S) the same under strong
    augmentation where there is no mask, and `replaced` (B, V, 1, S, S) which rectangle of them
    another image is to replace (self-training); `mask` (B, K, S, S) of 0 and 1 or a teacher's
    probabilities, empty where it is unknown; `masked` (B,) whether it is known; `label` (B,) class
    indices, -1 where unknown, or (B, L) of 0, 1 and NaN; `label_prompt`, as `label`, what of it is
    given to the network; `study` (B,) number of the study whose label the image shares with others,
    -1 for none, and `study_label` that label, as `label`. If the images are patches, `whole` (B, C,
    S, S) are the images that they were cut from, and `corner` (B, 2) x and y of their upper left
    corners.
    """

    image: Tensor
    strong_views: NotRequired[Tensor]
    replaced: NotRequired[Tensor]
    mask: Tensor
    masked: Tensor
    label: Tensor
    label_prompt: Tensor
    study: Tensor
    study_label: Tensor
    whole: NotRequired[Tensor]
    corner: NotRequired[Tensor]


@dataclass(frozen=True)
class Studies:
    """Study-level labels of N cases, see `dxseg.data.table.dataset.Dataset.studies`.

    Attributes:
        numbers: (N,) the study of each case, -1 for none.
        labels: (N,) or (N, L), the label of that study; see `Batch`.
        places: (N,) where in its volume a case lies, such as its slice number.
    """

    numbers: NDArray[np.int64]
    labels: NDArray[Any]
    places: NDArray[np.int64]

    def subset(self, cases: NDArray[Any]) -> Studies:
        """Some of the cases, by position or by a mask of booleans."""
        return Studies(self.numbers[cases], self.labels[cases], self.places[cases])

    def members(self) -> list[NDArray[np.int64]]:
        """The cases of each study, neighbors beside each other."""
        order = np.lexsort((self.places, self.numbers))
        order = order[self.numbers[order] >= 0]
        _, starts = np.unique(self.numbers[order], return_index=True)
        return np.split(order, starts[1:]) if len(order) else []


@dataclass(frozen=True)
class CaseDataset:
    """N cases of one stage, as rows of arrays that other stages share.

    Attributes:
        images: memory map (M, S, S, C), uint8 or uint16.
        image_rows: (N,) the row of each case in `images`.
        masks: memory map (P, S, S) of label maps, or None if only labels are used.
        mask_rows: (N,) the row of each case in `masks`; -1 where its mask may not be used.
        labels: (N,) or (N, L), see `Batch`.
        mask_classes: K.
        studies: labels that several of the cases share, or None.
        positions: (N,) the `SlicePosition` of each case, or None where it is no slice; None without
            slices.
    """

    images: NDArray[Any]
    image_rows: NDArray[np.int64]
    masks: NDArray[np.uint8] | None
    mask_rows: NDArray[np.int64]
    labels: NDArray[Any]
    mask_classes: int
    studies: Studies | None = None
    positions: NDArray[np.object_] | None = None

    def __len__(self) -> int:
        return len(self.image_rows)

    def __getstate__(self) -> dict[str, Any]:
        """Pickle memory maps as the names of their files, which another process then opens."""
        return {
            name: _MappedFile(str(value.filename)) if isinstance(value, np.memmap) else value
            for name, value in self.__dict__.items()
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Open the memory maps again."""
        for name, value in state.items():
            self.__dict__[name] = value.open() if isinstance(value, _MappedFile) else value

    def subset(self, cases: NDArray[Any]) -> CaseDataset:
        """Some of the cases, by position or by a mask of booleans, of the same arrays."""
        return replace(
            self,
            image_rows=self.image_rows[cases],
            mask_rows=self.mask_rows[cases],
            labels=self.labels[cases],
            studies=None if self.studies is None else self.studies.subset(cases),
            positions=None if self.positions is None else self.positions[cases],
        )

    def image(self, case: int) -> NDArray[Any]:
        """The stored image (S, S, C) of a case, a copy."""
        return np.array(self.images[self.image_rows[case]])

    def mask(self, case: int) -> NDArray[np.uint8]:
        """The label map (S, S) of a case, a copy; empty if it may not be used."""
        if self.masks is None or self.mask_rows[case] < 0:
            return np.zeros(self.images.shape[1:3], dtype=np.uint8)
        return np.array(self.masks[self.mask_rows[case]])

    def label_map(self, case: int) -> NDArray[np.uint8]:
        """The true label map (S, S) of a case."""
        return self.mask(case)

    def targets(self, mask: Tensor) -> Tensor:
        """Convert an augmented `mask` to a target (K, S, S) of 0 and 1."""
        classes = torch.arange(1, self.mask_classes + 1)[:, None, None]
        return (mask == classes).float()


@dataclass(frozen=True)
class _MappedFile:
    """The file of a memory map of a whole array."""

    path: str

    def open(self) -> NDArray[Any]:
        array: NDArray[Any] = np.load(self.path, mmap_mode="r", allow_pickle=False)
        return array


class SoftLabelDataset(CaseDataset):
    """Cases whose `masks` are (P, K, S, S) of probabilities in 255ths, not label maps."""

    def mask(self, case: int) -> NDArray[np.uint8]:
        """The soft mask (K, S, S) of a case, a copy; empty if it may not be used."""
        mask = super().mask(case)
        return mask if mask.ndim == 3 else np.stack([mask] * self.mask_classes)

    def label_map(self, case: int) -> NDArray[np.uint8]:
        """The soft mask of a case, cut at one half."""
        return cut_mask(self.mask(case), FULL)

    def targets(self, mask: Tensor) -> Tensor:
        """Convert to probabilities (K, S, S), 0 to 1."""
        return mask.float() / FULL


class BatchDataset(Dataset[Batch]):
    """Map-style dataset whose index is a whole batch of samples.

    What is random about a sample comes from its seed: a batch does not depend on the process that
    makes it.
    """

    def __init__(
        self,
        arrays: CaseDataset,
        preprocessing: Preprocessing,
        augmentation: v2.Compose | None,
        *,
        strong: StrongAugmentation | None = None,
        label_prompt_prob: float = 0.0,
        patches: PatchSampler | None = None,
    ) -> None:
        """Store the arrays.

        Args:
            arrays: pixels and targets.
            preprocessing: standardizes the images.
            augmentation: None for validation.
            strong: makes `strong_views` of images without a mask.
            label_prompt_prob: probability that a sample's label is given to the network.
            patches: cuts a patch out of every augmented image; None for whole images.
        """
        self.arrays = arrays
        self.preprocessing = preprocessing
        self.augmentation = augmentation
        self.strong = strong
        self.label_prompt_prob = label_prompt_prob
        self.patches = patches

    def __getitem__(self, samples: Sequence[SampleIndex]) -> Batch:
        """The batch of the given (row, seed) samples; without samples, a batch of length 0."""
        if not samples:
            one = cast(dict[str, Tensor], self[[(0, 0)]])
            return cast(Batch, {name: rows[:0] for name, rows in one.items()})
        rows = [row for row, _ in samples]
        made = [self._sample(*sample) for sample in samples]
        label = torch.from_numpy(self.arrays.labels[rows])
        unknown = float("nan") if label.is_floating_point() else -1
        hidden = ~torch.tensor([one.prompted for one in made])
        study, study_label = torch.full((len(rows),), -1), torch.full_like(label, unknown)
        if self.arrays.studies is not None:
            study = torch.from_numpy(self.arrays.studies.numbers[rows])
            study_label = torch.from_numpy(self.arrays.studies.labels[rows])
        batch: Batch = {
            "image": self._stack([one.image for one in made], made),
            "mask": self._stack([one.target for one in made], made),
            "masked": torch.from_numpy(self.arrays.mask_rows[rows] >= 0),
            "label": label,
            "label_prompt": label.masked_fill(hidden.reshape(-1, *[1] * (label.ndim - 1)), unknown),
            "study": study,
            "study_label": study_label,
        }
        if strong := [one.strong for one in made if one.strong is not None]:
            batch["strong_views"] = self._stack([views for views, _ in strong], made)
            batch["replaced"] = self._stack([boxes for _, boxes in strong], made)
        if self.patches is not None:
            batch["whole"] = torch.stack([one.image for one in made])
            batch["corner"] = torch.tensor([one.corner for one in made])
        return batch

    def _stack(self, pixels: Sequence[Tensor], samples: Sequence[_Sample]) -> Tensor:
        """One batch of whole images or masks, or of the patches of them."""
        if self.patches is None:
            return torch.stack(list(pixels))
        corners = [sample.corner for sample in samples]
        return torch.stack(list(map(self.patches.cut, pixels, corners)))

    def _sample(self, case: int, seed: int) -> _Sample:
        """Read and augment a case."""
        stored = torch.from_numpy(self.arrays.image(case)).permute(2, 0, 1)
        image = self.preprocessing.scale(stored)
        mask = torch.from_numpy(self.arrays.mask(case))
        if self.augmentation is None:
            image = self.preprocessing.standardise(image)
            strong = self._strong_views(image, change=False)
            return _Sample(image, self.arrays.targets(mask), prompted=False, strong=strong)
        with random_state(seed):
            image, mask = augment_pair(self.augmentation, image, mask)
            image = self.preprocessing.standardise(image)
            strong = self._strong_views(image, change=self.arrays.mask_rows[case] < 0)
            prompted = torch.rand(()).item() < self.label_prompt_prob
            target = self.arrays.targets(mask)
            corner = (0, 0) if self.patches is None else self.patches.draw(target)
        return _Sample(image, target, prompted, strong, corner)

    def _strong_views(self, image: Tensor, *, change: bool) -> _StrongViews | None:
        if self.strong is None:
            return None
        return self.strong(image) if change else self.strong.unchanged(image)


@dataclass(frozen=True)
class _Sample:
    """A case of a batch, with strong views and their boxes where they are made."""

    image: Tensor
    target: Tensor
    prompted: bool
    strong: _StrongViews | None
    corner: tuple[int, int] = (0, 0)


def make_dataloader(
    batches: BatchDataset, sampler: Sampler[list[SampleIndex]], workers: int
) -> DataLoader[Batch]:
    """A DataLoader whose sampler yields whole batches.

    Its generator seeds torch, numpy and random in the workers. No sample uses them, but a user's
    own augmentation may; and starting a worker must not advance the global generator.
    """
    return DataLoader(
        batches,
        batch_size=None,
        sampler=sampler,
        num_workers=workers,
        persistent_workers=workers > 0,
        generator=torch.Generator().manual_seed(getattr(sampler, "seed", 0)),
    )

"""What a batch of stage 1 is made of: labelled images, and samples of labelled studies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Sampler

from dxseg.config.schema import DataConfig
from dxseg.data.batches.bag_sampler import BagSampler
from dxseg.data.batches.loader import CaseDataset, SampleIndex, StratifiedBatchSampler
from dxseg.models.factory import Task
from dxseg.training.losses import label_balance


@dataclass(frozen=True)
class LabelBatches:
    """How many images with a label of their own, and how many studies, each batch holds.

    Where a dataset has both, half of the images of a batch are of studies.

    Attributes:
        arrays: Images with their labels.
        images: Rows with a label of their own.
        studies: Rows of each study.
        image_count: Of them in a batch.
        study_count: Studies in a batch.
        bag_size: Largest number of images that stand for a study.
    """

    arrays: CaseDataset
    images: NDArray[np.int64]
    studies: list[NDArray[np.int64]]
    image_count: int
    study_count: int
    bag_size: int

    @classmethod
    def plan(cls, arrays: CaseDataset, data: DataConfig) -> LabelBatches:
        """Share a batch of `data.batch_size` images out."""
        images = np.flatnonzero(labelled(arrays.labels))
        studies = [] if arrays.studies is None else arrays.studies.members()
        for_studies = 0
        if studies:
            for_studies = data.batch_size // 2 if len(images) else data.batch_size
        study_count = max(1, round(for_studies / data.bag_size)) if studies else 0
        image_count = data.batch_size - for_studies if len(images) else 0
        return cls(arrays, images, studies, image_count, study_count, data.bag_size)

    def known(self) -> NDArray[Any]:
        """The labels there are, (N,) or (N, L): of images, then of studies, one each."""
        own = self.arrays.labels[self.images]
        if self.arrays.studies is None:
            return own
        firsts = [rows[0] for rows in self.studies]
        return np.concatenate([own, self.arrays.studies.labels[firsts]])

    @property
    def image_total(self) -> int:
        """Images that a label speaks of, their own or that of their study."""
        return len(self.images) + sum(len(rows) for rows in self.studies)

    def balance(self, task: Task) -> Tensor:
        """Weights that give every label the same say in the batches, (L,)."""
        draws = [
            np.full(rows, count / max(rows, 1))
            for rows, count in (
                (len(self.images), self.image_count),
                (len(self.studies), self.study_count),
            )
        ]
        return label_balance(self.known(), task.labels, task.multi_label, np.concatenate(draws))

    def sampler(self, batches: int, seed: int) -> Sampler[list[SampleIndex]]:
        """Draws ``batches`` batches an epoch."""
        images = StratifiedBatchSampler([(self.images, self.image_count)], batches, seed)
        if not self.studies:
            return images
        return BagSampler(images, self.studies, count=self.study_count, size=self.bag_size)


def labelled(labels: NDArray[Any]) -> NDArray[np.bool_]:
    """Which cases have their label: not -1, or no row of NaN."""
    known = labels >= 0
    return np.asarray(known if labels.ndim == 1 else known.all(axis=1), dtype=np.bool_)

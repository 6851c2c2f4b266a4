"""The batches of each stage, as a LightningDataModule."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import lightning.pytorch as pl
import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from dxseg.config.schema import DataConfig, RunConfig
from dxseg.config.stages import SelfTrainingConfig, StageConfig, StudentConfig
from dxseg.data.batches.augment import StrongAugmentation, build_augmentation
from dxseg.data.batches.bag_sampler import BagSampler
from dxseg.data.batches.batches import Batch, BatchDataset, CaseDataset, make_dataloader
from dxseg.data.batches.patches import PatchSampler
from dxseg.data.batches.samplers import (
    EpochSampler,
    RankSampler,
    SequentialBatchSampler,
    StratifiedBatchSampler,
)
from dxseg.errors import DxsegError
from dxseg.models.factory import Task
from dxseg.training.datamodule.training_data import TrainingData
from dxseg.training.losses import label_balance
from dxseg.training.pseudo_labels import PseudoLabels

NO_LABELS_MESSAGE = (
    "stage 1 and label heads need image-level labels, and no training case has one; add labels to "
    "cases.csv, or train a method without them (--method unet)"
)

Batches = tuple[CaseDataset, EpochSampler]
"""Cases, and which of them are in each batch."""

StratifiedBatches = tuple[CaseDataset, StratifiedBatchSampler]
"""The same, from pools of single cases."""


class StageData(pl.LightningDataModule):
    """Augmented training batches, and every validation case once.

    Several processes each get their part of every training batch, and validation batches of their
    own.
    """

    def __init__(
        self,
        data: TrainingData,
        config: RunConfig,
        train: Batches | dict[str, Batches],
        validation: CaseDataset | None,
        *,
        patch_size: int | None = None,
        strong: StrongAugmentation | None = None,
        label_prompts: bool = False,
    ) -> None:
        """Store what the batches are made of.

        Args:
            data: of the run.
            config: of the run.
            train: what a step gets a batch of, or several by name.
            validation: cases to validate on, or None.
            patch_size: side of the patches to train on, pixels; None for whole images. Validation
                is on whole images.
            strong: strong augmentation of images without a mask.
            label_prompts: whether labels are prompts, with the probability of the configuration.
        """
        super().__init__()
        self.preprocessing = data.preprocessing
        self.config = config
        self.train = train
        self.validation = validation
        lesions = data.task.lesion_channels
        self.patches = None if patch_size is None else PatchSampler(patch_size, lesions)
        self.strong = strong
        self.label_prompt_prob = config.data.label_prompt_prob if label_prompts else 0.0

    def train_dataloader(self) -> DataLoader[Batch] | dict[str, DataLoader[Batch]]:
        """This process's part of the batches of an epoch."""
        if isinstance(self.train, dict):
            return {name: self._train_loader(*batches) for name, batches in self.train.items()}
        return self._train_loader(*self.train)

    def _train_loader(self, cases: CaseDataset, sampler: EpochSampler) -> DataLoader[Batch]:
        dataset = BatchDataset(
            cases,
            self.preprocessing,
            build_augmentation(self.config.augment),
            strong=self.strong,
            label_prompt_prob=self.label_prompt_prob,
            patches=self.patches,
        )
        trainer = self.trainer
        if trainer is not None and trainer.world_size > 1:
            studies = None if cases.studies is None else cases.studies.numbers
            sampler = RankSampler(sampler, trainer.global_rank, trainer.world_size, studies)
        return make_dataloader(dataset, sampler, self.config.data.workers)

    def val_dataloader(self) -> DataLoader[Batch] | list[Any]:
        """This process's part of the validation cases, in order."""
        if self.validation is None:
            return []
        dataset = BatchDataset(self.validation, self.preprocessing, None)
        side = self.preprocessing.image_size
        patch = side if self.patches is None else self.patches.size
        sampler = SequentialBatchSampler(
            len(self.validation),
            # As many pixels as two training batches.
            max(1, 2 * self.config.data.batch_size * patch**2 // side**2),
            rank=0 if self.trainer is None else self.trainer.global_rank,
            world_size=1 if self.trainer is None else self.trainer.world_size,
        )
        return make_dataloader(dataset, sampler, 0)


@dataclass(frozen=True)
class LabelBatches:
    """What a batch of stage 1 holds: labeled images, and samples of labeled studies.

    If a dataset has both, half of the images of a batch are of studies.

    Attributes:
        cases: images with their labels; masks are not used.
        images: rows with a label of their own.
        studies: rows of each study.
        image_count: such images in a batch.
        study_count: studies in a batch.
        bag_size: largest number of images that represent a study.
    """

    cases: CaseDataset
    images: NDArray[np.int64]
    studies: list[NDArray[np.int64]]
    image_count: int
    study_count: int
    bag_size: int

    @classmethod
    def plan(cls, cases: CaseDataset, data: DataConfig) -> LabelBatches:
        """Divide a batch between images and studies."""
        size, bag_size = data.batch_size, data.bag_size
        images = np.flatnonzero(has_label(cases.labels))
        studies = [] if cases.studies is None else cases.studies.members()
        for_studies = (size // 2 if len(images) else size) if studies else 0
        return cls(
            replace(cases, masks=None),
            images,
            studies,
            size - for_studies if len(images) else 0,
            max(1, round(for_studies / bag_size)) if studies else 0,
            bag_size,
        )

    @property
    def labels(self) -> NDArray[Any]:
        """The known labels, (N,) or (N, L): of images, then one of each study."""
        own = self.cases.labels[self.images]
        if self.cases.studies is None:
            return own
        firsts = [rows[0] for rows in self.studies]
        return np.concatenate([own, self.cases.studies.labels[firsts]])

    @property
    def image_total(self) -> int:
        """Images that a label describes, their own or that of their study."""
        return len(self.images) + sum(len(rows) for rows in self.studies)

    def balance(self, task: Task) -> Tensor:
        """Weights (L,) under which every label has the same influence on the batches."""
        counts = [len(self.images), len(self.studies)]
        frequency = [self.image_count / max(counts[0], 1), self.study_count / max(counts[1], 1)]
        draws = np.repeat(frequency, counts)
        return label_balance(self.labels, task.labels, task.multi_label, draws)

    def batches(self, stage: StageConfig, seed: int) -> Batches:
        """The batches of an epoch."""
        images = StratifiedBatchSampler(
            [(self.images, self.image_count)], _batches_per_epoch(stage), seed
        )
        if not self.studies:
            return self.cases, images
        bags = BagSampler(images, self.studies, count=self.study_count, size=self.bag_size)
        return self.cases, bags


def mask_batches(data: TrainingData, config: RunConfig, stage: StageConfig) -> Batches:
    """Batches of images with a mask, a fixed fraction of them without a lesion."""
    data_config = config.data
    pools = mask_pools(
        data.without_lesion_masks, data_config.lesion_free_fraction, data_config.batch_size
    )
    sampler = StratifiedBatchSampler(pools, _batches_per_epoch(stage), config.seed)
    return data.mask_train, sampler


def label_batches(data: TrainingData, config: RunConfig, stage: StageConfig) -> StratifiedBatches:
    """Batches of images that have a label, whether or not they have a mask."""
    rows = np.flatnonzero(has_label(data.label_train.labels))
    if not len(rows):
        raise DxsegError(NO_LABELS_MESSAGE)
    pools = [(rows, config.data.batch_size)]
    sampler = StratifiedBatchSampler(pools, _batches_per_epoch(stage), config.seed)
    return data.label_train, sampler


def student_batches(
    labels: PseudoLabels, config: RunConfig, stage: StudentConfig
) -> StratifiedBatches:
    """Batches of images with a mask or a pseudo-label."""
    pools = mask_pools(labels.without_lesion, stage.lesion_free_fraction, config.data.batch_size)
    return labels.cases, StratifiedBatchSampler(pools, _batches_per_epoch(stage), config.seed)


def self_training_batches(
    data: TrainingData, config: RunConfig, stage: SelfTrainingConfig
) -> StratifiedBatches:
    """Batches of images with a mask and images without, if there are any."""
    masked = data.label_train.mask_rows >= 0
    rows, unmasked = np.flatnonzero(masked), np.flatnonzero(~masked)
    size = config.data.batch_size
    unlabeled = max(1, round(size * stage.unlabeled_fraction)) if len(unmasked) else 0
    unlabeled = min(unlabeled, size - 1)
    masked_pools = mask_pools(
        data.without_lesion_masks, config.data.lesion_free_fraction, size - unlabeled
    )
    pools = [
        *((rows[cases], count) for cases, count in masked_pools),
        (unmasked, unlabeled),
    ]
    sampler = StratifiedBatchSampler(pools, _batches_per_epoch(stage), config.seed)
    return data.label_train, sampler


def mask_pools(
    without_lesion: NDArray[np.bool_], fraction: float, size: int
) -> list[tuple[NDArray[np.int64], int]]:
    """Positions with a lesion and positions without, with their numbers in `size` images."""
    free = np.flatnonzero(without_lesion)
    free_count = round(size * fraction) if len(free) else 0
    free_count = min(free_count, size - 1)  # without a lesion, a batch teaches nothing about masks
    return [(np.flatnonzero(~without_lesion), size - free_count), (free, free_count)]


def _batches_per_epoch(stage: StageConfig) -> int:
    return stage.epoch_steps * stage.accumulate_grad_batches


def has_label(labels: NDArray[Any]) -> NDArray[np.bool_]:
    """Which cases have a label: not -1, or no row of NaN."""
    known = labels >= 0
    return np.asarray(known if labels.ndim == 1 else known.all(axis=1), dtype=np.bool_)

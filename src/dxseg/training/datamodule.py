"""What both stages train on: splits, cached pixels and preprocessing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dxseg.config.schema import RunConfig
from dxseg.data.batches.loader import CaseDataset, Studies
from dxseg.data.batches.pixel_cache import cached_images, cached_masks
from dxseg.data.preprocessing import Preprocessing, intensity_range
from dxseg.data.splits.holdout import make_splits
from dxseg.data.splits.mask_budget import choose_masks
from dxseg.data.splits.split_table import read_splits
from dxseg.data.table.dataset import Dataset
from dxseg.data.table.spec import DatasetSpec
from dxseg.errors import DxsegError
from dxseg.io.atomic import sha256_json
from dxseg.models.factory import Task

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Material:
    """Pixels of the training and validation cases; the test cases are never among them.

    Attributes:
        task: channels, classes, labels.
        preprocessing: image geometry and intensity, as the bundle will store it.
        label_train: all training images with their labels, and their mask where it may be used
            (self-training).
        stage1_train: the same without masks, which stage 1 does not look at.
        label_validation: all validation images with their labels.
        mask_train: training images whose mask may be used (stage 2).
        mask_validation: validation images whose mask may be used, or None.
        lesion_free_train: whether each of ``mask_train`` is lesion-free, by its label, or by its
            mask where the image has no label of its own; bool (N,).
        pixels_sha256: of the files of all these images and masks, and of their size here.
    """

    task: Task
    preprocessing: Preprocessing
    label_train: CaseDataset
    stage1_train: CaseDataset
    label_validation: CaseDataset | None
    mask_train: CaseDataset
    mask_validation: CaseDataset | None
    lesion_free_train: NDArray[np.bool_]
    pixels_sha256: str


def resolve_splits(
    dataset: Dataset, config: RunConfig, given: Path | None, progress: Progress | None = None
) -> pd.DataFrame:
    """The run's splits with its mask budget: from a file, or drawn.

    A file that already says which masks may be used is taken as it is.
    """
    split = config.split
    if given is not None:
        splits = read_splits(given, dataset)
        if "use_mask" in splits and split.masks is None:
            return splits
        splits = splits.drop(columns="use_mask", errors="ignore")
    else:
        splits = make_splits(
            dataset, fractions=split.fractions, seed=split.split_seed, progress=progress
        )
    budget = split.validation_masks
    if budget is not None:
        in_validation = splits["split"].eq("validation").to_numpy()
        maskable = in_validation & (dataset.has_mask & ~dataset.lesion_free).to_numpy()
        budget = min(budget, int(maskable.sum()))
    return choose_masks(
        dataset, splits, train_masks=split.masks, validation_masks=budget, seed=config.seed
    )


def gather(
    dataset: Dataset,
    splits: pd.DataFrame,
    config: RunConfig,
    statistics: tuple[tuple[float, ...], tuple[float, ...]],
    progress: Progress | None = None,
) -> Material:
    """Decode, resize and cache what training needs.

    Args:
        dataset: the cases.
        splits: with ``use_mask``, in the order of the cases.
        config: image size, cache folder.
        statistics: per-channel mean and standard deviation of the backbone's pretraining.
        progress: called with (done, total) while images are cached.
    """
    data = config.data
    folder = Path(data.cache_dir) if data.cache_dir else dataset.root / ".cache"
    split, use_mask = splits["split"].to_numpy(), splits["use_mask"].to_numpy(dtype=bool)
    seen = np.flatnonzero(np.isin(split, ["train", "validation"]))
    train, validation = seen[split[seen] == "train"], seen[split[seen] == "validation"]
    masked = seen[use_mask[seen]]
    mask_train, mask_validation = train[use_mask[train]], validation[use_mask[validation]]

    images = _Pixels(
        cached_images(dataset, dataset.cases.iloc[seen], data.image_size, folder, progress), seen
    )
    _check_lesion_masks(dataset, dataset.lesion_free.to_numpy(dtype=bool)[mask_train])
    rows = dataset.cases.iloc[masked]
    masks = _Pixels(cached_masks(dataset, rows, data.image_size, folder), masked)
    lesion_free = _lesion_free(dataset, masks)
    _check_lesion_masks(dataset, lesion_free[mask_train])

    known = _Known.of(dataset, masks)
    return Material(
        task=_task(dataset.spec),
        preprocessing=_preprocessing(images, train, dataset.spec, statistics),
        label_train=known.arrays(train, images),
        stage1_train=known.labels_only(train, images),
        label_validation=known.labels_only(validation, images) if len(validation) else None,
        mask_train=known.arrays(mask_train, images),
        mask_validation=known.arrays(mask_validation, images) if len(mask_validation) else None,
        lesion_free_train=lesion_free[mask_train],
        pixels_sha256=sha256_json([_name(images.stored), _name(masks.stored)]),
    )


@dataclass(frozen=True)
class _Pixels:
    """An array with one row for each of some cases of the dataset, which are given by position."""

    stored: Any
    cases: NDArray[np.int64]

    def rows(self, cases: NDArray[np.int64]) -> NDArray[np.int64]:
        """The rows of cases, -1 for those that are not among them."""
        return pd.Index(self.cases).get_indexer(pd.Index(cases)).astype(np.int64)


@dataclass(frozen=True)
class _Known:
    """What is known of each case of the dataset besides its image."""

    labels: NDArray[Any]
    studies: Studies
    masks: _Pixels
    mask_classes: int

    @classmethod
    def of(cls, dataset: Dataset, masks: _Pixels) -> _Known:
        places = dataset.cases["slice_index"].fillna(-1).to_numpy(dtype=np.int64)
        studies = Studies(dataset.studies, dataset.study_targets(), places)
        return cls(dataset.label_targets(), studies, masks, len(dataset.spec.mask_classes))

    def arrays(self, cases: NDArray[np.int64], images: _Pixels) -> CaseDataset:
        studies = self.studies
        return CaseDataset(
            images=images.stored,
            image_rows=images.rows(cases),
            masks=self.masks.stored,
            mask_rows=self.masks.rows(cases),
            labels=self.labels[cases],
            mask_classes=self.mask_classes,
            studies=Studies(studies.numbers[cases], studies.labels[cases], studies.places[cases]),
        )

    def labels_only(self, cases: NDArray[np.int64], images: _Pixels) -> CaseDataset:
        return replace(self.arrays(cases, images), masks=None)


def _lesion_free(dataset: Dataset, masks: _Pixels) -> NDArray[np.bool_]:
    """Which cases have no lesion, by their label, or by their mask where they have no label.

    A study's lesion need not lie in each slice: where no label speaks of one, its mask does.
    """
    lesion_free = dataset.lesion_free.to_numpy(dtype=bool, copy=True)
    empty = np.array([not mask.any() for mask in masks.stored])
    lesion_free[masks.cases] |= empty & dataset.image_labels.eq("").to_numpy()[masks.cases]
    return lesion_free


def _task(spec: DatasetSpec) -> Task:
    return Task(
        spec.channels,
        len(spec.mask_classes),
        len(spec.labels),
        spec.multi_label,
        tuple(spec.labels.index(label) for label in spec.lesion_free),
    )


def _preprocessing(
    images: _Pixels,
    train: NDArray[np.int64],
    spec: DatasetSpec,
    statistics: tuple[tuple[float, ...], tuple[float, ...]],
) -> Preprocessing:
    low, high = intensity_range(images.stored, images.rows(train))
    return Preprocessing(
        image_size=images.stored.shape[1],
        channels=spec.channels,
        dtype="uint8" if images.stored.dtype == np.uint8 else "uint16",
        low=low,
        high=high,
        mean=statistics[0],
        std=statistics[1],
    )


def _name(array: NDArray[Any]) -> str:
    """Of a cache: a digest of what it was made from."""
    return Path(cast(Any, array).filename).stem


def _check_lesion_masks(dataset: Dataset, lesion_free: NDArray[np.bool_]) -> None:
    """Refuse masks of which none is of a lesion."""
    if lesion_free.all():
        raise DxsegError(
            f"{dataset.root / 'cases.csv'}: no training case with a lesion has a mask that may be "
            "used; add masks, or raise --masks"
        )

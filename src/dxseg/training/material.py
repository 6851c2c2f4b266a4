"""What both stages train on: splits, cached pixels and preprocessing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dxseg.config import DataConfig, RunConfig
from dxseg.data.cache import cached_images, cached_masks
from dxseg.data.dataset import Dataset
from dxseg.data.files import sha256_json
from dxseg.data.loader import CaseArrays, Studies
from dxseg.data.preprocess import Preprocessing, intensity_range
from dxseg.data.shard_writer import sharded_images
from dxseg.data.shards import Images, ShardedImages
from dxseg.data.splits import choose_masks, make_splits, read_splits
from dxseg.errors import DxsegError
from dxseg.models.build import Task

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
    label_train: CaseArrays
    stage1_train: CaseArrays
    label_validation: CaseArrays | None
    mask_train: CaseArrays
    mask_validation: CaseArrays | None
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
        config: image size, cache folder, shards.
        statistics: per-channel mean and standard deviation of the backbone's pretraining.
        progress: called with (done, total) while images are cached.
    """
    folder = Path(config.data.cache_dir) if config.data.cache_dir else dataset.root / ".cache"
    size = config.data.image_size
    split, use_mask = splits["split"].to_numpy(), splits["use_mask"].to_numpy(dtype=bool)
    seen = np.flatnonzero(np.isin(split, ["train", "validation"]))
    if config.data.shards is not None:  # validation, which is read in order, in shards of its own
        seen = seen[np.argsort(split[seen] != "train", kind="stable")]
    images = _images(dataset, dataset.cases.iloc[seen], config.data, folder, progress)
    masked = seen[use_mask[seen]]
    lesion_free = dataset.lesion_free.to_numpy(dtype=bool, copy=True)
    _check_lesion_masks(dataset, (split[masked] == "train") & ~lesion_free[masked])
    masks = cached_masks(dataset, dataset.cases.iloc[masked], size, folder)
    # A study's lesion need not lie in this slice: where no label speaks of it, its mask does.
    empty = np.array([not mask.any() for mask in masks])
    lesion_free[masked] |= empty & dataset.image_labels.eq("").to_numpy()[masked]
    _check_lesion_masks(dataset, (split[masked] == "train") & ~lesion_free[masked])
    labels, studies = dataset.label_targets(), dataset.studies
    study_labels = dataset.study_targets()
    places = dataset.cases["slice_index"].fillna(-1).to_numpy(dtype=np.int64)
    mask_row = np.full(len(split), -1)
    mask_row[masked] = np.arange(len(masked))
    image_row = np.full(len(split), -1)
    image_row[seen] = np.arange(len(seen))
    all_images = with_mask = (images, image_row)
    if config.data.shards is not None:  # few, and drawn at random: each would be in another shard
        with_mask = cached_images(dataset, dataset.cases.iloc[masked], size, folder), mask_row
    classes = len(dataset.spec.mask_classes)

    def arrays(
        cases: NDArray[np.int64], pixels: tuple[Images, NDArray[np.int64]], *, look_at_masks: bool
    ) -> CaseArrays:
        stored, row = pixels
        return CaseArrays(
            stored,
            row[cases],
            masks if look_at_masks else None,
            mask_row[cases],
            labels[cases],
            classes,
            Studies(studies[cases], study_labels[cases], places[cases]),
        )

    train, validation = seen[split[seen] == "train"], seen[split[seen] == "validation"]
    mask_train, mask_validation = train[use_mask[train]], validation[use_mask[validation]]
    low, high = intensity_range(images, image_row[train])
    preprocessing = Preprocessing(
        image_size=size,
        channels=dataset.spec.channels,
        dtype="uint8" if images.dtype == np.uint8 else "uint16",
        low=low,
        high=high,
        mean=statistics[0],
        std=statistics[1],
    )
    spec = dataset.spec
    task = Task(
        spec.channels,
        classes,
        len(spec.labels),
        spec.multi_label,
        tuple(spec.labels.index(label) for label in spec.lesion_free),
    )
    return Material(
        task,
        preprocessing,
        arrays(train, all_images, look_at_masks=True),
        arrays(train, all_images, look_at_masks=False),
        arrays(validation, all_images, look_at_masks=False) if len(validation) else None,
        arrays(mask_train, with_mask, look_at_masks=True),
        arrays(mask_validation, with_mask, look_at_masks=True) if len(mask_validation) else None,
        lesion_free[mask_train],
        sha256_json([_name(images), _name(masks)]),
    )


def _images(
    dataset: Dataset,
    rows: pd.DataFrame,
    data: DataConfig,
    folder: Path,
    progress: Progress | None,
) -> Images:
    """The images of some cases, where the configuration wants them."""
    if data.shards is None or data.shards_local_gib is None:
        return cached_images(dataset, rows, data.image_size, folder, progress)
    room = int(data.shards_local_gib * 2**30)
    return sharded_images(dataset, rows, data.image_size, data.shards, folder, room, progress)


def _name(array: Images) -> str:
    """Of a cache: a digest of what it was made from."""
    if isinstance(array, ShardedImages):
        return PurePosixPath(array.url).name
    return Path(cast(Any, array).filename).stem


def _check_lesion_masks(dataset: Dataset, found: NDArray[np.bool_]) -> None:
    if not found.any():
        raise DxsegError(
            f"{dataset.root / 'cases.csv'}: no training case with a lesion has a mask that may be "
            "used; add masks, or raise --masks"
        )

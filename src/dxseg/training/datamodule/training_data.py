"""What a run trains on: pixels, masks and labels of its training and validation cases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dxseg.config.schema import RunConfig
from dxseg.data.batches.batches import CaseDataset, SoftLabelDataset, Studies
from dxseg.data.batches.pixel_cache import cached_images, cached_masks
from dxseg.data.geometry import Spacing, Zoom, fit_geometry
from dxseg.data.preprocessing import Preprocessing, intensity_range
from dxseg.data.readers.images import image_size
from dxseg.data.splits.known_labels import known_labels
from dxseg.data.table.dataset import Dataset
from dxseg.data.table.volumes import slice_positions
from dxseg.errors import DxsegError
from dxseg.io.atomic import sha256_json
from dxseg.io.progress import Report
from dxseg.models.factory import Task
from dxseg.training.datamodule.spacing import target_spacing, zooms_of


@dataclass(frozen=True)
class TrainingData:
    """Training and validation cases; the test cases are never among them.

    Attributes:
        task: channels, classes, labels.
        preprocessing: image geometry and intensity, as the model folder will store it.
        label_train: all training images with their labels, and with the masks that may be used.
        label_validation: the same of all validation images, or None.
        mask_train: training images whose mask may be used.
        mask_validation: validation images whose mask may be used, or None.
        lesion_free: (N,) whether the mask of each of `label_train` is empty, by its label, or by
            the mask if the image has no label of its own.
        without_lesion: (N,) whether each of them shows no lesion, likewise: organs may be outlined.
        coarse_images: the images at the size that stage 1 learns from, row for row.
        labels_sha256: of the labels of the training images and of their studies.
        pixels_sha256: of the files of all these images and masks, and of their size here.
    """

    task: Task
    preprocessing: Preprocessing
    label_train: CaseDataset
    label_validation: CaseDataset | None
    mask_train: CaseDataset
    mask_validation: CaseDataset | None
    lesion_free: NDArray[np.bool_]
    without_lesion: NDArray[np.bool_]
    coarse_images: NDArray[Any]
    labels_sha256: str
    pixels_sha256: str

    @property
    def without_lesion_masks(self) -> NDArray[np.bool_]:
        """(M,) `without_lesion` of each of `mask_train`."""
        return self.without_lesion[self.label_train.mask_rows >= 0]

    def for_stage1(self, cases: CaseDataset) -> CaseDataset:
        """The same cases with the images and labels that stage 1 learns from."""
        return replace(cases, images=self.coarse_images, masks=None)


def prepare_training_data(
    dataset: Dataset,
    splits: pd.DataFrame,
    config: RunConfig,
    statistics: tuple[tuple[float, ...], tuple[float, ...]],
    report: Report | None = None,
) -> TrainingData:
    """Decode, resize and cache what training needs; labels that may not be used are hidden.

    Args:
        dataset: the cases.
        splits: with `use_mask`, and perhaps `label_level`, in the order of the cases.
        config: image size, cache folder.
        statistics: per-channel mean and standard deviation of the backbone's pretraining.
        report: called with (done, total) while images are cached.

    Raises:
        DxsegError: no mask that may be used shows a lesion, or a file is unreadable.
    """
    dataset = known_labels(dataset, splits)
    size = config.data.image_size
    folder = Path(config.data.cache_dir) if config.data.cache_dir else dataset.root / ".cache"
    used = np.flatnonzero(splits["split"].isin(["train", "validation"]))
    rows, split = dataset.cases.iloc[used], splits["split"].to_numpy()[used]
    train, masked = split == "train", splits["use_mask"].to_numpy(dtype=bool)[used]
    lesion_free = dataset.lesion_free.to_numpy(dtype=bool)[used]
    without_lesion = dataset.without_lesion.to_numpy(dtype=bool)[used]

    spacing = target_spacing(dataset, config.data.spacing)
    zooms = zooms_of(dataset, rows, spacing)
    images = cached_images(dataset, rows, size, folder, report, zooms)
    coarse_images = images
    if config.coarse_size != size:
        zooms = zooms_of(dataset, rows, spacing, config.model.coarse_reduction)
        coarse_images = cached_images(dataset, rows, config.coarse_size, folder, report, zooms)
    _check_lesion_masks(dataset, without_lesion[train & masked])
    zooms = zooms_of(dataset, rows[masked], spacing)
    soft = config.data.soft_masks
    masks = cached_masks(dataset, rows[masked], size, folder, zooms, soft=soft)
    task, values = task_of(dataset), dataset.spec.lesion_values
    # A study's lesion is not in each slice: an image without a label of its own has its mask's.
    unlabeled = dataset.image_labels.eq("").to_numpy()[used]
    for row, mask in zip(np.flatnonzero(masked), masks, strict=True):
        if unlabeled[row]:
            lesion_free[row] |= not mask.any()
            lesions = mask[task.lesion_channels] if soft else np.isin(mask, values)
            without_lesion[row] |= not lesions.any()
    _check_lesion_masks(dataset, without_lesion[train & masked])

    cases = (SoftLabelDataset if soft else CaseDataset)(
        images=images,
        image_rows=np.arange(len(used)),
        masks=masks,
        mask_rows=np.where(masked, masked.cumsum() - 1, -1),
        labels=dataset.label_targets()[used],
        mask_classes=len(dataset.spec.mask_classes),
        studies=_studies(dataset, used),
        positions=_positions(dataset, rows, size, spacing),
    )
    validation, masked_validation = ~train, ~train & masked
    return TrainingData(
        task=task,
        preprocessing=_preprocessing(images, train, dataset.spec.channels, statistics, spacing),
        label_train=cases.subset(train),
        label_validation=cases.subset(validation) if validation.any() else None,
        mask_train=cases.subset(train & masked),
        mask_validation=cases.subset(masked_validation) if masked_validation.any() else None,
        lesion_free=lesion_free[train],
        without_lesion=without_lesion[train],
        coarse_images=coarse_images,
        labels_sha256=_labels_sha256(dataset, used[train]),
        pixels_sha256=sha256_json([_cache_name(images), _cache_name(masks)]),
    )


def _studies(dataset: Dataset, cases: NDArray[np.int64]) -> Studies | None:
    """The studies that these cases are images of, if there are any."""
    numbers = dataset.studies[cases]
    if (numbers < 0).all():
        return None
    places = dataset.cases["slice_index"].fillna(-1).to_numpy(dtype=np.int64)
    return Studies(numbers, dataset.study_targets()[cases], places[cases])


def _positions(
    dataset: Dataset, rows: pd.DataFrame, size: int, spacing: Spacing | None
) -> NDArray[np.object_] | None:
    """Where in their volumes these cases are, if any is a slice; voxels are of stored slices."""
    found = slice_positions(rows, physical=dataset.spec.spacing_unit == "mm")
    zooms: Sequence[Zoom | None] = zooms_of(dataset, rows, spacing) or [None] * len(rows)
    scales: dict[str, float] = {}
    for number, (row, position) in enumerate(zip(rows.itertuples(), found, strict=True)):
        if position is None or position.voxel_mm3 is None:
            continue
        if position.volume not in scales:  # its slices have one grid
            native = image_size(dataset.image_path(row))
            scales[position.volume] = fit_geometry(*native, size, zooms[number]).area_scale
        voxel = position.voxel_mm3 * scales[position.volume]
        found[number] = replace(position, voxel_mm3=voxel)
    return np.fromiter(found, dtype=object) if any(found) else None


def _labels_sha256(dataset: Dataset, cases: NDArray[np.int64]) -> str:
    """A digest of what stage 1 learns: which image or study has which label."""
    rows = dataset.cases.iloc[cases]
    columns = (rows["case_id"], dataset.image_labels[rows.index], dataset.study_labels[rows.index])
    studies = pd.factorize(dataset.studies[cases])[0].tolist()
    return sha256_json([*(column.tolist() for column in columns), studies])


def task_of(dataset: Dataset) -> Task:
    """What goes into a network for a dataset, and what comes out."""
    spec = dataset.spec
    return Task(
        spec.channels,
        len(spec.mask_classes),
        len(spec.labels),
        spec.multi_label,
        tuple(spec.labels.index(label) for label in spec.lesion_free),
        tuple(spec.labels.index(label) for label in spec.organs_only or ()),
        tuple(set(range(len(spec.mask_classes))) - {value - 1 for value in spec.lesion_values}),
    )


def _preprocessing(
    images: NDArray[Any],
    train: NDArray[np.bool_],
    channels: int,
    statistics: tuple[tuple[float, ...], tuple[float, ...]],
    spacing: Spacing | None,
) -> Preprocessing:
    low, high = intensity_range(images, np.flatnonzero(train))
    return Preprocessing(
        image_size=images.shape[1],
        spacing=spacing,
        channels=channels,
        dtype="uint8" if images.dtype == np.uint8 else "uint16",
        low=low,
        high=high,
        mean=statistics[0],
        std=statistics[1],
    )


def _cache_name(array: NDArray[Any]) -> str:
    """The name of a cache: a digest of what it was made from."""
    return Path(cast(Any, array).filename).stem


def _check_lesion_masks(dataset: Dataset, lesion_free: NDArray[np.bool_]) -> None:
    """Refuse masks of which none is of a lesion."""
    if lesion_free.all():
        raise DxsegError(
            f"{dataset.root / 'cases.csv'}: no training case with a lesion has a mask that may be "
            "used; add masks, or raise --masks"
        )

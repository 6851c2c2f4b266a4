"""Calibration data: the images that an int8 model is calibrated and checked on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dxseg.data.readers.masks import read_mask
from dxseg.data.splits.split_table import read_splits
from dxseg.data.table.cases import TRAIN, VALIDATION, spacing_of
from dxseg.data.table.dataset import Dataset
from dxseg.errors import DxsegError, UsageError
from dxseg.inference.sources import SpacedImage
from dxseg.training.run_record import read_run

IMAGES = 100
"""Number of images at most; ranges of activations hardly change with more."""


@dataclass(frozen=True)
class CalibrationCase:
    """One image.

    Attributes:
        image: Its file and its spacing.
        mask: The file of its true mask; None where there is none, or it must not be used.
        lesion_free: Whether its label implies an empty mask.
        classes: Of the mask.
    """

    image: SpacedImage
    mask: Path | None
    lesion_free: bool
    classes: int

    def truth(self, shape: tuple[int, int]) -> NDArray[np.uint8] | None:
        """The true label map (H, W); None where it is not known."""
        if self.mask is not None:
            return read_mask(self.mask, self.classes)
        return np.zeros(shape, np.uint8) if self.lesion_free else None


def calibration_cases(
    datasets: Sequence[str | Path], run: str | Path | None = None
) -> list[CalibrationCase]:
    """Choose images, evenly spaced over all datasets.

    Args:
        datasets: Folders of datasets.
        run: The model's run, if there is one: of its training dataset, only training and
            validation images are used, and only masks that training was allowed to use.

    Returns:
        At most `IMAGES` cases.

    Raises:
        UsageError: No image is left.
        DxsegError: A dataset or the run's files are wrong.
    """
    found: list[CalibrationCase] = []
    for folder in datasets:
        data = Dataset.load(folder)
        usable, may_use_mask = _usable(data, None if run is None else Path(run))
        rows = data.cases.assign(
            may_use=may_use_mask, free=data.lesion_free.to_numpy() & may_use_mask
        )
        found += [_case(data, row) for row in rows[usable].itertuples()]
    if not found:
        raise UsageError("no image to calibrate on; give --calibration a dataset with images")
    chosen = np.linspace(0, len(found) - 1, min(IMAGES, len(found))).round().astype(int)
    return [found[index] for index in chosen]


def _usable(data: Dataset, run: Path | None) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """For each case, whether its image and whether its mask may be used."""
    everything = np.ones(len(data), bool)
    if run is not None and not (run / "splits.csv").is_file():
        run = run.parent  # the model folder of a run
    if run is None or not (run / "splits.csv").is_file():
        return everything, everything
    try:
        splits: pd.DataFrame = read_splits(run / "splits.csv", data)
    except DxsegError:
        if read_run(run).get("dataset_name") == data.spec.name:
            raise  # rather than calibrate on test images of the run
        return everything, everything
    masks = splits["use_mask"].to_numpy(bool) if "use_mask" in splits else everything
    return splits["split"].isin([TRAIN, VALIDATION]).to_numpy(), masks


def _case(data: Dataset, row: Any) -> CalibrationCase:
    mask = data.mask_path(row) if row.may_use else None
    image = SpacedImage(data.image_path(row), spacing_of(row, data.spec))
    return CalibrationCase(image, mask, bool(row.free), len(data.spec.mask_classes))

"""Exporting a dataset as a raw dataset of nnU-Net v2, with the same split and the same masks."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import BaseModel

from dxseg.data.exporters.nnunet_format import DESCRIPTION_FILE, FOLDER_NAME, SPLITS_FILE
from dxseg.data.readers.images import read_image, to_channels
from dxseg.data.readers.masks import read_mask
from dxseg.data.table.cases import TEST, TRAIN, VALIDATION
from dxseg.data.table.dataset import Dataset
from dxseg.errors import DxsegError, UsageError
from dxseg.io.atomic import atomic_path, write_json_atomic

ENDING = ".png"

_UNFINISHED = ".export-unfinished"
_FOLDERS = ("imagesTr", "labelsTr", "imagesTs", "labelsTs")
# Names for which nnU-Net treats the class in another way.
_RESERVED_CLASSES = ("background", "ignore")


class ExportReport(BaseModel):
    """The result of an export.

    Attributes:
        destination: Folder of the raw dataset.
        training: Number of training images of fold 0 in imagesTr.
        validation: Number of validation images of fold 0 in imagesTr.
        test: Number of images in imagesTs.
        test_masks: Number of masks in labelsTs.
        without_mask: Number of training and validation images left out, because nnU-Net cannot use
            an image without a mask.
    """

    destination: Path
    training: int
    validation: int
    test: int
    test_masks: int
    without_mask: int

    def __str__(self) -> str:
        return (
            f"- {self.training} training and {self.validation} validation images in imagesTr\n"
            f"- {self.test} test images in imagesTs, {self.test_masks} masks in labelsTs\n"
            f"- {self.without_mask} images left out: no mask that may be used\n"
            f"Written: {self.destination}"
        )


class RawDataset:
    """A dataset as the files of a raw dataset, in the order of the cases.

    Training and validation cases whose mask may be used go to imagesTr and labelsTr, those of
    lesion-free images with an empty mask; `splits_final.json` makes them fold 0. Test cases go to
    imagesTs, their masks to labelsTs, which nnU-Net does not read. Images become PNG of 8 or 16
    bit, one file per channel, masks label maps of 0, 1, ... Slices of volumes are exported as
    images.
    """

    def __init__(self, dataset: Dataset, table: pd.DataFrame, target: Path) -> None:
        self.dataset, self.target = dataset, target
        self.split = table["split"].to_numpy()
        known = dataset.has_mask.to_numpy()
        self.usable = known & table["use_mask"].to_numpy() if "use_mask" in table else known
        seen = np.isin(self.split, [TRAIN, VALIDATION])
        self.fitted: NDArray[np.bool_] = seen & self.usable
        self.without_mask = int((seen & ~self.usable).sum())
        self.tested: NDArray[np.bool_] = self.split == TEST

    def check(self, splits: str) -> None:
        """Check for what nnU-Net would fail on later.

        Args:
            splits: The file of the splits, for errors.

        Raises:
            UsageError: The folder has a name that nnU-Net does not read.
            DxsegError: No mask may be used, or a class has a name that nnU-Net reserves.
        """
        if not FOLDER_NAME.fullmatch(self.target.name):
            raise UsageError(
                f"{self.target}: nnU-Net requires a folder named Dataset, three digits, _ and a "
                "name of letters, digits, - and _; for example "
                f"{self.target.parent / 'Dataset042_Lesions'}"
            )
        for name in (TRAIN, VALIDATION):
            if not self._of(name):
                raise DxsegError(
                    f"{splits}: no {name} case has a mask that may be used, and nnU-Net needs one; "
                    "split again with more masks"
                )
        reserved = set(_RESERVED_CLASSES) & set(self.dataset.spec.mask_classes)
        if reserved:
            raise DxsegError(
                f"{self.dataset.root / 'dataset.yaml'}: field mask_classes, value "
                f"{min(reserved)!r}: has another meaning in nnU-Net; rename the class"
            )

    def write(self, progress: Callable[[int, int], None]) -> None:
        """Write all files; an interrupted export is incomplete, and starts again.

        Args:
            progress: Called with (done, total) after each image.

        Raises:
            DxsegError: The folder is not empty, a file cannot be read, or an image and its mask
                differ in size.
        """
        _open(self.target)
        rows = list(self.dataset.cases.itertuples())
        chosen = np.flatnonzero(self.fitted | self.tested).tolist()
        for done, position in enumerate(chosen, 1):
            self._write_case(rows[position], position)
            progress(done, len(chosen))
        self._describe()
        (self.target / _UNFINISHED).unlink()

    def _write_case(self, row: Any, position: int) -> None:
        """Write the channels of one case, and its mask if it may be used."""
        part = "Ts" if self.tested[position] else "Tr"
        path = self.dataset.image_path(row)
        image = read_image(path)
        try:
            image = to_channels(image, self.dataset.spec.channels)
        except DxsegError as error:
            raise DxsegError(f"{path}: {error}") from error
        for channel in range(image.shape[2]):
            name = f"images{part}/{row.case_id}_{channel:04d}{ENDING}"
            _write_png(self.target / name, image[:, :, channel])
        if self.usable[position]:
            mask = self._mask(row, image.shape[:2])
            _write_png(self.target / f"labels{part}" / f"{row.case_id}{ENDING}", mask)

    def _describe(self) -> None:
        fold = {"train": self._of(TRAIN), "val": self._of(VALIDATION)}
        write_json_atomic(self.target / SPLITS_FILE, [fold])
        spec = self.dataset.spec
        classes = {name: number for number, name in enumerate(["background", *spec.mask_classes])}
        description = {
            "name": spec.name,
            "description": f"dxseg dataset {self.dataset.digest()}",
            "licence": spec.licence,
            "channel_names": {str(n): f"channel {n}" for n in range(spec.channels)},
            "labels": classes,
            "numTraining": int(self.fitted.sum()),
            "file_ending": ENDING,
        }
        write_json_atomic(self.target / DESCRIPTION_FILE, description)

    def report(self) -> ExportReport:
        """Count what is in which folder."""
        return ExportReport(
            destination=self.target,
            training=len(self._of(TRAIN)),
            validation=len(self._of(VALIDATION)),
            test=int(self.tested.sum()),
            test_masks=int((self.tested & self.usable).sum()),
            without_mask=self.without_mask,
        )

    def _of(self, split: str) -> list[str]:
        chosen = self.fitted & (self.split == split)
        return [str(name) for name in self.dataset.cases["case_id"][chosen]]

    def _mask(self, row: Any, size: tuple[int, ...]) -> NDArray[np.uint8]:
        path = self.dataset.mask_path(row)
        if path is None:
            return np.zeros(size, np.uint8)
        mask = read_mask(path, len(self.dataset.spec.mask_classes))
        if mask.shape != size:
            raise DxsegError(
                f"{path}: {mask.shape[0]} x {mask.shape[1]} pixels, but the image of case "
                f"{row.case_id!r} has {size[0]} x {size[1]}; expected equal sizes; correct the mask"
            )
        return mask


def _open(target: Path) -> None:
    """Prepare an empty folder, or clear one that an interrupted export has marked."""
    if target.exists() and not target.is_dir():
        raise DxsegError(f"{target}: is a file; expected a folder to write to")
    marker = target / _UNFINISHED
    if target.is_dir() and any(target.iterdir()) and not marker.exists():
        raise DxsegError(f"{target}: is not empty; choose a new or empty folder, or remove it")
    target.mkdir(parents=True, exist_ok=True)
    marker.touch()
    (target / DESCRIPTION_FILE).unlink(missing_ok=True)
    for name in _FOLDERS:
        if (target / name).exists():
            shutil.rmtree(target / name)
        (target / name).mkdir()


def _write_png(path: Path, pixels: NDArray[Any]) -> None:
    from PIL import Image

    # Files lost in a power cut are written again: the folder is still marked as unfinished.
    with atomic_path(path, flush=False) as temporary:
        Image.fromarray(np.ascontiguousarray(pixels)).save(temporary)

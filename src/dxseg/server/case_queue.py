"""The served dataset: its table and records, read again when they have changed."""

from __future__ import annotations

import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dxseg.data.geometry import Spacing
from dxseg.data.readers.masks import Mask
from dxseg.data.table.annotations import (
    ANNOTATIONS_FILE,
    Annotation,
    UnknownCaseError,
    find_case,
    remove_leftovers,
)
from dxseg.data.table.cases import CASES_FILE, spacing_of
from dxseg.data.table.dataset import Dataset
from dxseg.data.table.records import read_records
from dxseg.data.table.reviews import REVIEWS_FILE, Review
from dxseg.errors import DxsegError, UsageError, quote
from dxseg.inference.model_info import ModelInfo
from dxseg.io.atomic import sha256_file
from dxseg.io.csv_io import read_table
from dxseg.server.work_list import ListedCase, join_slices, list_cases

_FILES = (CASES_FILE, ANNOTATIONS_FILE, REVIEWS_FILE)
_FileState = tuple[int, ...]


@dataclass(frozen=True)
class FoundCase:
    """A case of the dataset.

    Attributes:
        row: Its row of the table.
        image: The file.
        spacing: Height and width of a pixel in mm, where the table has them.
    """

    row: Any
    image: Path
    spacing: Spacing | None


@dataclass(frozen=True)
class _Read:
    """The files of a dataset as they were read."""

    state: tuple[_FileState, ...]
    dataset: Dataset
    annotations: list[Annotation]
    reviews: list[Review]
    cases: dict[str, ListedCase]
    listed: list[ListedCase]


@dataclass(frozen=True)
class FoundVolume:
    """A volume of the dataset.

    Attributes:
        entry: Its entry of the work list.
        slices: Its slices in order.
    """

    entry: ListedCase
    slices: list[ListedCase]


class CaseQueue:
    """Reads the current state of a dataset; threads may share one."""

    def __init__(self, root: str | Path, info: ModelInfo, suggestions: Path | None = None) -> None:
        """Read the dataset.

        Args:
            root: Its folder.
            info: Of the served model.
            suggestions: A table of `dxseg suggest` with the columns case_id, rank and score;
                default: the order of the dataset.

        Raises:
            UsageError: Model and dataset have different mask classes.
            DxsegError: The dataset or the table cannot be read, or they do not fit together.
        """
        self.root = Path(root).resolve()
        self._lock = threading.Lock()
        self._read: _Read | None = None
        self._suggested: dict[str, tuple[int, float | None]] = {}
        self._by_bytes: tuple[Dataset, dict[int, list[str]]] | None = None
        dataset = Dataset.load(self.root)
        if dataset.spec.mask_classes != info.mask_classes:
            raise UsageError(
                f"{self.root}: mask classes {dataset.spec.mask_classes}, the model's are "
                f"{info.mask_classes}; serve a model that was trained on this dataset"
            )
        remove_leftovers(self.root)
        if suggestions is not None:
            self._suggested = _read_suggestions(suggestions, dataset)

    def dataset(self) -> Dataset:
        """Return the dataset, read again if its table has changed."""
        return self._current().dataset

    def listed(self) -> list[ListedCase]:
        """The work list: every case that was not dropped, in the order of annotation.

        The slices of a volume are one entry.
        """
        return self._current().listed

    def volume(self, case_id: str) -> FoundVolume:
        """Find the volume of a slice; an image is one of a single slice.

        Args:
            case_id: Of the slice.

        Raises:
            UnknownCaseError: The work list has no such case.
        """
        read = self._current()
        case = read.cases.get(case_id)
        if case is None:
            raise UnknownCaseError(
                f"case {quote(case_id)}: not in the work list; expected a case_id of "
                f"{CASES_FILE} that is not dropped"
            )
        if not case.volume_id:
            return FoundVolume(case, [case])
        order = _slice_order(read.dataset)
        slices = [one for one in read.cases.values() if one.volume_id == case.volume_id]
        entry = next(one for one in read.listed if one.volume_id == case.volume_id)
        return FoundVolume(entry, sorted(slices, key=lambda one: order[one.case_id]))

    def entry_of(self, case_id: str) -> str:
        """The case_id by which the work list has a case: of a slice, that of its volume.

        Args:
            case_id: Of the case.
        """
        case = self._current().cases.get(case_id)
        return case_id if case is None else self.volume(case_id).entry.case_id

    def image_labels(self) -> dict[str, str]:
        """Labels of the images themselves by case_id; not those of their studies."""
        dataset = self.dataset()
        return dict(zip(dataset.cases["case_id"], dataset.image_labels, strict=True))

    def waiting(self) -> list[ListedCase]:
        """The cases of the work list without a mask."""
        return [case for case in self.listed() if case.state == "waiting"]

    def history(self, case_id: str) -> tuple[list[Annotation], list[Review]]:
        """What people did with a case, oldest first.

        Args:
            case_id: Of the case.

        Raises:
            UnknownCaseError: There is no such case.
        """
        read = self._current()
        find_case(read.dataset, case_id)
        return (
            [one for one in read.annotations if one.case_id == case_id],
            [one for one in read.reviews if one.case_id == case_id],
        )

    def mask(self, case_id: str, name: str) -> Mask:
        """Read a mask that a case has or had.

        Args:
            case_id: Of the case.
            name: Path of the mask in the dataset, from `cases.csv` or `annotations.csv`.

        Raises:
            UnknownCaseError: There is no such case, or it never had this mask.
            DxsegError: The mask cannot be read.
        """
        read = self._current()
        row = find_case(read.dataset, case_id)
        known = {one.mask for one in read.annotations if one.case_id == case_id}
        if not name or name not in {row["mask"], *known}:
            raise UnknownCaseError(f"case {quote(case_id)}: never had the mask {quote(name)}")
        mask = read.dataset.read_mask({"case_id": case_id, "mask": name})
        assert mask is not None, "the name is not empty"
        return mask

    def _current(self) -> _Read:
        """Read what has changed."""
        with self._lock:
            state = tuple(_file_state(self.root / name) for name in _FILES)
            if self._read is None or self._read.state != state:
                self._read = self._load(state)
            return self._read

    def _load(self, state: tuple[_FileState, ...]) -> _Read:
        dataset = Dataset.load(self.root)
        annotations = read_records(self.root, ANNOTATIONS_FILE, Annotation)
        reviews = read_records(self.root, REVIEWS_FILE, Review)
        listed = list_cases(dataset, self._suggested, annotations, reviews)
        entries = join_slices(listed, _slice_order(dataset))
        cases = {case.case_id: case for case in listed}
        return _Read(state, dataset, annotations, reviews, cases, entries)

    def find(self, case_id: str) -> FoundCase:
        """Look a case up.

        Args:
            case_id: Of the case.

        Raises:
            UnknownCaseError: There is no such case.
            DxsegError: Its image does not exist.
        """
        dataset = self.dataset()
        row = find_case(dataset, case_id)
        return FoundCase(row, dataset.image_path(row), spacing_of(row, dataset.spec))

    def same_image(self, path: Path) -> FoundCase | None:
        """Find the case whose image is the same file, byte for byte; None without one.

        Args:
            path: Of the file.
        """
        dataset = self.dataset()
        with self._lock:
            if self._by_bytes is None or self._by_bytes[0] is not dataset:
                self._by_bytes = dataset, _images_by_size(dataset)
            by_size = self._by_bytes[1]
        alike = by_size.get(path.stat().st_size, [])
        digest = sha256_file(path) if alike else ""
        for case_id in alike:
            case = self.find(case_id)
            if sha256_file(case.image) == digest:
                return case
        return None


def _slice_order(dataset: Dataset) -> dict[str, int]:
    """By case_id, the number of a slice; of a volume without numbers, that of its row."""
    numbers = dataset.cases["slice_index"].to_numpy(np.float64, na_value=np.nan)
    rows = np.where(np.isnan(numbers), np.arange(len(numbers)), numbers).astype(int)
    return dict(zip(dataset.cases["case_id"], rows.tolist(), strict=True))


def _file_state(path: Path) -> _FileState:
    """What changes when a file is replaced; nothing without a file."""
    try:
        status = path.stat()
    except OSError:
        return ()
    return status.st_ino, status.st_mtime_ns, status.st_size


def _images_by_size(dataset: Dataset) -> dict[int, list[str]]:
    """Cases by the size of their image file; missing files are left out."""
    found: dict[int, list[str]] = {}
    for row in dataset.cases.itertuples():
        with suppress(DxsegError, OSError):
            found.setdefault(dataset.image_path(row).stat().st_size, []).append(str(row.case_id))
    return found


def _read_suggestions(path: Path, dataset: Dataset) -> dict[str, tuple[int, float | None]]:
    """Rank and score by case_id."""
    table = read_table(path)
    missing = [name for name in ("case_id", "rank", "score") if name not in table]
    if missing:
        raise DxsegError(f"{path}: columns {missing} are missing; write it with `dxseg suggest`")
    unexpected = table[~table["case_id"].isin(dataset.cases["case_id"])]
    if len(unexpected):
        raise DxsegError(
            f"{path}: case {unexpected['case_id'].iloc[0]!r} ({len(unexpected)} rows) is not in "
            f"{dataset.root / CASES_FILE}; suggest for this dataset"
        )
    numbers = table[["rank", "score"]].apply(pd.to_numeric, errors="coerce")
    if numbers.isna().any(axis=None):
        line = numbers.index[numbers.isna().any(axis=1)][0]
        raise DxsegError(f"{path}: row {line}: rank and score: expected numbers")
    order = numbers["rank"].rank(method="first").astype(int) - 1
    return {
        case_id: (int(place), float(score))
        for case_id, place, score in zip(table["case_id"], order, numbers["score"], strict=True)
    }

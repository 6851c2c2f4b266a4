"""The served dataset: its cases without a mask in order of annotation."""

from __future__ import annotations

import math
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from dxseg.data.table.annotations import find_case, remove_leftovers
from dxseg.data.table.cases import CASES_FILE
from dxseg.data.table.dataset import Dataset
from dxseg.errors import DxsegError, UsageError
from dxseg.inference.model_folder import ModelInfo
from dxseg.io.atomic import sha256_file
from dxseg.io.csv_io import read_table
from dxseg.server.uploads import Spacing


@dataclass(frozen=True)
class PendingCase:
    """A case without a mask.

    Attributes:
        case_id: As in `cases.csv`.
        label: Its label there, or "".
        score: From the table of suggestions; None where the case is not in it.
    """

    case_id: str
    label: str
    score: float | None


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
        self._read: tuple[tuple[int, ...], Dataset] | None = None
        self._by_bytes: dict[int, list[str]] | None = None
        dataset = self.dataset()
        if dataset.spec.mask_classes != info.mask_classes:
            raise UsageError(
                f"{self.root}: mask classes {dataset.spec.mask_classes}, the model's are "
                f"{info.mask_classes}; serve a model that was trained on this dataset"
            )
        remove_leftovers(self.root)
        self._suggested = {} if suggestions is None else _read_suggestions(suggestions, dataset)

    def dataset(self) -> Dataset:
        """Return the dataset, read again if its table has changed."""
        with self._lock:
            try:
                status = (self.root / CASES_FILE).stat()
            except OSError:
                return Dataset.load(self.root)  # raises the right error
            state = status.st_ino, status.st_mtime_ns, status.st_size
            if self._read is None or self._read[0] != state:
                self._read = state, Dataset.load(self.root)
            return self._read[1]

    def waiting(self) -> list[PendingCase]:
        """List the cases without a mask: suggested ones by rank, then the others in table order."""
        dataset = self.dataset()
        open_cases = dataset.cases[~dataset.has_mask & dataset.cases["split"].ne("dropped")]
        ids, last = open_cases["case_id"], len(self._suggested)
        ranks = [self._suggested.get(case_id, (last, None)) for case_id in ids]
        order = sorted(range(len(ids)), key=lambda place: ranks[place][0])
        labels = open_cases["label"]
        return [PendingCase(ids.iloc[at], labels.iloc[at], ranks[at][1]) for at in order]

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
        height, width = float(row["spacing_y"]), float(row["spacing_x"])
        known = dataset.spec.spacing_unit == "mm" and not math.isnan(height)
        return FoundCase(row, dataset.image_path(row), (height, width) if known else None)

    def same_image(self, path: Path) -> FoundCase | None:
        """Find the case whose image is the same file, byte for byte; None without one.

        Args:
            path: Of the file.
        """
        dataset = self.dataset()
        with self._lock:
            if self._by_bytes is None:
                self._by_bytes = _images_by_size(dataset)
        alike = self._by_bytes.get(path.stat().st_size, [])
        digest = sha256_file(path) if alike else ""
        for case_id in alike:
            case = self.find(case_id)
            if sha256_file(case.image) == digest:
                return case
        return None


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

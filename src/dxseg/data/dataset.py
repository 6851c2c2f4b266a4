"""A dataset is a folder with `dataset.yaml` and `cases.csv`.

One row an image; its mask and its label may each be absent.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from dxseg.data.cases import CASES_FILE, COLUMNS, split_labels, validate_cases, value_of
from dxseg.data.files import sha256_json, write_bytes_atomic
from dxseg.data.spec import SPEC_FILE, DatasetSpec, read_spec, write_spec
from dxseg.data.tables import read_table
from dxseg.errors import DxsegError

__all__ = ["COLUMNS", "Dataset", "DatasetSpec"]


class Dataset:
    """One table of images with what is known of each: a label, a mask, both or neither.

    Attributes:
        root: The dataset's folder, absolute.
        spec: What `dataset.yaml` says.
        cases: All `COLUMNS`, one row an image: text as str with "" for empty, spacing_y and
            spacing_x as float64 with NaN, fold and slice_index as Int64 with <NA>.
    """

    def __init__(self, root: str | Path, spec: DatasetSpec, cases: pd.DataFrame) -> None:
        """Validate a table and hold it; nothing is written.

        Args:
            root: The dataset's folder.
            spec: What `dataset.yaml` says.
            cases: At least the columns case_id and image.

        Raises:
            DxsegError: A value is wrong; rows are counted as lines of the CSV they would be in.
        """
        self.root = Path(root).resolve()
        self.spec = spec
        self.cases = validate_cases(cases, spec, self.root / CASES_FILE)
        roots = [self.root, *(self.root / folder for folder in spec.roots)]
        self._roots = [folder.resolve() for folder in roots]

    @classmethod
    def load(cls, path: str | Path) -> Dataset:
        """Read and validate a dataset.

        Args:
            path: The dataset's folder or its `dataset.yaml`.

        Raises:
            DxsegError: A file is absent or wrong; names row, column, value and remedy.
        """
        folder = Path(path)
        if folder.name == SPEC_FILE and not folder.is_dir():
            folder = folder.parent
        spec = read_spec(folder / SPEC_FILE)
        return cls(folder, spec, read_table(folder / CASES_FILE))

    @classmethod
    def create(cls, root: str | Path, spec: DatasetSpec, cases: pd.DataFrame) -> Dataset:
        """Validate a new dataset and write its two files.

        Args:
            root: The dataset's folder, made if absent.
            spec: What `dataset.yaml` says.
            cases: At least the columns case_id and image.

        Raises:
            DxsegError: A value is wrong; nothing is written then.
        """
        dataset = cls(root, spec, cases)
        dataset.save()
        return dataset

    def save(self) -> None:
        """Write `cases.csv`, then `dataset.yaml`, each atomically.

        In this order, a first writing that is interrupted leaves no dataset behind.
        """
        write_bytes_atomic(self.root / CASES_FILE, self._csv())
        write_spec(self.root / SPEC_FILE, self.spec)

    def image_path(self, row: Any) -> Path:
        """Find the image of a case.

        Args:
            row: A row of `cases` (`pd.Series`, a tuple of `itertuples`, or a mapping).

        Returns:
            The resolved path of an existing file, sought in the dataset's folder, then in the
            roots in their order.

        Raises:
            DxsegError: There is no such file, or it lies outside (a symbolic link leads away).
        """
        return self._locate(str(value_of(row, "image")), str(value_of(row, "case_id")), "image")

    def mask_path(self, row: Any) -> Path | None:
        """Find the mask file of a case.

        Args:
            row: A row of `cases` (`pd.Series`, a tuple of `itertuples`, or a mapping).

        Returns:
            The resolved path, or None where the table names no mask: then nothing is known unless
            the label is lesion-free, which means an empty mask (`lesion_free`, `has_mask`).

        Raises:
            DxsegError: There is no such file, or it lies outside (a symbolic link leads away).
        """
        mask = str(value_of(row, "mask"))
        return self._locate(mask, str(value_of(row, "case_id")), "mask") if mask else None

    @property
    def lesion_free(self) -> pd.Series[bool]:
        """Whether the label says that the image holds no lesion; one value a case."""
        free = set(self.spec.lesion_free)
        codes, names = self._distinct_labels()
        verdicts = np.array([bool(labels) and free.issuperset(labels) for labels in names])
        return pd.Series(verdicts[codes], index=self.cases.index, name="lesion_free")

    @property
    def has_mask(self) -> pd.Series[bool]:
        """Whether the mask is known, from a file or as empty from the label; one value a case."""
        return (self.cases["mask"].ne("") | self.lesion_free).rename("has_mask")

    def label_targets(self) -> npt.NDArray[Any]:
        """Give the labels as numbers, in the order of `spec.labels`.

        Returns:
            With one label an image: int64 (N,), -1 where the label is empty. With `multi_label`:
            float32 (N, L) of 0 and 1, a row of NaN where the label is empty.
        """
        codes, names = self._distinct_labels()
        position = {label: number for number, label in enumerate(self.spec.labels)}
        if not self.spec.multi_label:
            single = [position[labels[0]] if labels else -1 for labels in names]
            return np.array(single, dtype=np.int64)[codes]
        targets = np.zeros((len(names), len(self.spec.labels)), dtype=np.float32)
        for target, labels in zip(targets, names, strict=True):
            if labels:
                target[[position[label] for label in labels]] = 1
            else:
                target[:] = np.nan
        return targets[codes]

    def digest(self) -> str:
        """Identify what the dataset says: its specification and its table, not its pixels.

        `roots` is left out: the same dataset on another machine, its images in another folder, has
        the same digest.

        Returns:
            64 lower-case hexadecimal digits.
        """
        table = hashlib.sha256(self._csv()).hexdigest()
        return sha256_json({"spec": self.spec.model_dump(exclude={"roots"}), "cases": table})

    def __len__(self) -> int:
        return len(self.cases)

    def _csv(self) -> bytes:
        # Without a group, the file and its digest are those of a table that has no such column.
        unused = [] if self.cases["group"].ne("").any() else ["group"]
        table = self.cases.drop(columns=unused)
        return table.to_csv(index=False, lineterminator="\n").encode("utf-8")

    def _distinct_labels(self) -> tuple[npt.NDArray[np.int64], list[list[str]]]:
        codes, distinct = pd.factorize(self.cases["label"])
        return codes, [split_labels(str(text), self.spec) for text in distinct]

    def _locate(self, name: str, case_id: str, column: str) -> Path:
        where = f"{self.root / CASES_FILE}: case {case_id!r}, column {column}, value {name!r}"
        for folder in self._roots:
            candidate = folder / name
            if not candidate.is_file():
                continue
            path = candidate.resolve()
            if any(path.is_relative_to(allowed) for allowed in self._roots):
                return path
            raise DxsegError(
                f"{where}: leads to {path}, outside the dataset; add its folder to roots in "
                f"{SPEC_FILE} if it belongs to it"
            )
        sought = ", ".join(str(folder) for folder in self._roots)
        raise DxsegError(
            f"{where}: no such file in {sought}; correct the table, or roots in {SPEC_FILE} "
            "if the files have moved"
        )

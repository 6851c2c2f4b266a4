"""A dataset: a folder with `dataset.yaml` and `cases.csv`.

The table has one row per image; its mask and its label may each be absent.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from dxseg.data.readers.masks import Mask, read_mask
from dxseg.data.table.cases import (
    CASES_FILE,
    COLUMNS,
    split_labels,
    validate_cases,
    value_of,
)
from dxseg.data.table.records import inside
from dxseg.data.table.spec import SPEC_FILE, DatasetSpec, read_spec, write_spec
from dxseg.data.table.volumes import BAG_LEVELS, SLAB_LEVEL, slab_numbers
from dxseg.errors import DxsegError
from dxseg.io.atomic import sha256_json, write_bytes_atomic
from dxseg.io.csv_io import read_table
from dxseg.io.remote import RemotePath, address_fault, as_path, is_address

__all__ = ["COLUMNS", "Dataset", "DatasetSpec"]

_OPTIONAL_COLUMNS = ("spacing_z", "label_level", "group")
_STUDY_NAMES = ("volume_id", "patient_id", "group", "case_id")


class Dataset:
    """A table of images, each with a label, a mask, both or neither.

    A dataset is not changed once it is made: properties of the whole table are computed once. To
    change a table, copy `cases` and make another `Dataset`.

    Attributes:
        root: Folder of the dataset, absolute.
        spec: Specification, as in `dataset.yaml`.
        cases: All `COLUMNS`, one row per image: text as str with "" for empty, spacing_y,
            spacing_x and spacing_z as float64 with NaN, fold and slice_index as Int64 with <NA>.
        folders: Where files are searched, in this order: `root`, then the roots of `spec`.
    """

    def __init__(self, root: str | Path, spec: DatasetSpec, cases: pd.DataFrame) -> None:
        """Validate a table; nothing is written.

        Args:
            root: Folder of the dataset.
            spec: Specification, as in `dataset.yaml`.
            cases: At least the columns case_id and image.

        Raises:
            DxsegError: A value is wrong; rows are counted as lines of the CSV they would be in.
        """
        self.root = Path(root).resolve()
        self.spec = spec
        self.cases = validate_cases(cases, spec, self.root / CASES_FILE)
        roots = [as_path(root) if is_address(root) else self.root / root for root in spec.roots]
        self.folders = [folder.resolve() for folder in (self.root, *roots)]

    @classmethod
    def load(cls, path: str | Path) -> Dataset:
        """Read and validate a dataset.

        Args:
            path: The dataset's folder or its `dataset.yaml`.

        Raises:
            DxsegError: A file is absent, wrong or behind a link that leads out of the folder; names
                row, column, value and remedy.
        """
        folder = Path(path)
        if folder.name == SPEC_FILE and not folder.is_dir():
            folder = folder.parent
        for name in (SPEC_FILE, CASES_FILE):
            inside(folder.resolve(), name, "a file")
        spec = read_spec(folder / SPEC_FILE)
        return cls(folder, spec, read_table(folder / CASES_FILE))

    @classmethod
    def create(cls, root: str | Path, spec: DatasetSpec, cases: pd.DataFrame) -> Dataset:
        """Validate a new dataset and write its two files.

        Args:
            root: Folder of the dataset, created if absent.
            spec: Specification, as in `dataset.yaml`.
            cases: At least the columns case_id and image.

        Raises:
            DxsegError: A value is wrong; nothing is written then.
        """
        dataset = cls(root, spec, cases)
        dataset.save()
        return dataset

    def save(self) -> None:
        """Write `cases.csv`, then `dataset.yaml`, each atomically.

        In this order, a first write that is interrupted leaves no dataset behind.
        """
        self.save_cases()
        write_spec(self.root / SPEC_FILE, self.spec)

    def save_cases(self) -> None:
        """Write `cases.csv` atomically; `dataset.yaml` stays as it is."""
        write_bytes_atomic(self.root / CASES_FILE, _csv(self.cases))

    def image_path(self, row: Any) -> Path:
        """Find the image of a case.

        Args:
            row: A row of `cases` (`pd.Series`, a tuple of `itertuples`, or a mapping).

        Returns:
            The resolved path of a file, searched in the dataset's folder, then in the roots in
            their order; or its address (`dxseg.io.remote.RemotePath`).

        Raises:
            DxsegError: There is no such file, or it lies outside (a symbolic link leads away). An
                absent file at the last address of the roots is an error when it is read.
        """
        return self._locate(str(value_of(row, "image")), str(value_of(row, "case_id")), "image")

    def mask_path(self, row: Any) -> Path | None:
        """Find the mask file of a case.

        Args:
            row: A row of `cases` (`pd.Series`, a tuple of `itertuples`, or a mapping).

        Returns:
            As `image_path`, or None where the table has no mask file: the mask is then unknown,
            unless the label is lesion-free, which means an empty mask (`lesion_free`, `has_mask`).

        Raises:
            DxsegError: As `image_path`.
        """
        mask = str(value_of(row, "mask"))
        return self._locate(mask, str(value_of(row, "case_id")), "mask") if mask else None

    def read_mask(self, row: Any) -> Mask | None:
        """Read the mask of a case, a label map (H, W); None where `mask_path` is.

        Args:
            row: As of `mask_path`.

        Raises:
            DxsegError: The file is missing or no mask.
        """
        path = self.mask_path(row)
        return None if path is None else read_mask(path, len(self.spec.mask_classes))

    @cached_property
    def lesion_free(self) -> pd.Series[bool]:
        """Whether the label means that the image shows no lesion, one value per case.

        A study without a lesion has none in any slice, so the level of the label does not matter.
        """
        return self._labeled_only(self.spec.lesion_free).rename("lesion_free")

    @cached_property
    def without_lesion(self) -> pd.Series[bool]:
        """As `lesion_free`, or with organs only: then the mask need not be empty."""
        names = [*self.spec.lesion_free, *(self.spec.organs_only or ())]
        return self._labeled_only(names).rename("without_lesion")

    @cached_property
    def has_mask(self) -> pd.Series[bool]:
        """Whether the mask is known, from a file or as empty from the label, one value per case."""
        return (self.cases["mask"].ne("") | self.lesion_free).rename("has_mask")

    @cached_property
    def image_labels(self) -> pd.Series[str]:
        """Labels of the images themselves, "" where there is none.

        A label of a study or slab that means no lesion holds for every slice, any other for none in
        particular.
        """
        of_bag_only = self.cases["label_level"].isin(BAG_LEVELS) & ~self.without_lesion
        return self.cases["label"].mask(of_bag_only, "").rename("image_label")

    @cached_property
    def study_labels(self) -> pd.Series[str]:
        """Labels of studies or slabs, "" where there is none.

        Images of one `volume_id` share it, or of one of its slabs. See `studies` for how stage 1
        uses them.
        """
        of_bag = self.cases["label_level"].isin(BAG_LEVELS)
        return self.cases["label"].where(of_bag, "").rename("study_label")

    @cached_property
    def studies(self) -> npt.NDArray[np.int64]:
        """Studies whose label names a lesion that at least one of their images shows, (N,).

        A study is a volume, or, where labels are of slabs, a slab; of images without `volume_id` a
        patient, else a group, else the image alone, each with one label. A study is left out where
        the image-level label of one of its images already names a lesion: nothing is then known of
        the others.

        Each value is the number of the image's study, from 0; -1 for images of none, such as
        those without a lesion.
        """
        name = self.cases["case_id"]
        for column in reversed(_STUDY_NAMES):
            values = self.cases[column]
            # No value holds a line break.
            name = (column + "\n" + values).where(values.ne(""), name)
        slab = self.cases["label_level"].eq(SLAB_LEVEL)
        in_slab = name + "\n" + pd.Series(slab_numbers(self.cases), name.index).astype(str)
        own = self.image_labels.ne("") & ~self.without_lesion
        settled = in_slab.isin(in_slab[own]).where(slab, name.isin(name[own]))
        name = in_slab.where(slab, name)
        unsettled = self.study_labels.ne("") & ~self.without_lesion & ~settled
        numbers = np.full(len(self.cases), -1, dtype=np.int64)
        numbers[unsettled] = pd.factorize((name + "\n" + self.cases["label"])[unsettled])[0]
        return numbers

    def label_targets(self) -> npt.NDArray[Any]:
        """Encode `image_labels` as numbers, in the order of `spec.labels`.

        Returns:
            With one label per image: int64 (N,), -1 where unknown. With `multi_label`: float32
            (N, L) of 0 and 1, a row of NaN where unknown.
        """
        return self._targets(self.image_labels)

    def study_targets(self) -> npt.NDArray[Any]:
        """Encode the labels of the images' `studies` as numbers, in the form of `label_targets`."""
        return self._targets(self.study_labels.where(self.studies >= 0, ""))

    def _targets(self, column: pd.Series[str]) -> npt.NDArray[Any]:
        codes, names = self._distinct_labels(column)
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
        """Compute a digest of specification and table, not of the pixels.

        `roots` is left out: the same dataset on another machine, its images in another folder, has
        the same digest. So are `spacing_z`, `label_level`, `group` and `slicing` where they are
        empty: datasets keep the digest they had before these existed.

        Returns:
            64 lower-case hexadecimal digits.
        """
        return self._digest

    @cached_property
    def _digest(self) -> str:
        spec = self.spec.model_dump(exclude={"roots"}, exclude_none=True)
        table = _csv(self.cases)
        return sha256_json({"spec": spec, "cases": hashlib.sha256(table).hexdigest()})

    def __len__(self) -> int:
        return len(self.cases)

    def _labeled_only(self, expected: Iterable[str]) -> pd.Series[bool]:
        """Whether a case has labels, and none but these."""
        allowed = set(expected)
        codes, names = self._distinct_labels(self.cases["label"])
        verdicts = np.array([bool(labels) and allowed.issuperset(labels) for labels in names])
        return pd.Series(verdicts[codes], index=self.cases.index)

    def _distinct_labels(
        self, column: pd.Series[str]
    ) -> tuple[npt.NDArray[np.int64], list[list[str]]]:
        codes, distinct = pd.factorize(column)
        return codes, [split_labels(str(text), self.spec) for text in distinct]

    def _locate(self, name: str, case_id: str, column: str) -> Path:
        where = f"{self.root / CASES_FILE}: case {case_id!r}, column {column}, value {name!r}"
        if is_address(name):
            path = as_path(name).resolve()
            if isinstance(path, RemotePath):
                return path  # below a root, as the validation of the table has checked
            if path.is_file():
                return self._check_inside(path, where)
        for folder in () if is_address(name) else self.folders:
            candidate = folder / name
            if isinstance(folder, RemotePath) and (fault := address_fault(str(candidate))):
                raise DxsegError(f"{where}: at {candidate}: {fault}")
            # No request for each file at the last address: that would double their number.
            last = folder is self.folders[-1] and isinstance(folder, RemotePath)
            if last or candidate.is_file():
                return self._check_inside(candidate.resolve(), where)
        searched = ", ".join(str(folder) for folder in self.folders)
        raise DxsegError(
            f"{where}: no such file in {searched}; correct the table, or roots in {SPEC_FILE} "
            "if the files have moved"
        )

    def _check_inside(self, path: Path, where: str) -> Path:
        if any(path.is_relative_to(allowed) for allowed in self.folders):
            return path
        raise DxsegError(
            f"{where}: leads to {path}, outside the dataset; add its folder to roots in "
            f"{SPEC_FILE} if it belongs to it"
        )


def _csv(cases: pd.DataFrame) -> bytes:
    """The table as a file, without those of `_OPTIONAL_COLUMNS` that are empty."""
    empty = [column for column in _OPTIONAL_COLUMNS if cases[column].isin(["", np.nan]).all()]
    return cases.drop(columns=empty).to_csv(index=False, lineterminator="\n").encode("utf-8")

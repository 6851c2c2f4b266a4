"""Scan of all cases' files in parallel; results are cached."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dxseg.data.geometry import Spacing, zoom_to
from dxseg.data.readers.images import READERS
from dxseg.data.splits.perceptual_hash import BYTES, ImageHashes, stack_hashes
from dxseg.data.table.cases import spacing_of
from dxseg.data.table.dataset import Dataset
from dxseg.errors import DxsegError
from dxseg.io.parallel import parallel_map
from dxseg.io.sqlite_cache import SqliteCache, file_key
from dxseg.quality.case_inspection import FORMAT, CaseFacts, CaseFiles, inspect_case, unpack

_FACTS_AT_ONCE = 10_000


@dataclass(frozen=True)
class Scan:
    """The scanned files of a dataset.

    Attributes:
        dataset: The dataset, N cases.
        facts: The fields of `CaseFacts`, one row per case.
        unlisted_masks: For each case, mask files next to its mask that are not in the table.
        image_size: Input size for which the loss of detail was measured, pixels.
    """

    dataset: Dataset
    facts: pd.DataFrame
    unlisted_masks: dict[int, list[Path]]
    image_size: int
    _store: SqliteCache
    _keys: list[str]

    @property
    def readable(self) -> NDArray[np.bool_]:
        """Which images could be read, (N,)."""
        return self.facts["height"].gt(0).to_numpy()

    def descriptions(self, rows: NDArray[np.int64]) -> ImageHashes:
        """Perceptual hashes and thumbnails of some readable cases, in their order."""
        keys = [self._keys[row] for row in rows]
        return stack_hashes((record[:BYTES] for record in self._store.read(keys)), len(rows))

    def strips(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Border strips of some readable cases, (n, 1792)."""
        keys = [self._keys[row] for row in rows]
        return np.stack([unpack(record)[1] for record in self._store.read(keys)])


def scan_dataset(
    dataset: Dataset,
    store: SqliteCache,
    *,
    image_size: int,
    spacing: Spacing | None = None,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Scan:
    """Inspect every file of a dataset.

    Files that cannot be found or read are recorded in the facts, not raised.

    Args:
        dataset: The cases.
        store: Cache; unchanged files are not read again.
        image_size: Side of the square for which the loss of detail is measured, pixels.
        spacing: That images are brought to first, if they are.
        workers: Number of processes; default: one per core.
        progress: Called with the number of cases done and their total.
    """
    cases = [_locate_files(dataset, row, image_size, spacing) for row in dataset.cases.itertuples()]
    existing = [case for case in cases if case.files is not None]
    waiting = [existing[position] for position in store.missing([case.key for case in existing])]
    done = len(cases) - len(waiting)
    if progress is not None:
        progress(done, len(cases))
    jobs = [case.files for case in waiting if case.files is not None]
    for position, record in parallel_map(inspect_case, jobs, workers=workers):
        store.put(waiting[position].key, record)
        done += 1
        if progress is not None:
            progress(done, len(cases))
    keys = [case.key for case in cases]
    facts, unlisted = _read_facts(cases, store), _find_unlisted_masks(cases)
    return Scan(dataset, facts, unlisted, image_size, store, keys)


@dataclass
class _CasePaths:
    """Paths of a case's files, or why they are missing."""

    key: str
    files: CaseFiles | None
    image_problem: str = ""
    mask_problem: str = ""


def _locate_files(
    dataset: Dataset, row: Any, image_size: int, spacing: Spacing | None
) -> _CasePaths:
    spec = dataset.spec
    kind = (spec.channels, len(spec.mask_classes))
    lesions, zoom = tuple(spec.lesion_values), zoom_to(spacing, spacing_of(row, spec))
    mask, mask_key, mask_problem = None, "", ""
    try:
        image = dataset.image_path(row)
        image_key = file_key(image, FORMAT, *kind)
    except (DxsegError, OSError) as error:
        return _CasePaths("", None, image_problem=str(error))
    try:
        mask = dataset.mask_path(row)
        mask_key = "" if mask is None else file_key(mask, lesions, image_size, zoom)
    except (DxsegError, OSError) as error:
        mask_problem = str(error)
    files = CaseFiles(image, mask, *kind, lesions, image_size, zoom)
    return _CasePaths(f"{image_key}||{mask_key}", files, "", mask_problem)


def _read_facts(cases: Sequence[_CasePaths], store: SqliteCache) -> pd.DataFrame:
    parts = []
    for start in range(0, len(cases), _FACTS_AT_ONCE):
        block = cases[start : start + _FACTS_AT_ONCE]
        records = store.read([case.key for case in block if case.files is not None])
        rows = [vars(_case_facts(case, records)) for case in block]
        parts.append(pd.DataFrame(rows, columns=list(CaseFacts.model_fields)))
    return pd.concat(parts, ignore_index=True)


def _case_facts(case: _CasePaths, records: Iterator[bytes]) -> CaseFacts:
    if case.files is None:
        return CaseFacts(image_code="image-not-found", image_problem=case.image_problem)
    facts = unpack(next(records))[2]
    if case.mask_problem:
        facts.mask_code, facts.mask_problem = "mask-not-found", case.mask_problem
    return facts


def _find_unlisted_masks(cases: Sequence[_CasePaths]) -> dict[int, list[Path]]:
    """Find NAME_mask_1.png, NAME_mask_2.png, ... beside NAME_mask.png, unless they are used."""
    listed = [case.files for case in cases]
    used = {path for files in listed if files is not None for path in (files.image, files.mask)}
    stems = {files.image.stem for files in listed if files is not None}
    result: dict[int, list[Path]] = {}
    for row, files in enumerate(listed):
        # Only the name of a mask that contains its image's name shows whose the others are.
        if files is None or files.mask is None or not files.mask.stem.startswith(files.image.stem):
            continue
        for number in count(1):
            name, image = f"{files.mask.stem}_{number}", f"{files.image.stem}_{number}"
            other = files.mask.with_name(name + files.mask.suffix)
            if other in used or not stems.isdisjoint((name, image)) or not other.is_file():
                break
            suffixes = {files.image.suffix, *READERS, *map(str.upper, READERS)}
            others = {files.image.with_name(image + suffix) for suffix in suffixes} - {other}
            # It may be the mask of an image that an import has left out.
            if any(path.is_file() for path in others):
                break
            result.setdefault(row, []).append(other)
    return result

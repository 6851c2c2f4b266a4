"""All cases' files, looked at in parallel; what was found out is kept for the next time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dxseg.data.splits.perceptual_hash import BYTES, Descriptions, gather_descriptions
from dxseg.data.table.dataset import Dataset
from dxseg.errors import DxsegError
from dxseg.io.parallel import parallel_map
from dxseg.io.sqlite_cache import SqliteCache, file_key
from dxseg.quality.case_inspection import FORMAT, CaseFacts, Job, inspect_case, unpack

_FACTS_AT_ONCE = 10_000


@dataclass(frozen=True)
class Survey:
    """What is known of the files of a dataset.

    Attributes:
        dataset: Of N cases.
        facts: The fields of `CaseFacts`, one row a case.
        left_out: For each case, mask files that lie beside its mask and that the table ignores.
    """

    dataset: Dataset
    facts: pd.DataFrame
    left_out: dict[int, list[Path]]
    _store: SqliteCache
    _keys: list[str]

    @property
    def readable(self) -> NDArray[np.bool_]:
        """Which images could be read, (N,)."""
        return self.facts["height"].gt(0).to_numpy()

    def descriptions(self, rows: NDArray[np.int64]) -> Descriptions:
        """Descriptions of some readable cases, in their order."""
        keys = [self._keys[row] for row in rows]
        return gather_descriptions((record[:BYTES] for record in self._store.read(keys)), len(rows))

    def strips(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Border strips of some readable cases, (n, 1792)."""
        keys = [self._keys[row] for row in rows]
        return np.stack([unpack(record)[1] for record in self._store.read(keys)])


def survey(
    dataset: Dataset,
    store: SqliteCache,
    *,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Survey:
    """Look at every file of a dataset.

    Files that cannot be found or read are noted, not raised.

    Args:
        dataset: The cases.
        store: Keeps what is found out; files that have not changed are not read again.
        workers: Processes; by default one for each core.
        progress: Called with (done, total) cases.
    """
    places = [_locate(dataset, row) for row in dataset.cases.itertuples()]
    found = [place for place in places if place.job is not None]
    waiting = [found[position] for position in store.missing([place.key for place in found])]
    done = len(places) - len(waiting)
    if progress is not None:
        progress(done, len(places))
    jobs = [place.job for place in waiting if place.job is not None]
    for position, record in parallel_map(inspect_case, jobs, workers=workers):
        store.put(waiting[position].key, record)
        done += 1
        if progress is not None:
            progress(done, len(places))
    keys = [place.key for place in places]
    return Survey(dataset, _gather(places, store), _left_out(places), store, keys)


@dataclass
class _Place:
    """Where a case's files are, or why they are not there."""

    key: str
    job: Job | None
    image_problem: str = ""
    mask_problem: str = ""


def _locate(dataset: Dataset, row: Any) -> _Place:
    kind = (FORMAT, dataset.spec.channels, len(dataset.spec.mask_classes))
    mask, mask_key, mask_problem = None, "", ""
    try:
        image = dataset.image_path(row)
        image_key = file_key(image, *kind)
    except (DxsegError, OSError) as error:
        return _Place("", None, image_problem=str(error))
    try:
        mask = dataset.mask_path(row)
        mask_key = "" if mask is None else file_key(mask)
    except (DxsegError, OSError) as error:
        mask_problem = str(error)
    return _Place(f"{image_key}||{mask_key}", Job(image, mask, *kind[1:]), "", mask_problem)


def _gather(places: Sequence[_Place], store: SqliteCache) -> pd.DataFrame:
    parts = []
    for start in range(0, len(places), _FACTS_AT_ONCE):
        block = places[start : start + _FACTS_AT_ONCE]
        records = store.read([place.key for place in block if place.job is not None])
        rows = [vars(_complete(place, records)) for place in block]
        parts.append(pd.DataFrame(rows, columns=list(CaseFacts.model_fields)))
    return pd.concat(parts, ignore_index=True)


def _complete(place: _Place, records: Iterator[bytes]) -> CaseFacts:
    if place.job is None:
        return CaseFacts(image_code="image-not-found", image_problem=place.image_problem)
    facts = unpack(next(records))[2]
    if place.mask_problem:
        facts.mask_code, facts.mask_problem = "mask-not-found", place.mask_problem
    return facts


def _left_out(places: Sequence[_Place]) -> dict[int, list[Path]]:
    """Find NAME_mask_1.png, NAME_mask_2.png, ... beside NAME_mask.png, unless they are used."""
    jobs = [place.job for place in places]
    used = {path for job in jobs if job is not None for path in (job.image, job.mask)}
    stems = {job.image.stem for job in jobs if job is not None}
    result: dict[int, list[Path]] = {}
    for row, job in enumerate(jobs):
        # Only a mask that bears its image's name says whose the others are.
        if job is None or job.mask is None or not job.mask.stem.startswith(job.image.stem):
            continue
        for number in count(1):
            name = f"{job.mask.stem}_{number}"
            other = job.mask.with_name(name + job.mask.suffix)
            if other in used or name in stems or not other.is_file():
                break
            result.setdefault(row, []).append(other)
    return result

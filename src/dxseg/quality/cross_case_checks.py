"""Findings between cases: duplicates, patients, splits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dxseg.data.splits.groups import IDENTITIES, contradicting, known_groups
from dxseg.data.splits.near_duplicates import group_hashes, number_by_appearance
from dxseg.quality.file_checks import RARE_GROUPS, image_label_sets
from dxseg.quality.row_findings import RowFinding, flag_groups, flag_rows
from dxseg.quality.scan import Scan


def group_near_duplicates(
    scan: Scan, *, progress: Callable[[int, int], None] | None = None
) -> NDArray[np.int64]:
    """Find the groups of near-duplicates.

    Images of one patient, volume or group are not compared with each other, and constant images
    are not compared at all.

    Args:
        scan: The scanned files.
        progress: Called with the number of images done and their total.

    Returns:
        (N,) group number of each case; an image that cannot be compared is a group of its own.
    """
    total = len(scan.facts)
    varied = scan.facts["minimum"].ne(scan.facts["maximum"]).to_numpy()
    rows = np.flatnonzero(scan.readable & varied)
    known = known_groups(scan.dataset.cases)[rows]
    described = scan.descriptions(rows)
    groups = np.arange(total)
    alike = group_hashes(described, known=known, progress=progress)
    _, first = np.unique(alike, return_index=True)
    groups[rows] = rows[first[alike]]
    return number_by_appearance(groups)


def duplicate_findings(scan: Scan, near: NDArray[np.int64]) -> list[RowFinding]:
    """Find images that are the same or nearly so.

    Args:
        scan: The scanned files.
        near: Near-duplicate group of each case.
    """
    cases = scan.dataset.cases
    multiple = _group_sizes(near) > 1
    exact = group_exact_duplicates(scan)
    contradict = contradicting(near, image_label_sets(scan)) & multiple
    patients = _count_distinct(near, cases["patient_id"].where(cases["patient_id"].ne("")))
    return [
        *flag_groups("duplicates-exact", exact, _group_sizes(exact) > 1),
        *flag_groups("duplicates-near", near, multiple),
        *flag_groups("labels-contradict", near, contradict),
        *flag_groups("duplicates-across-patients", near, (patients > 1) & multiple),
    ]


def group_exact_duplicates(scan: Scan) -> NDArray[np.int64]:
    """Find the groups of cases whose image files have the same content; (N,) group numbers.

    A constant image is a group of its own: black slices of two patients are not copies.
    """
    content = scan.facts["sha256"].astype(object).to_numpy(copy=True)
    alone = (content == "") | scan.facts["minimum"].eq(scan.facts["maximum"]).to_numpy()
    content[alone] = np.flatnonzero(alone)
    # Slices of one file are not copies of each other.
    number = scan.dataset.cases["slice_index"].fillna(-1).astype("int64").to_numpy()
    codes = pd.factorize(content)[0]
    return number_by_appearance(pd.factorize(pd.MultiIndex.from_arrays([codes, number]))[0])


def split_findings(scan: Scan, near: NDArray[np.int64], split: pd.Series[str]) -> list[RowFinding]:
    """Find cases of different splits that belong together.

    Args:
        scan: The scanned files.
        near: Near-duplicate group of each case.
        split: Split of each case: train, validation, test or dropped.
    """
    cases = scan.dataset.cases
    used = split.ne("dropped").to_numpy()
    side = split.where(used)
    divided = (_count_distinct(near, side) > 1) & used
    contradict = contradicting(near, image_label_sets(scan)) & (_group_sizes(near) > 1) & used
    return [
        *_find_split_identities(cases, side, used),
        *flag_groups("duplicates-across-splits", near, divided),
        *flag_groups("labels-contradict-in-splits", near, contradict),
        *_find_lacking_labels(scan, split),
    ]


def rare_label_findings(scan: Scan, group: NDArray[np.int64]) -> list[RowFinding]:
    """Find labels with too few patients or groups for reliable metrics.

    Args:
        scan: The scanned files.
        group: Group number of each case.
    """
    labels = pd.Series(image_label_sets(scan))
    rare = {}
    for name in scan.dataset.spec.labels:
        count = len(np.unique(group[_has_label(labels, name)]))
        if count < RARE_GROUPS:
            rare[name] = f"{name}: {count} patients or groups"
    rows = labels.map(lambda names: not names.isdisjoint(rare))
    findings = flag_rows("label-rare", rows)
    if not findings and rare:
        # A label without any case has no rows.
        return [RowFinding("label-rare", np.zeros(0, np.int64), details=list(rare.values()))]
    return [RowFinding(one.code, one.rows, details=list(rare.values())) for one in findings]


def _find_split_identities(
    cases: pd.DataFrame, side: pd.Series[Any], used: NDArray[np.bool_]
) -> list[RowFinding]:
    divided = np.zeros(len(cases), np.bool_)
    for column in IDENTITIES:
        named = cases[column].ne("").to_numpy()
        codes = pd.factorize(cases[column])[0]
        divided |= (_count_distinct(codes, side) > 1) & used & named
    codes = pd.factorize(cases[list(IDENTITIES)].agg(" ".join, axis=1))[0]
    return flag_groups("patients-across-splits", codes, divided)


def _find_lacking_labels(scan: Scan, split: pd.Series[str]) -> Iterator[RowFinding]:
    labels = pd.Series(image_label_sets(scan))
    lacking = {}
    for name in scan.dataset.spec.labels:
        present = set(split[_has_label(labels, name)])
        absent = [part for part in ("train", "validation", "test") if part not in present]
        if absent and present:
            lacking[name] = f"{name}: none in {', '.join(absent)}"
    rows = labels.map(lambda names: not names.isdisjoint(lacking))
    for one in flag_rows("split-lacks-label", rows):
        yield RowFinding(one.code, one.rows, details=list(lacking.values()))


def _has_label(labels: pd.Series[Any], name: str) -> NDArray[np.bool_]:
    return labels.map(lambda names: name in names).to_numpy(dtype=np.bool_)


def _group_sizes(group: NDArray[np.int64]) -> NDArray[np.int64]:
    """Size of each row's group, (N,)."""
    return np.asarray(np.bincount(group)[group], np.int64)


def _count_distinct(group: NDArray[np.int64], values: pd.Series[Any]) -> NDArray[np.int64]:
    """Number of distinct values in each row's group, without missing ones, (N,)."""
    counts = values.groupby(group).nunique()
    return np.asarray(counts.reindex(group).to_numpy(), np.int64)

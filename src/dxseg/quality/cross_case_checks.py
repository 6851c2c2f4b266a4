"""Findings between cases: duplicates, patients, splits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dxseg.data.splits.groups import IDENTITIES, contradicting, known_groups
from dxseg.data.splits.near_duplicates import group_descriptions, number_by_appearance
from dxseg.quality.file_checks import RARE_GROUPS, image_label_sets
from dxseg.quality.row_findings import RowFinding, flag_groups, flag_rows
from dxseg.quality.scan import Survey


def near_duplicates(
    found: Survey, *, progress: Callable[[int, int], None] | None = None
) -> NDArray[np.int64]:
    """Number the groups of near-duplicates, (N,); what cannot be compared stays alone.

    Images of one patient, volume or group are not compared with each other, and constant images
    with none.

    Args:
        found: What is known of the files.
        progress: Called with (done, total) images.
    """
    total = len(found.facts)
    varied = found.facts["minimum"].ne(found.facts["maximum"]).to_numpy()
    rows = np.flatnonzero(found.readable & varied)
    known = known_groups(found.dataset.cases)[rows]
    described = found.descriptions(rows)
    groups = np.arange(total)
    alike = group_descriptions(described, known=known, progress=progress)
    _, first = np.unique(alike, return_index=True)
    groups[rows] = rows[first[alike]]
    return number_by_appearance(groups)


def duplicate_findings(found: Survey, near: NDArray[np.int64]) -> list[RowFinding]:
    """Say which images are the same or nearly so.

    Args:
        found: What is known of the files.
        near: Near-duplicate group of each case.
    """
    cases = found.dataset.cases
    several = _sizes(near) > 1
    exact = exact_groups(found)
    contradict = contradicting(near, image_label_sets(found)) & several
    patients = _kinds_within(near, cases["patient_id"].where(cases["patient_id"].ne("")))
    return [
        *flag_groups("duplicates-exact", exact, _sizes(exact) > 1),
        *flag_groups("duplicates-near", near, several),
        *flag_groups("labels-contradict", near, contradict),
        *flag_groups("duplicates-across-patients", near, (patients > 1) & several),
    ]


def exact_groups(found: Survey) -> NDArray[np.int64]:
    """Number the groups of cases whose image files have the same content, (N,)."""
    content = found.facts["sha256"].astype(object).to_numpy(copy=True)
    alone = content == ""
    content[alone] = np.flatnonzero(alone)
    # Slices of one file are no copies of each other.
    number = found.dataset.cases["slice_index"].fillna(-1).astype("int64").to_numpy()
    codes = pd.factorize(content)[0]
    return number_by_appearance(pd.factorize(pd.MultiIndex.from_arrays([codes, number]))[0])


def split_findings(
    found: Survey, near: NDArray[np.int64], split: pd.Series[str]
) -> list[RowFinding]:
    """Say what a split divides that belongs together.

    Args:
        found: What is known of the files.
        near: Near-duplicate group of each case.
        split: train, validation, test or dropped of each case.
    """
    cases = found.dataset.cases
    used = split.ne("dropped").to_numpy()
    side = split.where(used)
    divided = (_kinds_within(near, side) > 1) & used
    contradict = contradicting(near, image_label_sets(found)) & (_sizes(near) > 1) & used
    return [
        *_divided_identities(cases, side, used),
        *flag_groups("duplicates-across-splits", near, divided),
        *flag_groups("labels-contradict-in-splits", near, contradict),
        *_lacking(found, split),
    ]


def rare_labels(found: Survey, group: NDArray[np.int64]) -> list[RowFinding]:
    """Say which labels have too few patients or groups for a figure to mean something.

    Args:
        found: What is known of the files.
        group: Of cases that belong together.
    """
    labels = pd.Series(image_label_sets(found))
    rare = {}
    for name in found.dataset.spec.labels:
        count = len(np.unique(group[_has(labels, name)]))
        if count < RARE_GROUPS:
            rare[name] = f"{name}: {count} patients or groups"
    rows = labels.map(lambda names: not names.isdisjoint(rare))
    raised = flag_rows("label-rare", rows)
    if not raised and rare:
        # A label of which there is no case at all has no rows to show.
        return [RowFinding("label-rare", np.zeros(0, np.int64), details=list(rare.values()))]
    return [RowFinding(one.code, one.rows, details=list(rare.values())) for one in raised]


def _divided_identities(
    cases: pd.DataFrame, side: pd.Series[Any], used: NDArray[np.bool_]
) -> list[RowFinding]:
    divided = np.zeros(len(cases), np.bool_)
    for column in IDENTITIES:
        named = cases[column].ne("").to_numpy()
        codes = pd.factorize(cases[column])[0]
        divided |= (_kinds_within(codes, side) > 1) & used & named
    codes = pd.factorize(cases[list(IDENTITIES)].agg(" ".join, axis=1))[0]
    return flag_groups("patients-across-splits", codes, divided)


def _lacking(found: Survey, split: pd.Series[str]) -> Iterator[RowFinding]:
    labels = pd.Series(image_label_sets(found))
    lacking = {}
    for name in found.dataset.spec.labels:
        present = set(split[_has(labels, name)])
        absent = [part for part in ("train", "validation", "test") if part not in present]
        if absent and present:
            lacking[name] = f"{name}: none in {', '.join(absent)}"
    rows = labels.map(lambda names: not names.isdisjoint(lacking))
    for one in flag_rows("split-lacks-label", rows):
        yield RowFinding(one.code, one.rows, details=list(lacking.values()))


def _has(labels: pd.Series[Any], name: str) -> NDArray[np.bool_]:
    return labels.map(lambda names: name in names).to_numpy(dtype=np.bool_)


def _sizes(group: NDArray[np.int64]) -> NDArray[np.int64]:
    """Give the size of each row's group, (N,)."""
    return np.asarray(np.bincount(group)[group], np.int64)


def _kinds_within(group: NDArray[np.int64], values: pd.Series[Any]) -> NDArray[np.int64]:
    """Count the distinct values, missing ones not counted, in each row's group, (N,)."""
    counts = values.groupby(group).nunique()
    return np.asarray(counts.reindex(group).to_numpy(), np.int64)

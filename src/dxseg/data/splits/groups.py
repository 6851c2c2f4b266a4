"""Groups of cases that belong together: one patient, one volume, near-duplicates."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dxseg.data.splits.near_duplicates import (
    label_components,
    near_duplicate_groups,
    number_by_appearance,
)
from dxseg.data.table.cases import split_labels
from dxseg.data.table.dataset import Dataset
from dxseg.errors import UsageError

IDENTITIES = ("patient_id", "volume_id", "group")
"""Columns whose equal values mean that cases belong together."""


def group_cases(
    dataset: Dataset,
    *,
    groups: pd.Series[int] | None = None,
    search: bool = True,
    cache: Path | None = None,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Find groups of cases that belong together, and near-duplicates with contradicting labels.

    Args:
        dataset: The table of cases.
        groups: Near-duplicate group of each case, indexed by case_id, if known.
        search: Whether to search for near-duplicates if `groups` is not given and some case has
            neither patient, volume nor group.
        cache: As in `make_splits`.
        workers: As in `make_splits`.
        progress: As in `make_splits`.

    Returns:
        Group of each case, (N,) 0, 1, ...; and whether it is in a group of near-duplicates with
        contradicting labels, (N,).
    """
    cases = dataset.cases
    alike = None if groups is None else _aligned(groups, cases["case_id"])
    if alike is None and search and not _identified(cases).all():
        files = [dataset.image_path(row) for row in cases.itertuples()]
        alike = near_duplicate_groups(
            files, known=known_groups(cases), cache=cache, workers=workers, progress=progress
        )
    if alike is None:
        dropped = np.zeros(len(cases), np.bool_)
    else:
        dropped = contradicting(alike, label_sets(dataset, dataset.image_labels))
    return link_groups(cases, alike), dropped


def known_groups(cases: pd.DataFrame) -> NDArray[np.int64]:
    """Number the groups that the table defines: patient, volume, group; -1 where it defines none.

    Args:
        cases: Table of a dataset.

    Returns:
        Shape (N,); cases with the same number belong together.
    """
    linked = link_groups(cases[list(IDENTITIES)], None)
    return np.where(_identified(cases), linked, -1)


def link_groups(cases: pd.DataFrame, alike: NDArray[np.int64] | None) -> NDArray[np.int64]:
    """Number the groups of cases that belong together.

    Args:
        cases: Table of a dataset; at least some of patient_id, volume_id, group and image.
        alike: Near-duplicate group of each case, or None.

    Returns:
        Shape (N,): 0, 1, ... in the order of first appearance.
    """
    rows = np.arange(len(cases))
    edges = [(rows, rows)]
    keys = [cases[name].to_numpy() for name in (*IDENTITIES, "image") if name in cases]
    for key in keys if alike is None else [*keys, alike]:
        filled = rows[key != ""] if key.dtype == object else rows
        codes, _ = pd.factorize(key[filled])
        _, first = np.unique(codes, return_index=True)
        edges.append((filled, filled[first[codes]]))
    return number_by_appearance(label_components(len(cases), edges))


def contradicting(alike: NDArray[np.int64], labels: list[frozenset[str]]) -> NDArray[np.bool_]:
    """Flag groups of near-duplicates with different labels; a missing label contradicts none.

    Args:
        alike: Near-duplicate group of each case, (N,).
        labels: Labels of each case.

    Returns:
        Shape (N,); the same for all cases of a group.
    """
    seen: dict[int, set[frozenset[str]]] = {}
    for group, names in zip(alike.tolist(), labels, strict=True):
        if names:
            seen.setdefault(group, set()).add(names)
    return np.array([len(seen.get(group, ())) > 1 for group in alike.tolist()], np.bool_)


def describe_unit(dataset: Dataset) -> list[str]:
    """Say what a split keeps together, and whether that is a guess, as lines for the user.

    Args:
        dataset: The table of cases.
    """
    cases, notes = dataset.cases, []
    named = cases["patient_id"].ne("")
    if named.any() and dataset.spec.patients_from:
        notes.append(
            f"patient_id is derived from {dataset.spec.patients_from}: the unit of the split is a "
            "guess; if it is wrong, import again with --patients or --patient-pattern"
        )
    if not named.all():
        volume = ~named & cases["volume_id"].ne("")
        group = ~named & ~volume & cases["group"].ne("")
        counts = {
            "volume": int(volume.sum()),
            "group": int(group.sum()),
            "near-duplicates": int((~named & ~volume & ~group).sum()),
        }
        units = ", ".join(f"{count} by {name}" for name, count in counts.items() if count)
        notes.append(
            f"{int((~named).sum())} of {len(cases)} cases name no patient and are kept together "
            f"{units}: the unit of the split is a guess, and one patient may be on both sides; "
            "name patients with --patients when importing, or in the column patient_id"
        )
    return notes


def label_sets(dataset: Dataset, column: pd.Series[str]) -> list[frozenset[str]]:
    """Split each value of a column of labels into a set of labels."""
    return [frozenset(split_labels(text, dataset.spec)) for text in column]


def _identified(cases: pd.DataFrame) -> pd.Series[bool]:
    return (cases[list(IDENTITIES)] != "").any(axis=1)


def _aligned(groups: pd.Series[int], case_ids: pd.Series[str]) -> NDArray[np.int64]:
    """Bring given groups into the order of the table and number them."""
    missing = case_ids[~case_ids.isin(groups.index)]
    if not groups.index.is_unique or len(missing) or groups.isna().any():
        raise UsageError(
            "groups: expected one value for each case_id in the index; missing "
            f"{missing.head(5).tolist()} ({len(missing)} in all)"
        )
    return number_by_appearance(groups.loc[case_ids].to_numpy())

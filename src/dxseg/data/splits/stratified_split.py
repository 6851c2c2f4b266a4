"""Stratified split of groups of cases, by label and by presence of a lesion mask."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dxseg.data.splits.near_duplicates import number_by_appearance
from dxseg.data.table.dataset import Dataset

# A combination of labels with fewer groups than this is stratified by one of its labels: strata
# of a handful of groups cannot follow the fractions.
COMBINATION_GROUPS = 10


class StratifiedSplitter:
    """Splits the groups of a dataset, stratified by label and presence of a lesion mask.

    scikit-learn's StratifiedGroupKFold was not taken: it makes folds of equal size, not fractions,
    and its strata are single labels of single cases.
    """

    def __init__(self, dataset: Dataset, labels: list[frozenset[str]]) -> None:
        self.labels = labels
        self.lesion_mask = (dataset.has_mask & ~dataset.lesion_free).to_numpy()
        self.lesion_free = set(dataset.spec.lesion_free)

    def split(
        self, group: NDArray[np.int64], used: NDArray[np.bool_], fractions: Any, seed: list[int]
    ) -> NDArray[np.int64]:
        """Assign each case to a part; cases that are not used get -1."""
        part = np.full(len(group), -1, np.int64)
        if not used.any():
            return part
        rows = np.flatnonzero(used)
        member = number_by_appearance(group[rows])
        combined: list[set[str]] = [set() for _ in range(int(member.max()) + 1)]
        masked = np.zeros(len(combined), np.bool_)
        for row, position in zip(rows.tolist(), member.tolist(), strict=True):
            combined[position] |= self.labels[row]
            masked[position] |= self.lesion_mask[row]
        strata = [
            f"{name}|{'mask' if has else ''}"
            for name, has in zip(self._names(combined), masked, strict=True)
        ]
        rng = np.random.default_rng(seed)
        part[rows] = apportion(np.bincount(member), strata, fractions, rng)[member]
        return part

    def _names(self, combined: list[set[str]]) -> list[str]:
        """Name the stratum of each group: its combination of labels, or its rarest label."""
        names = [";".join(sorted(labels)) for labels in combined]
        frequent = Counter(names)
        single = Counter(label for labels in combined for label in labels)
        return [
            name
            if len(labels) < 2 or frequent[name] >= COMBINATION_GROUPS
            else min(labels, key=lambda label: (label in self.lesion_free, single[label], label))
            for name, labels in zip(names, combined, strict=True)
        ]


def apportion(
    sizes: NDArray[np.int64],
    strata: Sequence[str],
    fractions: Sequence[float],
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """Assign groups to parts so that every stratum, and the whole, follows the fractions.

    Within a stratum the groups come in random order, each to the part with the smallest quotient
    of (cases it would then have) by its fraction, which is D'Hondt's method of apportioning seats.
    What one stratum could not balance is carried into the next, so that many tiny strata do not
    all go to the largest part. A stratum with at least as many groups as parts reaches each.

    Args:
        sizes: Number of cases of each group, shape (G,), positive.
        strata: Stratum of each group.
        fractions: Fraction of each part; parts of fraction 0 receive nothing.
        rng: Source of the random order.

    Returns:
        Part of each group, shape (G,), 0..len(fractions)-1.
    """
    parts = np.zeros(len(sizes), np.int64)
    wanted = [part for part, fraction in enumerate(fractions) if fraction > 0]
    carried = dict.fromkeys(wanted, 0.0)
    whole = sum(fractions)
    # Rarest strata first: the frequent ones have enough groups to balance them.
    for members in members_by_stratum(strata):
        held = dict.fromkeys(wanted, 0)
        order = rng.permutation(members).tolist()
        for position, index in enumerate(order):
            empty = [part for part in wanted if not held[part]]
            must_fill = len(order) >= len(wanted) and len(order) - position <= len(empty)
            size = int(sizes[index])
            part = min(
                empty if must_fill else wanted,
                key=lambda p: ((carried[p] + held[p] + size) / fractions[p], p),
            )
            held[part] += size
            parts[index] = part
        total = sum(held.values())
        for part in wanted:
            carried[part] += held[part] - total * fractions[part] / whole
    return parts


def members_by_stratum(strata: Sequence[str]) -> list[NDArray[np.int64]]:
    """List the indices of each stratum, the smallest stratum first."""
    values = np.asarray(strata, dtype=object)
    if len(values) == 0:
        return []
    names, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    by_stratum = np.split(np.argsort(inverse, kind="stable"), np.cumsum(counts)[:-1])
    return [by_stratum[i] for i in np.lexsort((names.astype(str), counts))]

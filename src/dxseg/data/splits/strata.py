"""Groups of cases divided into parts, stratified by label and by presence of a lesion mask."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dxseg.data.splits.near_duplicates import number_by_appearance
from dxseg.data.splits.stratified_split import apportion
from dxseg.data.table.dataset import Dataset

# A combination of labels with fewer groups than this is stratified by one of its labels: strata
# of a handful of groups cannot follow the fractions.
COMBINATION_GROUPS = 10


class Strata:
    """Divides the groups of a dataset, stratified by label and presence of a lesion mask."""

    def __init__(self, dataset: Dataset, labels: list[frozenset[str]]) -> None:
        self.labels = labels
        self.lesion_mask = (dataset.has_mask & ~dataset.lesion_free).to_numpy()
        self.lesion_free = set(dataset.spec.lesion_free)

    def divide(
        self, group: NDArray[np.int64], used: NDArray[np.bool_], fractions: Any, seed: list[int]
    ) -> NDArray[np.int64]:
        """Give the part of each case; cases that are not used get -1."""
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

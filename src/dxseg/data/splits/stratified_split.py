"""Stratified apportionment of indivisible groups, and stratified nested orders."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def apportion(
    sizes: NDArray[np.int64],
    strata: Sequence[str],
    fractions: Sequence[float],
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """Assign groups to parts so that every stratum, and the whole, follows the fractions.

    Within a stratum the groups come in random order, each to the part with the smallest quotient
    of (cases it would then hold) by its fraction, which is D'Hondt's method of apportioning seats.
    What one stratum could not balance is carried into the next, so that many tiny strata do not
    all fall to the largest part. A stratum with at least as many groups as parts reaches each.

    Args:
        sizes: Number of cases of each group, shape (G,), positive.
        strata: Stratum of each group.
        fractions: Share of each part; parts of share 0 receive nothing.
        rng: Source of the random order.

    Returns:
        Part of each group, shape (G,), 0..len(fractions)-1.
    """
    parts = np.zeros(len(sizes), np.int64)
    wanted = [part for part, share in enumerate(fractions) if share > 0]
    carried = dict.fromkeys(wanted, 0.0)
    whole = sum(fractions)
    # Rarest strata first: the frequent ones have the groups to make up for them.
    for members in _members(strata):
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


def nested_order(
    strata: Sequence[str], groups: NDArray[Any], rng: np.random.Generator
) -> NDArray[np.int64]:
    """Order cases so that every beginning of the order is a stratified random sample.

    The first N cases hold each stratum in its proportion (to within one case or so), and a larger
    N only adds cases. Within a stratum every group gives one case before any gives a second: a
    budget of masks is better spent on another patient than on the same one again.

    Args:
        strata: Stratum of each case.
        groups: Group of each case, shape (N,).
        rng: Source of the random order.

    Returns:
        Indices of the cases, shape (N,).
    """
    position = np.zeros(len(strata))
    for members in _members(strata):
        shuffled = rng.permutation(members)
        turn = _occurrence(groups[shuffled])
        ordered = shuffled[np.argsort(turn, kind="stable")]
        # The middles of equal intervals: Webster's method as an order.
        position[ordered] = (np.arange(len(ordered)) + 0.5) / len(ordered)
    tie = rng.permutation(len(strata))
    return np.lexsort((tie, position))


def _members(strata: Sequence[str]) -> list[NDArray[np.int64]]:
    """List the indices of each stratum, the smallest stratum first."""
    values = np.asarray(strata, dtype=object)
    if len(values) == 0:
        return []
    names, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    by_stratum = np.split(np.argsort(inverse, kind="stable"), np.cumsum(counts)[:-1])
    return [by_stratum[i] for i in np.lexsort((names.astype(str), counts))]


def _occurrence(values: NDArray[Any]) -> NDArray[np.int64]:
    """Number the occurrences of each value in order: a a b a -> 0 1 0 2."""
    _, inverse = np.unique(values, return_inverse=True)
    order = np.argsort(inverse, kind="stable")
    starts = np.r_[0, np.flatnonzero(np.diff(inverse[order])) + 1] if len(values) else np.zeros(0)
    counts = np.diff(np.r_[starts, len(values)]).astype(np.int64)
    result = np.empty(len(values), np.int64)
    result[order] = np.arange(len(values)) - np.repeat(starts, counts).astype(np.int64)
    return result

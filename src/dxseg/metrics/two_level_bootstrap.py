"""Bootstrap of two levels: groups of images, and the trainings of each fold.

Where a fold was trained several times (draws of masks and seeds), the draws of each fold are
resampled too, apart from those of other folds. Of D draws, D - 1 are drawn with replacement: the
mean of m out of D has the variance (D - 1) / D x s2 / m, and that of the mean of D trainings is
s2 / D. `scipy.stats.bootstrap` resamples the groups; it has no second level, so the draws are
weighted in its statistic.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Weighting = Literal["image", "group"]

_CHUNK = 1_000_000  # indices drawn at a time: 8 MB, and as much for how often each group was drawn


@dataclass(frozen=True)
class GroupTerms:
    """What each group that has a value adds to the means of M methods.

    Attributes:
        sums: (G, M, C) of its values; each of C columns is a draw of a fold, and the columns of a
            fold are divided by the number of its draws.
        counts: (G,) of its images; 1 where groups weigh alike.
        draws: The number of draws of each fold, in the order of the columns.
        images: Number of images with a value.
    """

    sums: NDArray[np.float64]
    counts: NDArray[np.float64]
    draws: list[int]
    images: int

    @classmethod
    def of(
        cls,
        table: NDArray[np.float64],
        groups: ArrayLike,
        folds: ArrayLike | None,
        weighting: Weighting,
    ) -> GroupTerms:
        """Sum values (N, M, D) by group, fold and draw."""
        names = np.asarray(groups)
        places = np.zeros(len(names)) if folds is None else np.asarray(folds)
        if names.ndim != 1 or table.ndim != 3 or not len(table) == len(names) == len(places):
            raise ValueError(
                f"values, groups and folds must be of one length, got {len(table)}, "
                f"{len(names)} and {len(places)}"
            )
        if np.isinf(table).any():
            raise ValueError("values must be finite, or NaN where an image has none")
        present = ~np.isnan(table).all(axis=(1, 2))
        table, places = table[present], places[present]
        _, index = np.unique(names[present], return_inverse=True)
        counts = np.bincount(index).astype(np.float64)
        columns: list[NDArray[np.float64]] = []
        draws: list[int] = []
        for place in np.unique(places):
            inside = places == place
            trained = ~np.isnan(table[inside]).all(axis=(0, 1))
            values = np.where(inside[:, None, None], table[:, :, trained], 0.0)
            if np.isnan(values).any():
                raise ValueError("an image has a value in some draws of its fold only")
            draws.append(int(trained.sum()))
            sums = np.zeros((len(counts), *values.shape[1:]))
            np.add.at(sums, index, values / draws[-1])
            columns.append(sums)
        whole = np.concatenate(columns, axis=2) if columns else np.empty((0, table.shape[1], 0))
        images = int(counts.sum())
        if weighting == "group":
            whole, counts = whole / counts[:, None, None], np.ones_like(counts)
        return cls(whole, counts, draws, images)


def resample(terms: GroupTerms, confidence: float, resamples: int, seed: int) -> Any:
    """Bootstrap the means of M methods, all under the same draws of groups and of trainings."""
    from scipy.stats import bootstrap

    total, methods, columns = terms.sums.shape
    flat = terms.sums.reshape(total, -1)
    trainings = np.random.default_rng((seed, 1))

    def means(indices: NDArray[np.int64], axis: int) -> NDArray[np.float64]:  # noqa: ARG001
        size = len(indices)
        offsets = total * np.arange(size)[:, None]
        drawn = np.bincount((indices + offsets).ravel(), minlength=size * total)
        often = drawn.reshape(size, total).astype(np.float64)
        sums = (often @ flat).reshape(size, methods, columns)
        weights = np.concatenate([_draw_weights(n, size, trainings) for n in terms.draws], axis=1)
        totals = (sums * weights[:, None]).sum(axis=2).T
        return np.asarray(totals / (often @ terms.counts), np.float64)

    return bootstrap(
        (np.arange(total),),
        means,
        vectorized=True,
        n_resamples=resamples,
        batch=max(1, _CHUNK // total),
        confidence_level=confidence,
        method="percentile",
        rng=np.random.default_rng(seed),
    )


def _draw_weights(draws: int, size: int, generator: np.random.Generator) -> NDArray[np.float64]:
    """How much each of a fold's trainings weighs in each of `size` resamples; 1 on average."""
    if draws == 1:
        return np.ones((size, 1))
    drawn = generator.multinomial(draws - 1, np.full(draws, 1 / draws), size=size)
    return np.asarray(drawn * (draws / (draws - 1)), np.float64)

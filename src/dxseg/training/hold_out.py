"""Which training cases stage 1 does not learn, so that it meets them as new images (ours).

A classifier is surer of the images that it was trained on. A segmenter that learns from its
evidence on the same images learns to trust it more than it deserves on others. As in stacking
(Wolpert, "Stacked Generalization", Neural Networks 5, 1992), what one model learns from another has
to be said of cases that the other has not seen. Few cases have a mask, so keeping these from the
classifier costs it little.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dxseg.data.dataset import Dataset

LESION_FREE_SHARE = 0.2
"""Largest part of the lesion-free cases that is kept from stage 1; stage 2 draws from these."""


def held_out(dataset: Dataset, splits: pd.DataFrame, share: float, seed: int) -> NDArray[np.bool_]:
    """Choose the training cases whose label stage 1 does not learn.

    First the patients or near-duplicate groups of cases that have a mask which may be used, then
    others that are all lesion-free; whole groups, each kind in random order.

    Args:
        dataset: The cases.
        splits: With `group` and `use_mask`, in the order of the cases.
        share: Largest part of the training cases with a lesion, and of the others, that is chosen;
            0 chooses none.
        seed: Of the order.

    Returns:
        (N,), one a case of the dataset.
    """
    train = splits["split"].eq("train").to_numpy()
    free = train & dataset.lesion_free.to_numpy()
    lesion = train & ~free
    masked = lesion & splits["use_mask"].to_numpy(dtype=bool)
    names, group = np.unique(splits["group"].to_numpy(), return_inverse=True)
    with_mask = np.unique(group[masked])
    harmless = np.setdiff1d(np.unique(group[free]), np.unique(group[lesion]))
    order = np.random.default_rng(seed)
    chosen = np.zeros(len(names), bool)
    for groups, kind, most in (
        (with_mask, lesion, share),
        (harmless, free, min(share, LESION_FREE_SHARE)),
    ):
        sizes = np.bincount(group[kind], minlength=len(names))
        taken, limit = sizes[chosen].sum(), most * kind.sum()
        for one in order.permutation(groups):
            if taken + sizes[one] <= limit:
                taken += sizes[one]
                chosen[one] = True
    return train & chosen[group]

"""The labels that are known where masks are hidden: of slices, of slabs, or of volumes only.

Labels of slices that follow from a label map are known as long as the map is. Where the map is
hidden, so are they: what a hospital knows of such a volume is its study-level label, or the labels
of those of its slabs that a table names.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dxseg.data.table.cases import CASES_FILE, split_labels
from dxseg.data.table.dataset import Dataset
from dxseg.data.table.volumes import (
    BAG_LEVELS,
    MASK_LEVEL,
    SLAB_LEVEL,
    SLAB_MASK_LEVEL,
    STUDY_LEVEL,
    bag_names,
)
from dxseg.errors import DxsegError, UsageError

LabelUnit = Literal["slice", "slab", "volume"]
Levels = NDArray[np.object_]

_UNKNOWN = "unknown"
HIDDEN_LEVELS = (*BAG_LEVELS, _UNKNOWN)
"""What may be left of a label that is hidden."""


def hidden_levels(dataset: Dataset, unit: LabelUnit | None) -> Levels:
    """The level at which the label of each case is known if its mask is hidden.

    Args:
        dataset: The table of cases.
        unit: What labels are of; None: as the table says, where level `mask` becomes `study` (in
            volumes of whose slabs some are known, `unknown`) and `slab-mask` becomes `slab`.

    Returns:
        (N,) of `HIDDEN_LEVELS`; "" where the label stays as it is.

    Raises:
        UsageError: The table has no volumes, or no slice_index for slabs.
    """
    cases = dataset.cases
    levels = np.full(len(cases), "", dtype=object)
    if unit is None:
        of_slab = cases["label_level"].eq(SLAB_MASK_LEVEL)
        in_others = ~cases["volume_id"].isin(set(cases["volume_id"][of_slab]))
        derived = cases["label_level"].eq(MASK_LEVEL)
        levels[derived] = np.where(in_others[derived], STUDY_LEVEL, _UNKNOWN)
        levels[of_slab] = SLAB_LEVEL
    if unit in (None, "slice"):
        return levels
    in_volume = cases["volume_id"].ne("").to_numpy()
    where = f"{dataset.root / CASES_FILE}: split.label_unit {unit}"
    if not in_volume.any():
        raise UsageError(f"{where}: no case has a volume_id; fill it in, or leave label_unit out")
    unplaced = in_volume & cases["slice_index"].isna().to_numpy()
    if unit == "slab" and unplaced.any():
        case = cases["case_id"][unplaced].iloc[0]
        raise UsageError(f"{where}: case {case!r} has no slice_index; fill it in, or use volume")
    levels[in_volume] = STUDY_LEVEL
    if unit == "slab":
        levels[in_volume & cases["label_level"].ne(STUDY_LEVEL).to_numpy()] = SLAB_LEVEL
    return levels


def known_labels(dataset: Dataset, splits: pd.DataFrame) -> Dataset:
    """The dataset with only the labels that may be used, for training, decisions and suggestions.

    Args:
        dataset: The table of cases.
        splits: One row per case in the same order; without the column label_level, which
            `choose_masks` adds where labels are hidden, all labels may be used.
    """
    if "label_level" not in splits:
        return dataset
    return coarsen_labels(dataset, splits["label_level"].to_numpy(dtype=object))


def coarsen_labels(dataset: Dataset, levels: Levels) -> Dataset:
    """Replace labels of slices by the label of their volume or slab.

    It names the lesion that some of its slices show; it means no lesion if the labels of all of its
    slices do, and is unknown if it is unknown of some.

    Args:
        dataset: The table of cases.
        levels: (N,) of `HIDDEN_LEVELS` for slices of volumes; "" leaves a label as it is.

    Raises:
        DxsegError: Slices of one volume or slab have different lesion labels, so that it has none.
    """
    hidden = levels != ""
    if not hidden.any():
        return dataset
    cases = dataset.cases.copy()
    # Slices whose mask is used belong to the slabs of their volume too.
    in_slabs = cases["volume_id"].isin(set(cases["volume_id"][levels == SLAB_LEVEL]))
    units = bag_names(cases, in_slabs.to_numpy() & (levels != STUDY_LEVEL))
    known = cases.assign(free=dataset.without_lesion)[units.isin(set(units[hidden]))]
    labels = {
        str(unit): _label_of(dataset, str(unit), rows)
        for unit, rows in known.groupby(units[known.index])
    }
    own = units[hidden].map(labels).where(levels[hidden] != _UNKNOWN, "")
    cases.loc[hidden, "label"] = own
    cases.loc[hidden, "label_level"] = np.where(own.eq(""), "", levels[hidden])
    return Dataset(dataset.root, dataset.spec, cases)


def _label_of(dataset: Dataset, unit: str, rows: pd.DataFrame) -> str:
    """The label of a volume or slab, from the labels of its slices."""
    if rows["free"].all():
        return str(rows["label"].iloc[0])
    texts = rows["label"][~rows["free"] & rows["label"].ne("")].unique()
    found = {name for text in texts for name in split_labels(str(text), dataset.spec)}
    if len(found) > 1 and not dataset.spec.multi_label:
        raise DxsegError(
            f"{dataset.root / CASES_FILE}: volume {unit.splitlines()[0]!r}: its slices have the "
            f"labels {', '.join(sorted(found))}, so that it has no label of its own; give every "
            "slice the label of the volume, with label_level study"
        )
    return ";".join(name for name in dataset.spec.labels if name in found)

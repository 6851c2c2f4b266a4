"""Volumes in the table: slices in their places, and labels that several slices share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from dxseg.data.table.case_errors import CaseErrors

SLAB_LEVEL, STUDY_LEVEL, MASK_LEVEL, SLAB_MASK_LEVEL = "slab", "study", "mask", "slab-mask"
LABEL_LEVELS = ("image", SLAB_LEVEL, STUDY_LEVEL, MASK_LEVEL, SLAB_MASK_LEVEL)
BAG_LEVELS = (SLAB_LEVEL, STUDY_LEVEL)
"""Levels of labels that several images share: one of them at least shows what the label names."""
MASK_LEVELS = (MASK_LEVEL, SLAB_MASK_LEVEL)
"""Levels of labels that follow from the mask; without it, the label of the slab may be known."""
SLABS = 3
"""Slabs of a volume: consecutive slices, of which a label of level slab holds."""
GRID = ("spacing_y", "spacing_x", "spacing_z")


@dataclass(frozen=True)
class SlicePosition:
    """Where in a volume a slice is.

    Attributes:
        volume: Name of the volume.
        index: Number of the slice.
        spacing: Millimeters between slices; None where unknown.
        voxel_mm3: Volume of a voxel, that is of a pixel of the slice; None where unknown.
    """

    volume: str
    index: int
    spacing: float | None
    voxel_mm3: float | None = None


def slice_positions(cases: pd.DataFrame, *, physical: bool) -> list[SlicePosition | None]:
    """Position of each case in its volume; None where it is no slice, or has no slice_index.

    Args:
        cases: Table of a dataset, or rows of it.
        physical: Whether its spacings are millimeters.
    """

    def known(value: float) -> float | None:
        return value if physical and value == value else None

    voxels = cases[list(GRID)].prod(axis=1, skipna=False)
    return [
        SlicePosition(volume, int(index), known(spacing), known(voxel))
        if volume and index is not pd.NA
        else None
        for volume, index, spacing, voxel in zip(
            cases["volume_id"], cases["slice_index"], cases["spacing_z"], voxels, strict=True
        )
    ]


def one_per_volume(cases: pd.DataFrame) -> pd.DataFrame:
    """The first slice of each volume, and every image of none."""
    unit = cases["volume_id"].where(cases["volume_id"].ne(""), cases["case_id"])
    return cases[~unit.duplicated()]


def slab_numbers(cases: pd.DataFrame) -> npt.NDArray[np.int64]:
    """Number the slab of each slice within its volume, from 0; -1 without volume or slice_index.

    Slabs have equal numbers of slices, as far as that is possible.

    Args:
        cases: Table of a dataset, with volume_id and slice_index.
    """
    numbers = np.full(len(cases), -1, dtype=np.int64)
    placed = (cases["volume_id"].ne("") & cases["slice_index"].notna()).to_numpy()
    slices = cases[placed]
    index = slices["slice_index"].astype(np.int64)
    by_volume = index.groupby(slices["volume_id"])
    first, last = by_volume.transform("min"), by_volume.transform("max")
    numbers[placed] = ((index - first) * SLABS // (last - first + 1)).to_numpy()
    return numbers


def bag_names(cases: pd.DataFrame, slab: npt.NDArray[np.bool_]) -> pd.Series[str]:
    """Name the volume of each slice, or, where `slab`, its slab; "" for images of no volume.

    Args:
        cases: Table of a dataset.
        slab: (N,) whether the slab is meant.
    """
    # No value holds a line break.
    names = cases["volume_id"] + "\n" + pd.Series(slab_numbers(cases), cases.index).astype(str)
    return names.where(slab, cases["volume_id"]).where(cases["volume_id"].ne(""), "")


def check_volumes(cases: pd.DataFrame, problems: CaseErrors) -> None:
    """Flag slices of one volume in one place, of several patients or, with `spacing_z`, grids.

    Args:
        cases: Typed table.
        problems: Gets what is wrong.
    """
    of_volume = cases["volume_id"].ne("")
    flat = cases["spacing_z"].notna() & ~(of_volume & cases["spacing_y"].notna())
    advice = "given without volume_id and spacing_y; give all, or empty it"
    problems.add(flat.to_numpy(), "spacing_z", advice)
    if not of_volume.any():
        return
    slices = cases[of_volume]
    placed = slices[slices["slice_index"].notna()]
    problems.add(
        _flags(cases, placed.duplicated(["volume_id", "slice_index"])),
        "slice_index",
        "occurs in an earlier row of the volume; give each slice its own",
    )
    in_space = slices.groupby("volume_id")["spacing_z"].transform("count").gt(0)
    named = slices[slices["patient_id"].ne("")]
    grids = [(column, slices[in_space].fillna({column: 0.0})) for column in GRID]
    advice = "differs from an earlier slice of its volume; correct one"
    for column, rows in (("patient_id", named), *grids):
        first = rows.groupby("volume_id")[column].transform("first")
        problems.add(_flags(cases, rows[column].ne(first)), column, advice)


def check_levels(cases: pd.DataFrame, lesion_free: list[str], problems: CaseErrors) -> None:
    """Flag levels without what they are levels of, and labels that differ within their unit.

    Args:
        cases: Typed table.
        lesion_free: Labels that mean lesion-free.
        problems: Gets what is wrong.
    """
    level, unlabeled = cases["label_level"], cases["label"].eq("")
    if level.eq("").all():
        return
    advice = f"expected nothing or one of {', '.join(LABEL_LEVELS)}"
    problems.add(~level.isin(["", *LABEL_LEVELS]).to_numpy(), "label_level", advice)
    bag, slab = level.isin(BAG_LEVELS), level.eq(SLAB_LEVEL)
    advice = "the row has no label; add the label of its study or slab, or empty label_level"
    problems.add((bag & unlabeled).to_numpy(), "label_level", advice)
    unplaced = slab & (cases["volume_id"].eq("") | cases["slice_index"].isna())
    advice = "needs volume_id and slice_index; give both, or another label_level"
    problems.add(unplaced.to_numpy(), "label_level", advice)
    maskless = cases["mask"].eq("") & ~cases["label"].isin(lesion_free)
    groundless = level.isin(MASK_LEVELS) & (cases["volume_id"].eq("") | unlabeled | maskless)
    advice = "needs volume_id, a label and, unless that means lesion-free, a mask; give all"
    problems.add(groundless.to_numpy(), "label_level", advice)
    unit = bag_names(cases, slab.to_numpy())
    named = cases[bag & unit.ne("")]
    first = named.groupby(unit[named.index])["label"].transform("first")
    problems.add(
        _flags(cases, named["label"].ne(first)),
        "label",
        "differs from the study-level label of an earlier slice of its volume, or from the label "
        "of an earlier slice of its slab; expected one label per volume or slab",
    )


def _flags(cases: pd.DataFrame, wrong: pd.Series[bool]) -> npt.NDArray[np.bool_]:
    """Flags of all rows from those of some."""
    every = pd.Series(False, index=cases.index)
    every[wrong.index] = wrong
    return every.to_numpy()

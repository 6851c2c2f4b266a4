"""The spacing at which a network sees its images: chosen from those of the dataset."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from dxseg.config.schema import RunConfig
from dxseg.data.geometry import Spacing, Zoom, zoomed_size
from dxseg.data.readers.images import image_size
from dxseg.data.table.cases import TRAIN, VALIDATION, spacing_of
from dxseg.data.table.dataset import Dataset
from dxseg.data.table.volumes import one_per_volume
from dxseg.errors import DxsegError

MAX_IMAGES = 200
"""The sizes of as many images are looked at, evenly spaced in the table."""


def target_spacing(dataset: Dataset, wanted: Spacing | Literal["auto"] | None) -> Spacing | None:
    """Find the spacing that images are brought to.

    Args:
        dataset: the cases.
        wanted: as `data.spacing` has it; `auto` is the median of all cases along each axis, where a
            volume counts once, as in the fingerprint of nnU-Net (Isensee et al. 2021). It is read
            from the table, not from pixels, and is the same for every split: models of several
            folds can be one ensemble.

    Returns:
        None if they are not brought to any.

    Raises:
        DxsegError: `auto`, and no image has a spacing.
    """
    if wanted != "auto":
        return wanted
    rows = one_per_volume(dataset.cases)
    spacings = [spacing_of(row, dataset.spec) for row in rows.itertuples()]
    known = [spacing for spacing in spacings if spacing is not None]
    if not known:
        raise DxsegError(
            f"{dataset.root / 'cases.csv'}: no image has a spacing in mm, of which "
            "data.spacing=auto is the median; give spacing_y and spacing_x, with spacing_unit: mm "
            "in dataset.yaml, or set data.spacing=null"
        )
    height, width = np.median(known, axis=0).tolist()
    return height, width


def zooms_of(
    dataset: Dataset, rows: pd.DataFrame, target: Spacing | None, reduction: int = 1
) -> list[Zoom] | None:
    """Compute the zoom that brings each image to a spacing; None for no spacing.

    Args:
        dataset: the cases.
        rows: some of them.
        target: from `target_spacing`.
        reduction: factor by which they are reduced beyond it.
    """
    if target is None:
        return None
    reduced = target[0] * reduction, target[1] * reduction
    spacings = (spacing_of(row, dataset.spec) or target for row in rows.itertuples())
    return [(height / reduced[0], width / reduced[1]) for height, width in spacings]


def spacing_warnings(dataset: Dataset, config: RunConfig, target: Spacing | None) -> Iterator[str]:
    """Say which images are not at the spacing, and what to do about it.

    Args:
        dataset: the cases.
        config: of the run.
        target: from `target_spacing`.
    """
    if target is None:
        return
    unknown = [
        str(row.case_id)
        for row in dataset.cases.itertuples()
        if spacing_of(row, dataset.spec) is None
    ]
    if unknown:
        more = ", ..." if len(unknown) > 5 else ""
        yield (
            f"{len(unknown)} of {len(dataset)} images have no spacing ({', '.join(unknown[:5])}"
            f"{more}): they are taken to have {_shown(target)}, as data.spacing has it"
        )
    if config.data.sliding_window:
        return
    rows = dataset.cases.iloc[:: -(-len(dataset) // MAX_IMAGES)]
    yield from filter(None, [_larger_than_input("images", dataset, rows, config, target)])


def check_sliding_window(
    dataset: Dataset, splits: pd.DataFrame, config: RunConfig, target: Spacing | None
) -> None:
    """Refuse windows where training, and what validation chooses, would see images reduced.

    Args:
        dataset: the cases.
        splits: in the order of the cases.
        config: of the run.
        target: from `target_spacing`.

    Raises:
        DxsegError: a training or validation image is larger than the input at the spacing.
    """
    if not config.data.sliding_window or target is None:
        return
    rows = dataset.cases[splits["split"].isin([TRAIN, VALIDATION]).to_numpy()]
    which = "images of training and validation"
    if text := _larger_than_input(which, dataset, rows, config, target):
        raise DxsegError(
            f"data.sliding_window: {text}, or leave data.sliding_window out: with it, prediction "
            "would not reduce such images"
        )


def _larger_than_input(
    which: str, dataset: Dataset, rows: pd.DataFrame, config: RunConfig, target: Spacing
) -> str:
    """Say how many images are larger than the input at the spacing; empty if none is."""
    zooms = zooms_of(dataset, rows, target) or []
    sizes = [
        max(zoomed_size(*image_size(dataset.image_path(row)), zoom))
        for row, zoom in zip(rows.itertuples(), zooms, strict=True)
    ]
    larger = sum(size > config.data.image_size for size in sizes)
    step = 32 * config.model.coarse_reduction
    if not larger:
        return ""
    return (
        f"{larger} of {len(sizes)} {which} are larger than data.image_size = "
        f"{config.data.image_size} at {_shown(target)} and are reduced further; --set "
        f"data.image_size={-(-max(sizes) // step) * step} holds all of them"
    )


def _shown(spacing: Spacing | None) -> str:
    return "none" if spacing is None else f"{spacing[0]:.4g} x {spacing[1]:.4g} mm"


def require_spacing(run: Path, trained: Spacing | None, now: Spacing | None) -> None:
    """Check that images are still seen at the spacing that another run's network was trained at.

    Args:
        run: the other run.
        trained: what its `model.json` records.
        now: from `target_spacing`.

    Raises:
        DxsegError: they differ, as where an earlier version chose `auto` by other images.
    """
    if trained != now:
        raise DxsegError(
            f"{run}: was trained at a spacing of {_shown(trained)}, but data.spacing is "
            f"{_shown(now)} of these images now; train that run again, or set data.spacing"
        )

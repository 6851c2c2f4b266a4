"""Figures of the volumes of an evaluation from their rows, and reading these from a file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from dxseg.errors import DxsegError
from dxseg.evaluation.summary import CONFIDENCE, AverageBy, per_class, weighting, without_nan
from dxseg.evaluation.volumes import COLUMNS, VOXELS
from dxseg.metrics.statistics import bootstrap_mean, bootstrap_ratio, mean_by

VOLUME_MEANS: dict[str, tuple[str, Literal["lesion", "all", "lesion_free"]]] = {
    "volume_dice": ("dice", "lesion"),
    "volume_hd95": ("hd95", "lesion"),
    "volume_nsd": ("nsd", "lesion"),
    "volume_lesion_sensitivity": ("lesion_sensitivity", "lesion"),
    "volume_lesion_precision": ("lesion_precision", "lesion"),
    "volume_lesion_f1": ("lesion_f1", "lesion"),
    "volume_dice_all": ("dice", "all"),
    "volume_absolute_error_ml": ("volume_error_ml", "all"),
    "volume_false_positive_rate": ("false_positive", "lesion_free"),
}
"""Column and volumes of each mean over volumes."""
VOLUME_TESTED = tuple(name for name in VOLUME_MEANS if name != "volume_lesion_precision")
"""Means that methods are compared by: precision is undefined where a method finds nothing."""
GLOBAL_DICE = "volume_dice_global"
"""Dice of the lesions of all volumes as one, as in LiTS (Bilic et al., Med Image Anal, 2023)."""


def volume_values(per_volume: pd.DataFrame, metric: str) -> pd.Series[float]:
    """Per-volume values of a mean of `VOLUME_MEANS`; NaN on volumes that are not in the mean.

    Args:
        per_volume: One row per volume, as from `VolumeScorer`.
        metric: A key of `VOLUME_MEANS`.
    """
    column, volumes = VOLUME_MEANS[metric]
    values = per_volume[column].astype(float)
    if metric == "volume_absolute_error_ml":
        values = values.abs()
    free = per_volume["lesion_free"].astype(bool)
    chosen = {"all": free | True, "lesion": ~free, "lesion_free": free}[volumes]
    return values.where(chosen)


def estimate_volumes(per_volume: pd.DataFrame, average_by: AverageBy) -> dict[str, float]:
    """Figures of the volumes without intervals: `VOLUME_MEANS` and `GLOBAL_DICE`.

    Args:
        per_volume: One row per volume.
        average_by: Unit of the means.
    """
    groups, weigh = per_volume["group"], weighting(average_by)
    figures = {
        metric: mean_by(volume_values(per_volume, metric), groups, weighting=weigh)
        for metric in VOLUME_MEANS
    }
    return figures | {GLOBAL_DICE: _global_dice(per_volume[list(VOXELS)])}


def summarize_volumes(
    per_volume: pd.DataFrame, average_by: AverageBy, *, resamples: int, seed: int
) -> dict[str, Any]:
    """Figures of the volumes with their intervals, by bootstrap of patients or groups.

    Args:
        per_volume: One row per volume.
        average_by: Unit of the means.
        resamples: Number of bootstrap samples.
        seed: Seed of the bootstrap.

    Returns:
        `VOLUME_MEANS` and `GLOBAL_DICE`, each with `<metric>_ci`, [low, high], ready for JSON.
    """
    options: dict[str, Any] = {"confidence": CONFIDENCE, "resamples": resamples, "seed": seed}
    groups = per_volume["group"]
    found = {
        metric: bootstrap_mean(
            volume_values(per_volume, metric), groups, weighting=weighting(average_by), **options
        )
        for metric in VOLUME_MEANS
    }
    found[GLOBAL_DICE] = bootstrap_ratio(
        2 * per_volume["common_voxels"],
        per_volume["true_voxels"] + per_volume["predicted_voxels"],
        groups,
        **options,
    )
    summary: dict[str, Any] = {}
    for metric, interval in found.items():
        summary |= {metric: interval.mean, f"{metric}_ci": [interval.low, interval.high]}
    cleaned: dict[str, Any] = without_nan(summary)
    return cleaned


def volumes_per_class(
    per_volume: pd.DataFrame, mask_classes: Sequence[str], average_by: AverageBy
) -> dict[str, dict[str, float | None]]:
    """Figures of each class: means over volumes with it in truth or prediction, and `GLOBAL_DICE`.

    Args:
        per_volume: One row per volume, of several mask classes.
        mask_classes: Their names.
        average_by: Unit of the means.

    Returns:
        By class `volume_dice`, `volume_iou`, `volume_hd95`, `volume_nsd` and `GLOBAL_DICE`.
    """
    found = {
        name: {f"volume_{metric}": value for metric, value in means.items()}
        | {GLOBAL_DICE: _global_dice(per_volume[[f"{count}_{name}" for count in VOXELS]])}
        for name, means in per_class(per_volume, mask_classes, average_by).items()
    }
    cleaned: dict[str, dict[str, float | None]] = without_nan(found)
    return cleaned


def _global_dice(voxels: pd.DataFrame) -> float:
    """Dice of all volumes as one, from columns in the order of `VOXELS`."""
    true, predicted, common = voxels.sum()
    return float(2 * common / (true + predicted)) if true + predicted else math.nan


def count_volumes(per_volume: pd.DataFrame) -> dict[str, int]:
    """Count volumes, those with a lesion and those of them that were missed, and lesions.

    Args:
        per_volume: One row per volume.
    """
    lesion = ~per_volume["lesion_free"].astype(bool)
    missed = lesion & per_volume["predicted_voxels"].eq(0)
    counts = {
        "volumes": len(per_volume),
        "lesion_volumes": int(lesion.sum()),
        "missed_lesion_volumes": int(missed.sum()),
    }
    lesions = ("lesions_true", "lesions_predicted", "lesions_matched")
    return counts | {f"volume_{name}": int(per_volume[name].sum()) for name in lesions}


def no_volumes() -> pd.DataFrame:
    """The table of an evaluation whose images are no slices."""
    return pd.DataFrame(columns=list(COLUMNS))


def read_per_volume(path: Path) -> pd.DataFrame:
    """Read a `per_volume.csv`; without one, no rows: not every dataset has volumes.

    Args:
        path: The file.

    Raises:
        DxsegError: It is not a table, or lacks a column.
    """
    try:
        table = pd.read_csv(
            path,
            dtype={"volume_id": str, "group": str},
            keep_default_na=False,
            na_values={name: [""] for name in COLUMNS if name not in ("volume_id", "group")},
        )
    except FileNotFoundError:
        return no_volumes()
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise DxsegError(f"{path}: not a table ({error}); run `dxseg evaluate` again") from error
    missing = np.setdiff1d(COLUMNS, list(table.columns))
    if len(missing):
        raise DxsegError(
            f"{path}: lacks the columns {', '.join(missing)}; run `dxseg evaluate` again"
        )
    return table

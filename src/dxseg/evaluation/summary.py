"""Figures of an evaluation from its rows per image, and reading both from files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from dxseg.errors import DxsegError
from dxseg.evaluation.cases import COLUMNS, EQUAL_RULES_COLUMNS, MASK_METRICS
from dxseg.metrics.calibration import expected_calibration_error
from dxseg.metrics.image_level import auroc
from dxseg.metrics.statistics import bootstrap_mean, mean_by
from dxseg.metrics.two_level_bootstrap import Weighting

AverageBy = Literal["image", "patient"]
CONFIDENCE = 0.95
# Column and images of each mean; auroc and calibration are not means over images.
MEANS: dict[str, tuple[str, Literal["lesion", "all", "lesion_free", "labelled_lesion"]]] = {
    "dice_lesion": ("dice", "lesion"),
    "dice_lesion_known": ("dice_known", "lesion"),
    "dice_lesion_fp10": ("dice_fp10", "lesion"),
    "iou_lesion": ("iou", "lesion"),
    "hd95_lesion": ("hd95", "lesion"),
    "nsd_lesion": ("nsd", "lesion"),
    "lesion_sensitivity": ("lesion_sensitivity", "lesion"),
    "lesion_precision": ("lesion_precision", "lesion"),
    "lesion_f1": ("lesion_f1", "lesion"),
    "dice_all": ("dice", "all"),
    "sensitivity": ("any_pixel", "labelled_lesion"),
    "specificity": ("no_pixel", "lesion_free"),
    "false_positive_rate": ("false_positive", "lesion_free"),
    "false_positive_rate_fp10": ("false_positive_fp10", "lesion_free"),
    "false_positive_area": ("predicted_area", "lesion_free"),
    "false_positive_area_fraction": ("false_positive_area_fraction", "lesion_free"),
}
ENDPOINTS = {
    "dice_lesion": "as used",
    "dice_lesion_known": "diagnosis known",
    "dice_lesion_fp10": "at 10% false positives",
}
"""Dice on lesion images in three ways, shown together in every table; the last two are the primary
endpoints: there, no method gains by its decision rule."""
PRIMARY_ENDPOINTS = ("dice_lesion_known", "dice_lesion_fp10")
INTERVALS = (*ENDPOINTS, "dice_all")


def weighting(average_by: AverageBy) -> Weighting:
    """Weighting of means: every patient alike, or every image alike."""
    return "group" if average_by == "patient" else "image"


def values_of(per_image: pd.DataFrame, metric: str) -> pd.Series[float]:
    """Per-image values of a mean of `MEANS`.

    Args:
        per_image: One row per image, as in `evaluate_cases`.
        metric: A key of `MEANS`.

    Returns:
        One value per row; NaN on images that are not in the mean: "lesion" is every image whose
        mask has a lesion, "labelled_lesion" also those without a mask whose label implies one.
    """
    column, images = MEANS[metric]
    found = per_image["predicted_area"] > 0
    extra = {"any_pixel": found, "no_pixel": ~found}
    values = extra.get(column, per_image.get(column))
    assert values is not None
    chosen = {
        "all": pd.Series(True, index=per_image.index),
        "lesion": per_image["true_area"] > 0,
        "labelled_lesion": ~per_image["lesion_free"],
        "lesion_free": per_image["lesion_free"],
    }[images]
    return values.astype(float).where(chosen)


def point_estimates(per_image: pd.DataFrame, average_by: AverageBy) -> dict[str, float]:
    """Compute all figures that depend on the rows alone.

    Args:
        per_image: One row per image.
        average_by: Unit of the means.

    Returns:
        `MEANS`, `auroc_mask` (score: highest mask probability of the image), `auroc_label`
        (score: lesion probability of the label head) and `ece_label`; NaN where undefined.
    """
    groups = per_image["group"]
    figures = {
        metric: mean_by(values_of(per_image, metric), groups, weighting=weighting(average_by))
        for metric in MEANS
    }
    lesion = ~per_image["lesion_free"].to_numpy(dtype=bool)
    score = per_image["lesion_probability"].to_numpy(dtype=float)
    known = ~np.isnan(score)
    figures["auroc_mask"] = auroc(lesion, per_image["mask_peak_probability"])
    figures["auroc_label"] = auroc(lesion[known], score[known]) if known.any() else math.nan
    figures["ece_label"] = expected_calibration_error(score[known], lesion[known])
    return figures


def summarize(
    per_image: pd.DataFrame, average_by: AverageBy, *, resamples: int, seed: int
) -> dict[str, Any]:
    """Figures, intervals and counts of an evaluation, ready for JSON.

    Args:
        per_image: One row per image.
        average_by: Unit of the means.
        resamples: Number of bootstrap samples.
        seed: Seed of the bootstrap.

    Returns:
        `point_estimates`, `<metric>_ci` as [low, high] for `INTERVALS`, `averaged_by`,
        `interval` and `counts`; None where a figure is undefined.
    """
    summary: dict[str, Any] = dict(point_estimates(per_image, average_by))
    for metric in INTERVALS:
        interval = bootstrap_mean(
            values_of(per_image, metric),
            per_image["group"],
            weighting=weighting(average_by),
            confidence=CONFIDENCE,
            resamples=resamples,
            seed=seed,
        )
        summary[f"{metric}_ci"] = [interval.low, interval.high]
    summary["averaged_by"] = average_by
    summary["interval"] = {
        "method": "percentile cluster bootstrap by group",
        "confidence": CONFIDENCE,
        "resamples": resamples,
        "seed": seed,
    }
    summary["counts"] = {
        "images": len(per_image),
        "groups": int(per_image["group"].nunique()),
        "lesion_images": int((per_image["true_area"] > 0).sum()),
        "lesion_free_images": int(per_image["lesion_free"].sum()),
        "images_without_mask": int(per_image["true_area"].isna().sum()),
        "missed_lesion_images": int(
            ((per_image["true_area"] > 0) & (per_image["predicted_area"] == 0)).sum()
        ),
        **{
            name: int(per_image[name].sum())
            for name in ("lesions_true", "lesions_predicted", "lesions_matched")
        },
    }
    cleaned: dict[str, Any] = without_nan(summary)
    return cleaned


def per_class(
    rows: pd.DataFrame, mask_classes: Sequence[str], average_by: AverageBy
) -> dict[str, dict[str, float | None]]:
    """Means of the mask metrics of each class, over images with it in truth or prediction.

    Args:
        rows: One per image, or one per volume.
        mask_classes: Names of the classes.
        average_by: Unit of the means.
    """
    result: dict[str, dict[str, float]] = {}
    for name in mask_classes:
        result[name] = {
            metric: mean_by(
                rows[f"{metric}_{name}"], rows["group"], weighting=weighting(average_by)
            )
            for metric in MASK_METRICS
        }
    cleaned: dict[str, dict[str, float | None]] = without_nan(result)
    return cleaned


def per_patient(per_image: pd.DataFrame) -> pd.DataFrame:
    """Means of `MEANS` within each patient or group.

    Args:
        per_image: One row per image.

    Returns:
        group, images, lesion_images, then `MEANS`; NaN where a group has no such image.
    """
    table = pd.DataFrame({metric: values_of(per_image, metric) for metric in MEANS})
    table.insert(0, "images", 1)
    table.insert(1, "lesion_images", (per_image["true_area"] > 0).astype(int))
    counted = ["images", "lesion_images"]
    how = {name: ("sum" if name in counted else "mean") for name in table}
    return table.groupby(per_image["group"].to_numpy()).agg(how).rename_axis("group").reset_index()


def read_per_image(path: Path) -> pd.DataFrame:
    """Read a `per_image.csv`.

    Args:
        path: The file.

    Returns:
        The table, names as strings; columns that earlier versions did not have are NaN there.

    Raises:
        DxsegError: It does not exist, is not a table, or lacks a column.
    """
    try:
        # Only an empty field is missing: a case may be called "NA" or "007".
        table = pd.read_csv(
            path,
            dtype=dict.fromkeys(("case_id", "group", "label"), str),
            keep_default_na=False,
            na_values={
                name: [""]
                for name in (*COLUMNS, *EQUAL_RULES_COLUMNS)
                if name not in ("case_id", "group", "label")
            },
        )
    except FileNotFoundError as error:
        raise DxsegError(f"{path}: no such file; run `dxseg evaluate` on that run first") from error
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise DxsegError(f"{path}: not a table ({error}); run `dxseg evaluate` again") from error
    table = table.assign(**{name: math.nan for name in EQUAL_RULES_COLUMNS if name not in table})
    missing = [name for name in COLUMNS if name not in table]
    if missing:
        raise DxsegError(
            f"{path}: lacks the columns {', '.join(missing)}; run `dxseg evaluate` again"
        )
    return table


def without_nan(value: Any) -> Any:
    """Replace NaN and infinity, which JSON does not have, by None."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

"""The metrics in reports and model cards: titles, descriptions and formatting."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

MISSING = "–"
"""Shown for an undefined value."""


@dataclass(frozen=True)
class MetricColumn:
    """A column of the results table.

    Attributes:
        key: Its key in `evaluation.json`.
        title: Title of the column; `{distance}` and `{area}` are replaced by the units.
        description: One sentence.
        better: `higher` or `lower`.
        decimals: Number of decimals.
    """

    key: str
    title: str
    description: str
    better: str = "higher"
    decimals: int = 3


MASK_METRICS = (
    MetricColumn("dice_lesion", "Dice, lesion images", "Overlap on images that have a lesion."),
    MetricColumn(
        "dice_lesion_known",
        "Dice, diagnosis known",
        "The same where each of these images is known to have a lesion.",
    ),
    MetricColumn(
        "dice_lesion_fp10",
        "Dice at 10% false positives",
        "The same where at most 10% of the lesion-free validation images may get a mask.",
    ),
    MetricColumn(
        "dice_all",
        "Dice, all images",
        "The same including lesion-free images, which count as 1 if the mask is empty.",
    ),
    MetricColumn("iou_lesion", "IoU, lesion images", "Intersection over union."),
    MetricColumn(
        "hd95_lesion",
        "HD95 ({distance})",
        "95th percentile of the distance between outlines; image diagonal for a missed lesion.",
        "lower",
        1,
    ),
    MetricColumn("nsd_lesion", "NSD", "Fraction of the outlines within the tolerance."),
    MetricColumn("lesion_sensitivity", "Lesions found", "Fraction of the lesions that were found."),
    MetricColumn("lesion_f1", "Lesion F1", "Harmonic mean of lesion sensitivity and precision."),
)
VOLUME_METRICS = (
    MetricColumn("volume_dice", "Dice, volumes", "Overlap in 3D of volumes that have a lesion."),
    MetricColumn(
        "volume_dice_global",
        "Dice, all volumes as one",
        "Overlap of all volumes taken as one, as in LiTS: large lesions weigh most.",
    ),
    MetricColumn(
        "volume_hd95",
        "HD95, volumes (mm)",
        "95th percentile of the distance between surfaces; diagonal for a missed lesion.",
        "lower",
        1,
    ),
    MetricColumn("volume_nsd", "NSD, volumes", "Fraction of the surfaces within the tolerance."),
    MetricColumn(
        "volume_lesion_sensitivity",
        "Lesions found, volumes",
        "Fraction of the lesions, voxels with 26 neighbors, that were found.",
    ),
    MetricColumn(
        "volume_lesion_f1",
        "Lesion F1, volumes",
        "Harmonic mean of their sensitivity and precision.",
    ),
    MetricColumn(
        "volume_absolute_error_ml",
        "Volume error (ml)",
        "Mean absolute difference of predicted and true lesion volume.",
        "lower",
        1,
    ),
    MetricColumn(
        "volume_false_positive_rate",
        "False-positive rate, volumes",
        "Fraction of lesion-free volumes with a predicted mask.",
        "lower",
    ),
)
"""Of volumes, in three dimensions."""
IMAGE_METRICS = (
    MetricColumn(
        "auroc_label", "AUROC, classifier", "Lesion or not, ranked by the image-level head."
    ),
    MetricColumn(
        "auroc_mask", "AUROC, mask", "Lesion or not, ranked by the mask's highest probability."
    ),
    MetricColumn("sensitivity", "Sensitivity", "Fraction of lesion images with a predicted mask."),
    MetricColumn(
        "specificity", "Specificity", "Fraction of lesion-free images with an empty mask."
    ),
    MetricColumn(
        "false_positive_rate_fp10",
        "False-positive rate at 10%",
        "Fraction of lesion-free images with a mask at the threshold for 10% on validation.",
        "lower",
    ),
    MetricColumn(
        "false_positive_area",
        "False-positive area ({area})",
        "Mean area of the predicted mask on lesion-free images.",
        "lower",
        1,
    ),
    MetricColumn("ece_pixel", "ECE, pixels", "Calibration error of pixel probabilities.", "lower"),
    MetricColumn(
        "ece_label", "ECE, classifier", "Calibration error of the image-level head.", "lower"
    ),
)

FALSE_POSITIVE_RATE = MetricColumn(
    "false_positive_rate",
    "False-positive rate",
    "Fraction of lesion-free images with a predicted mask.",
    "lower",
)
"""For comparisons; 1 minus specificity, so it has no column of its own."""


def format_number(value: Any, decimals: int) -> str:
    """Format a number, or `MISSING` if it is undefined.

    Args:
        value: A number, or None if undefined.
        decimals: Number of decimals.
    """
    defined = isinstance(value, (int, float)) and np.isfinite(value)
    return f"{value:.{decimals}f}" if defined else MISSING


def format_interval(value: Any, decimals: int) -> str:
    """Format an interval, or "" if it is undefined.

    Args:
        value: [low, high]; None for an undefined end.
        decimals: Number of decimals.
    """
    if not isinstance(value, list) or len(value) != 2 or None in value:
        return ""
    return f"{value[0]:.{decimals}f} to {value[1]:.{decimals}f}"

"""The figures of an evaluation that readers are shown: titles, meanings, how they are written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

MISSING = "–"
"""Stands where a figure is undefined."""


@dataclass(frozen=True)
class Figure:
    """A column of the results.

    Attributes:
        key: In `evaluation.json`.
        title: Of the column; `{distance}` and `{area}` stand for the units.
        meaning: One sentence.
        better: Which way is better.
        decimals: Shown.
    """

    key: str
    title: str
    meaning: str
    better: str = "higher"
    decimals: int = 3


MASK_FIGURES = (
    Figure("dice_lesion", "Dice, lesion images", "Overlap on images that have a lesion."),
    Figure("dice_all", "Dice, all images", "The same with lesion-free images: 1 if left empty."),
    Figure("iou_lesion", "IoU, lesion images", "Intersection over union."),
    Figure(
        "hd95_lesion",
        "HD95 ({distance})",
        "95th percentile of the distance between outlines; a missed lesion counts the diagonal.",
        "lower",
        1,
    ),
    Figure("nsd_lesion", "NSD", "Share of the outlines that lie within the tolerance."),
    Figure("lesion_sensitivity", "Lesions found", "Share of the lesions that were found."),
    Figure("lesion_f1", "Lesion F1", "Lesions found against lesions invented."),
)
IMAGE_FIGURES = (
    Figure("auroc_label", "AUROC, classifier", "Lesion or not, ranked by the image-level head."),
    Figure("auroc_mask", "AUROC, mask", "Lesion or not, ranked by the mask's highest probability."),
    Figure("sensitivity", "Sensitivity", "Lesion images in which something was found."),
    Figure("specificity", "Specificity", "Lesion-free images whose mask stayed empty."),
    Figure(
        "false_positive_area",
        "False-positive area ({area})",
        "Mean area found on lesion-free images.",
        "lower",
        1,
    ),
    Figure("ece_pixel", "ECE, pixels", "Calibration error of pixel probabilities.", "lower"),
    Figure("ece_label", "ECE, classifier", "Calibration error of the image-level head.", "lower"),
)


def number(value: Any, decimals: int) -> str:
    """Write a figure, or `MISSING` for what is none.

    Args:
        value: A number, or None where a figure is undefined.
        decimals: Shown.
    """
    known = isinstance(value, (int, float)) and np.isfinite(value)
    return f"{value:.{decimals}f}" if known else MISSING


def interval(value: Any, decimals: int) -> str:
    """Write an interval; "" for what is none.

    Args:
        value: [low, high], each perhaps None.
        decimals: Shown.
    """
    if not isinstance(value, list) or len(value) != 2 or None in value:
        return ""
    return f"{value[0]:.{decimals}f} to {value[1]:.{decimals}f}"

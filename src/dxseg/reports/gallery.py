"""The overlay gallery: selection of test images by a fixed rule, and their rendering."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from dxseg.data.readers.slicing import Slicing, shown_slice
from dxseg.data.table.dataset import Dataset
from dxseg.errors import DxsegError
from dxseg.evaluation.stream import by_volume, predict_rows
from dxseg.inference.files.overlay import display_rgb, render_overlay
from dxseg.inference.pipeline import Prediction
from dxseg.inference.predictor import Predictor

RULE = (
    "Selected by rule: the worst, the middle and the best test images by Dice among "
    "those with a lesion (at most {count} each, ties by name), and the lesion-free test images "
    "with the largest predicted area (at most {count})."
)
_SIDE = 240


@dataclass(frozen=True)
class GalleryCase:
    """One image of the gallery.

    Attributes:
        number: Number within the report, from 1: case ids can identify patients.
        case_id: Case id, never shown.
        label: The image-level label; may be empty.
        dice: Its Dice; NaN for a lesion-free image.
        area: Predicted area, in the unit of the evaluation.
    """

    number: int
    case_id: str
    label: str
    dice: float
    area: float


@dataclass(frozen=True)
class Picture:
    """A rendered image of the gallery.

    Attributes:
        caption: Number, label and score.
        alt: Alternative text.
        png: The image next to the image with outlines.
    """

    caption: str
    alt: str
    png: bytes


def select_cases(per_image: pd.DataFrame, count: int = 3) -> dict[str, list[GalleryCase]]:
    """Select cases by `RULE`.

    Args:
        per_image: The table of `dxseg.evaluation`; images without a known mask are left out.
        count: Maximum number of images per group; fewer if groups would overlap.

    Returns:
        Title of each group to its cases; a group may be empty.
    """
    lesion = per_image[per_image["true_area"] > 0]
    ranked = lesion.sort_values(["dice", "case_id"], ascending=[False, True])
    size = max(1, min(count, len(ranked) // 3))
    best, others = ranked[:size], ranked[size:]
    worst, middle = others[::-1][:size], others[:-size]
    start = max(0, (len(middle) - size) // 2)
    free = per_image[per_image["lesion_free"].astype(bool) & (per_image["predicted_area"] > 0)]
    largest = free.sort_values(["predicted_area", "case_id"], ascending=[False, True])
    groups = {
        "Worst": worst,
        "Lesion-free with a predicted mask": largest[:count],
        "Middle": middle[start : start + size],
        "Best": best,
    }
    selected: dict[str, list[GalleryCase]] = {}
    number = 0
    for title, rows in groups.items():
        selected[title] = []
        for row in rows.to_dict("records"):
            number += 1
            dice = float("nan") if row["lesion_free"] else float(row["dice"])
            label = row["label"] if isinstance(row["label"], str) else ""
            area = float(row["predicted_area"])
            selected[title].append(GalleryCase(number, str(row["case_id"]), label, dice, area))
    return selected


def draw_gallery(
    cases: dict[str, list[GalleryCase]], dataset: Dataset, model: str | Path, area_unit: str = "px"
) -> dict[str, list[Picture]]:
    """Predict the selected images again and render them.

    Args:
        cases: Result of `select_cases`.
        dataset: The dataset with its images and masks.
        model: The model folder.
        area_unit: Unit of `GalleryCase.area`.

    Returns:
        Title of each group to its pictures.

    Raises:
        DxsegError: The model, an image or a mask cannot be read, or a case is no longer there.
    """
    if not any(cases.values()):
        return {title: [] for title in cases}
    names = [case.case_id for group in cases.values() for case in group]
    table = by_volume(dataset.cases[dataset.cases["case_id"].isin(names)])
    rows = {str(row["case_id"]): row for row in table.to_dict("records")}
    missing = [c for group in cases.values() for c in group if c.case_id not in rows]
    if missing:
        raise DxsegError(
            f"{dataset.root}: {len(missing)} evaluated case(s) are no longer in the dataset; "
            "evaluate the run again"
        )
    predictor = Predictor.from_folder(model)
    predictions = dict(predict_rows(predictor, dataset, table, keep_images=True))
    return {
        title: [
            _picture(
                case,
                _checked(predictions[case.case_id], dataset.spec.slicing),
                dataset.read_mask(rows[case.case_id]),
                area_unit,
            )
            for case in group
        ]
        for title, group in cases.items()
    }


def _checked(result: Prediction | DxsegError, slicing: Slicing | None) -> Prediction:
    """The prediction, with the slice itself as its image."""
    if isinstance(result, DxsegError):
        raise result
    assert result.image is not None, "keep_images is set"
    return replace(result, image=shown_slice(result.image, slicing))


def _picture(
    case: GalleryCase, prediction: Prediction, truth: NDArray[np.uint8] | None, area_unit: str
) -> Picture:
    assert prediction.image is not None, "keep_images is set"
    overlay = render_overlay(prediction.image, prediction.mask, truth=truth)
    panels = [_scaled(display_rgb(prediction.image)), _scaled(overlay)]
    gap = np.full((panels[0].shape[0], 4, 3), 255, np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(np.hstack([panels[0], gap, panels[1]])).save(buffer, "PNG", optimize=True)
    label = case.label or "no label"
    if np.isnan(case.dice):
        score = f"{case.area:.0f} {area_unit} predicted where there is no lesion"
        outlines = "the prediction outlined in orange"
    else:
        score = f"Dice {case.dice:.2f}"
        outlines = "the reference outlined in blue and the prediction in orange"
    if not prediction.mask.any():
        outlines = outlines.replace("the prediction in orange", "no prediction")
    caption = f"{case.number} · {label} · {score}"
    alt = f"Image {case.number}, {label}, {score}: the image, next to it {outlines}."
    return Picture(caption, alt, buffer.getvalue())


def _scaled(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    # Outlines are drawn before scaling, so that a tiny one is blended, not lost.
    height, width = pixels.shape[:2]
    scale = _SIDE / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS))

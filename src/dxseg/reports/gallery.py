"""The overlay gallery: which test images are shown, by a stated rule, and how."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from dxseg.data.readers.masks import read_mask
from dxseg.data.table.dataset import Dataset
from dxseg.errors import DxsegError
from dxseg.inference.files.overlay import display_rgb, render_overlay
from dxseg.inference.pipeline import Prediction
from dxseg.inference.predictor import Predictor

RULE = (
    "Chosen by rule, not by hand: the best, the middle and the worst test images by Dice among "
    "those with a lesion (at most {count} each, ties by name), and the lesion-free test images "
    "with the largest predicted area (at most {count})."
)
_SIDE = 240


@dataclass(frozen=True)
class Choice:
    """One image of the gallery.

    Attributes:
        number: Counted from 1 within a report: case ids can identify patients.
        case_id: Never shown.
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
    """A drawn image of the gallery.

    Attributes:
        caption: Number, label and score.
        alt: What a reader who does not see it should know.
        png: The image, and beside it the image with outlines.
    """

    caption: str
    alt: str
    png: bytes


def choose_cases(per_image: pd.DataFrame, count: int = 3) -> dict[str, list[Choice]]:
    """Choose by `RULE`.

    Args:
        per_image: As `dxseg.evaluation` writes it; images without a known mask are passed over.
        count: At most so many images a group; fewer where a group would take another's images.

    Returns:
        Choices by the group's title; a group may be empty.
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
        "Best": best,
        "Middle": middle[start : start + size],
        "Worst": worst,
        "Lesion-free, but something was found": largest[:count],
    }
    chosen: dict[str, list[Choice]] = {}
    number = 0
    for title, rows in groups.items():
        chosen[title] = []
        for row in rows.to_dict("records"):
            number += 1
            dice = float("nan") if row["lesion_free"] else float(row["dice"])
            label = row["label"] if isinstance(row["label"], str) else ""
            area = float(row["predicted_area"])
            chosen[title].append(Choice(number, str(row["case_id"]), label, dice, area))
    return chosen


def draw_gallery(
    choices: dict[str, list[Choice]], dataset: Dataset, model: str | Path, area_unit: str = "px"
) -> dict[str, list[Picture]]:
    """Predict the chosen images once more and draw them.

    Args:
        choices: As `choose_cases` gives them.
        dataset: Where images and masks lie.
        model: The bundle.
        area_unit: Of `Choice.area`, as shown.

    Returns:
        Pictures by the group's title.

    Raises:
        DxsegError: The model, an image or a mask cannot be read, or a case is no longer there.
    """
    if not any(choices.values()):
        return {title: [] for title in choices}
    rows = {str(row["case_id"]): row for row in _rows(dataset, choices)}
    missing = [c for group in choices.values() for c in group if c.case_id not in rows]
    if missing:
        raise DxsegError(
            f"{dataset.root}: {len(missing)} evaluated case(s) are no longer in the dataset; "
            "evaluate the run again"
        )
    predictor = Predictor.from_folder(model)
    pictures = {}
    for title, group in choices.items():
        items = [(choice.case_id, dataset.image_path(rows[choice.case_id])) for choice in group]
        pictures[title] = [
            _picture(choice, _checked(result), _truth(dataset, rows[choice.case_id]), area_unit)
            for choice, (_, result) in zip(
                group, predictor.stream(items, keep_images=True), strict=True
            )
        ]
    return pictures


def _rows(dataset: Dataset, choices: dict[str, list[Choice]]) -> Sequence[Any]:
    wanted = [choice.case_id for group in choices.values() for choice in group]
    found = dataset.cases[dataset.cases["case_id"].isin(wanted)]
    return found.to_dict("records")


def _checked(result: Prediction | DxsegError) -> Prediction:
    if isinstance(result, DxsegError):
        raise result
    return result


def _truth(dataset: Dataset, row: Any) -> NDArray[np.uint8] | None:
    path = dataset.mask_path(row)
    return None if path is None else read_mask(path, len(dataset.spec.mask_classes))


def _picture(
    choice: Choice, prediction: Prediction, truth: NDArray[np.uint8] | None, area_unit: str
) -> Picture:
    assert prediction.image is not None, "the stream keeps images"
    overlay = render_overlay(prediction.image, prediction.mask, truth=truth)
    panels = [_scaled(display_rgb(prediction.image)), _scaled(overlay)]
    gap = np.full((panels[0].shape[0], 4, 3), 255, np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(np.hstack([panels[0], gap, panels[1]])).save(buffer, "PNG", optimize=True)
    label = choice.label or "no label"
    if np.isnan(choice.dice):
        score = f"{choice.area:.0f} {area_unit} predicted where there is no lesion"
        outlines = "the prediction outlined in orange"
    else:
        score = f"Dice {choice.dice:.2f}"
        outlines = "the reference outlined in blue and the prediction in orange"
    if not prediction.mask.any():
        outlines = outlines.replace("the prediction in orange", "no prediction")
    caption = f"{choice.number} · {label} · {score}"
    alt = f"Image {choice.number}, {label}, {score}: the image, and beside it {outlines}."
    return Picture(caption, alt, buffer.getvalue())


def _scaled(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    # Outlines are drawn before scaling: a tiny one is blended, not lost.
    height, width = pixels.shape[:2]
    scale = _SIDE / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS))

"""Tables of a report that look inside its means: sizes, labels, decisions, calibration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dxseg.reports.metric_columns import MISSING, format_number

_SIZES = ("small", "medium", "large")
_BINS = 5


@dataclass(frozen=True)
class SmallTable:
    """A table of texts.

    Attributes:
        caption: What it shows.
        header: Titles of the columns.
        rows: Cells; the first of a row is its header.
    """

    caption: str
    header: list[str]
    rows: list[list[str]]


def by_size(per_image: pd.DataFrame, unit: str) -> SmallTable:
    """Dice and missed images by thirds of the lesion area.

    Args:
        per_image: The table of `dxseg.evaluation`.
        unit: Of the areas.
    """
    lesion = per_image[per_image["true_area"] > 0]
    # Ranks, so that equal areas at a border do not empty a third.
    third = (lesion["true_area"].rank(method="first") - 1) * len(_SIZES) // max(len(lesion), 1)
    rows = []
    for number, name in enumerate(_SIZES):
        part = lesion[third == number]
        if len(part):
            low, high = part["true_area"].min(), part["true_area"].max()
            rows.append([f"{name}, {low:.0f} to {high:.0f} {unit}", *_outcome(part)])
    return SmallTable("By lesion size, in thirds", ["Size", *_OUTCOME], rows)


def by_label(per_image: pd.DataFrame) -> SmallTable:
    """Dice and missed images of each label.

    Args:
        per_image: The table of `dxseg.evaluation`.
    """
    lesion = per_image[per_image["true_area"] > 0]
    named = lesion["label"].fillna("").astype(str).replace("", "no label")
    rows = [[str(name), *_outcome(part)] for name, part in lesion.groupby(named)]
    return SmallTable("By label", ["Label", *_OUTCOME], rows)


def decisions(per_image: Mapping[str, pd.DataFrame]) -> SmallTable:
    """Which images got a mask, by whether they have a lesion.

    Args:
        per_image: Name of each run to its table of `dxseg.evaluation`.
    """
    rows = []
    for name, table in per_image.items():
        found, free = table["predicted_area"] > 0, table["lesion_free"].astype(bool)
        for title, part in (("with a lesion", found[~free]), ("without a lesion", found[free])):
            rows.append([name, title, str(int(part.sum())), str(int((~part).sum()))])
    return SmallTable("Images by decision", ["Run", "Images", "With a mask", "Without"], rows)


def calibration(per_image: pd.DataFrame) -> SmallTable:
    """Predicted probability of a lesion against how often there is one.

    Args:
        per_image: The table of `dxseg.evaluation`; without probabilities there are no rows.
    """
    known = per_image[per_image["lesion_probability"].notna()]
    edges = np.linspace(0, 1, _BINS + 1)
    place = np.clip(np.digitize(known["lesion_probability"], edges) - 1, 0, _BINS - 1)
    rows = list(_bins(known, place, edges)) if len(known) else []
    header = ["Predicted probability", "Images", "Mean predicted", "With a lesion"]
    return SmallTable("Classifier: predicted and true frequency of a lesion", header, rows)


_OUTCOME = ["Images", "Mean Dice", "Without any mask"]


def _outcome(part: pd.DataFrame) -> list[str]:
    missed = int((part["predicted_area"] == 0).sum())
    return [str(len(part)), format_number(float(part["dice"].mean()), 3), str(missed)]


def _bins(
    known: pd.DataFrame, place: NDArray[np.int64], edges: NDArray[np.float64]
) -> Iterator[list[str]]:
    for number in range(_BINS):
        part = known[place == number]
        name = f"{edges[number]:.1f} to {edges[number + 1]:.1f}"
        if not len(part):
            yield [name, "0", MISSING, MISSING]
            continue
        predicted = part["lesion_probability"].mean()
        true = (~part["lesion_free"].astype(bool)).mean()
        yield [name, str(len(part)), f"{predicted:.2f}", f"{true:.2f}"]

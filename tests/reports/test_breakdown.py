from __future__ import annotations

import numpy as np
import pandas as pd

from dxseg.reports.breakdown import by_label, by_size, calibration, decisions

NAN = float("nan")
ROWS = pd.DataFrame(
    {
        "label": ["a", "a", "b", "", "b", "a", "free", "free"],
        "true_area": [10, 20, 30, 40, 50, 60, 0, 0],
        "dice": [0.0, 0.5, 0.6, 0.7, 0.8, 1.0, 0.0, 1.0],
        "predicted_area": [0, 5, 30, 35, 55, 60, 7, 0],
        "lesion_free": [False] * 6 + [True] * 2,
        "lesion_probability": [0.1, 0.3, 0.5, 0.7, 0.9, 1.0, 0.1, 0.0],
    }
)


def test_thirds_by_size_hold_all_lesion_images_once() -> None:
    assert by_size(ROWS, "px").rows == [
        ["small, 10 to 20 px", "2", "0.250", "1"],
        ["medium, 30 to 40 px", "2", "0.650", "0"],
        ["large, 50 to 60 px", "2", "0.900", "0"],
    ]


def test_one_size_or_none_makes_no_empty_row() -> None:
    assert [row[1] for row in by_size(ROWS.assign(true_area=9), "mm²").rows] == ["3", "3", "2"]
    assert [row[1] for row in by_size(ROWS[:1], "px").rows] == ["1"]
    assert by_size(ROWS[6:], "px").rows == []


def test_labels_are_counted_apart() -> None:
    assert by_label(ROWS).rows == [
        ["a", "3", "0.500", "1"],
        ["b", "2", "0.700", "0"],
        ["no label", "1", "0.700", "0"],
    ]


def test_decisions_count_every_image_once() -> None:
    rows = decisions({"one": ROWS, "other": ROWS}).rows
    assert rows[:2] == [["one", "with a lesion", "5", "1"], ["one", "without a lesion", "1", "1"]]
    assert [["one", *row[1:]] for row in rows[2:]] == rows[:2]


def test_calibration_compares_what_was_predicted_with_what_is_true() -> None:
    rows = calibration(ROWS).rows
    assert [row[1] for row in rows] == ["3", "1", "1", "1", "2"]
    assert rows[0] == ["0.0 to 0.2", "3", "0.07", "0.33"]
    assert rows[-1] == ["0.8 to 1.0", "2", "0.95", "1.00"]
    assert calibration(ROWS.assign(lesion_probability=NAN)).rows == []
    missing = ROWS.assign(lesion_probability=np.where(ROWS.index == 2, NAN, 0.5))
    assert [row[1] for row in calibration(missing).rows] == ["0", "0", "7", "0", "0"]

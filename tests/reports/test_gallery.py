from __future__ import annotations

import math

import pandas as pd
import pytest

from dxseg.reports.gallery import select_cases


def table(dices: list[float], areas: tuple[float, ...] = ()) -> pd.DataFrame:
    rows = [
        {"case_id": f"c{i}", "label": "mass", "lesion_free": False, "dice": dice}
        | {"true_area": 10.0, "predicted_area": 5.0}
        for i, dice in enumerate(dices)
    ]
    rows += [
        {"case_id": f"n{i}", "label": "normal", "lesion_free": True, "dice": float(area == 0)}
        | {"true_area": 0.0, "predicted_area": area}
        for i, area in enumerate(areas)
    ]
    columns = ["case_id", "label", "lesion_free", "dice", "true_area", "predicted_area"]
    return pd.DataFrame(rows, columns=columns).astype({"lesion_free": bool})


def ids(per_image: pd.DataFrame) -> list[list[str]]:
    return [[choice.case_id for choice in group] for group in select_cases(per_image).values()]


def test_worst_middle_and_best_are_those_by_dice():
    dices = [i / 20 for i in range(21)]
    assert ids(table(dices)) == [
        ["c0", "c1", "c2"],
        [],
        ["c11", "c10", "c9"],
        ["c20", "c19", "c18"],
    ]


@pytest.mark.parametrize("count", range(13))
def test_no_image_is_shown_twice_however_few_there_are(count):
    groups = ids(table([0.5] * count))
    shown = [name for group in groups for name in group]
    assert len(shown) == len(set(shown))
    assert len(shown) == min(count, 9) - (0 if count < 3 or count >= 9 else count % 3)


def test_ties_are_broken_by_name_and_rows_in_any_order_give_the_same():
    one = table([0.5] * 12, (3.0, 3.0, 9.0, 3.0))
    assert ids(one) == ids(one.sample(frac=1, random_state=1))


def test_false_positives_are_the_largest_on_lesion_free_images():
    assert ids(table([], (0.0, 5.0, 50.0, 1.0, 7.0)))[1] == ["n2", "n4", "n1"]
    assert ids(table([], (0.0, 0.0)))[1] == []


def test_numbers_run_through_and_scores_are_kept():
    choices = select_cases(table([0.9, 0.5, 0.1], (4.0,)))
    flat = [choice for group in choices.values() for choice in group]
    assert [choice.number for choice in flat] == [1, 2, 3, 4]
    assert math.isnan(flat.pop(1).dice)
    assert [choice.dice for choice in flat] == [0.1, 0.5, 0.9]


def test_images_without_a_known_mask_are_not_ranked():
    per_image = table([0.9, 0.5, 0.1])
    per_image.loc[0, ["dice", "true_area"]] = float("nan")
    assert all("c0" not in group for group in ids(per_image))

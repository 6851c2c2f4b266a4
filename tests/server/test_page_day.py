"""A day on the page: 60 cases with keys alone, a slow network, a restart, a second reader."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from browsing import Picture
from dxseg.data.readers.masks import read_mask
from dxseg.data.table.dataset import Dataset
from dxseg.io.csv_io import read_table
from serving import TOKEN, squares

pytestmark = pytest.mark.slow  # test_page is always run

CASES = 60
SLOW = {"offline": False, "latency": 60, "downloadThroughput": 400_000, "uploadThroughput": 200_000}


def opened(picture: Picture, case_id: str) -> None:
    from playwright.sync_api import expect

    expect(picture.page.locator("#name")).to_have_text(f"Case {case_id}")


def mask_of(root: Path, case_id: str) -> np.ndarray | None:
    dataset = Dataset.load(root)
    path = dataset.mask_path(dataset.cases.set_index("case_id", drop=False).loc[case_id])
    return None if path is None else read_mask(path, 1)


def choose_role(page: Any, role: str) -> None:
    page.focus("#role")
    page.keyboard.type(role)
    page.locator("#view").focus()


def test_a_day_of_60_cases_with_keys_alone(
    browser: Any, start_server: Callable[..., Any], tmp_path: Path
) -> None:
    root = squares(tmp_path / "data", CASES).root
    served = start_server(dataset=root, token=TOKEN)
    picture = Picture.open(browser, f"{served.url}/#token={TOKEN}")
    page, press = picture.page, picture.page.keyboard.press
    session = page.context.new_cdp_session(page)
    session.send("Network.enable")
    session.send("Network.emulateNetworkConditions", SLOW)
    page.get_by_text(f"{CASES - 1} left").wait_for()
    choose_role(page, "radiologist")
    areas = {}
    press("n")
    for number in range(CASES - 1):  # the last one is lesion-free, and waits for nobody
        case_id = f"case{number}"
        opened(picture, case_id)
        if number % 10 == 3:
            press("x")  # cannot tell
            continue
        if number % 10 == 7:
            press("n")  # skipped
            continue
        press("b")
        press("Space")
        press("Shift+ArrowLeft")
        press("Space")
        picture.says("Drawn")
        areas[case_id] = picture.area()
        if number == 30:
            port = int(served.url.rpartition(":")[2])
            served.stop()
            served = start_server(dataset=root, token=f"{TOKEN}-new", port=port)
            press("Shift+S")
            page.get_by_role("dialog", name="Token").wait_for()
            page.keyboard.type(f"{TOKEN}-new")
            press("Enter")
        else:
            press("Shift+S")
    # Those that were skipped come round; they are the only ones that wait.
    skipped = [f"case{number}" for number in range(CASES - 1) if number % 10 == 7]
    for case_id in skipped:
        opened(picture, case_id)
        areas[case_id] = picture.area()
        press("Shift+S")
    page.get_by_text(f"None left of {CASES}").wait_for()
    assert {case_id: int(mask_of(root, case_id).sum()) for case_id in areas} == areas
    aside = read_table(root / "reviews.csv")["case_id"].tolist()
    assert aside == [f"case{number}" for number in range(CASES - 1) if number % 10 == 3]
    assert len(areas) + len(aside) == CASES - 1
    assert f"Mine today: {CASES - 1}" in page.inner_text("#mine")
    assert [told for told in picture.messages if told.startswith("error")] == [
        told for told in picture.messages if "Failed to load resource" in told
    ]
    page.close()


def test_a_second_reader_compares_confirms_and_proposes(
    browser: Any, picture: Picture, root: Path
) -> None:
    first = picture.page
    first.get_by_text("3 left").wait_for()
    choose_role(first, "trainee")
    for case_id in ("case0", "case1"):
        first.keyboard.press("n")
        opened(picture, case_id)
        first.keyboard.press("s")
        picture.says("Saved as")
    assert first.locator("#history li").all_inner_texts()[0].endswith("mask saved, trainee (mine)")

    second = Picture.open(browser, f"{first.url}#token={TOKEN}")
    page = second.page
    page.get_by_text("1 left").wait_for()
    choose_role(page, "radiologist")
    page.select_option("#state", "drawn")
    page.locator("#queue [data-case=case0]").click()
    second.says("The saved mask")
    assert page.locator("#history li").all_inner_texts()[0].endswith("mask saved, trainee")
    page.locator("#view").focus()
    page.keyboard.press("v")
    page.locator("#dice").get_by_text("Dice 1.000").wait_for()
    page.keyboard.press("c")
    opened(second, "case1")
    page.select_option("#other-label", "normal")
    page.click("#propose-label")
    second.says("other label proposed: case1")
    reviews = read_table(root / "reviews.csv").to_dict("records")
    assert [(row["case_id"], row["kind"], row["label"], row["role"]) for row in reviews] == [
        ("case0", "confirm", "", "radiologist"),
        ("case1", "label", "normal", "radiologist"),
    ]
    page.select_option("#state", "confirmed")
    page.locator("#queue [data-case=case0]").wait_for()
    assert Dataset.load(root).cases["label"].tolist() == ["", "", "", "normal"]
    page.close()

"""What a suspicious reader tries: keys in the wrong place, late answers, what is shown of whom."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from browsing import Picture
from dxseg.data.table.annotations import save_mask
from dxseg.data.table.dataset import Dataset
from dxseg.io.csv_io import read_table
from serving import png, until

pytestmark = pytest.mark.slow  # test_page is always run


def open_case(picture: Picture, case_id: str, says: str = "Predicted") -> None:
    picture.page.click(f"#queue [data-case={case_id}]")
    picture.says(says)


def draw(picture: Picture, row: int = 30) -> int:
    picture.page.click("[data-tool=brush]")
    picture.drag([(6, row), (20, row)])
    return picture.area()


def test_only_what_is_shown_is_confirmed(picture: Picture, root: Path) -> None:
    page = picture.page
    save_mask(root, "case0", np.zeros((48, 64), np.uint8), "trainee")
    page.select_option("#role", "radiologist")
    page.select_option("#state", "drawn")
    open_case(picture, "case0", "The saved mask")
    draw(picture)
    page.click("#confirm")
    page.get_by_role("alert").get_by_text("is not the saved mask").wait_for()
    assert not (root / "reviews.csv").exists()
    page.click("#undo")
    page.click("#confirm")
    until(lambda: page.wait_for_timeout(20) or (root / "reviews.csv").exists())
    [review] = read_table(root / "reviews.csv").to_dict("records")
    assert (review["kind"], review["case_id"]) == ("confirm", "case0")


def test_a_draft_that_waits_is_not_dropped_by_a_save(picture: Picture, root: Path) -> None:
    page = picture.page
    open_case(picture, "case0")
    drawn = draw(picture)
    page.on("dialog", lambda dialog: dialog.accept())
    page.reload()
    page.locator("#drafts").get_by_role("button", name="case0").click()
    picture.says("Predicted")
    page.select_option("#role", "trainee")
    page.click("#save")
    page.get_by_role("dialog").get_by_role("button", name="Go back").click()
    assert Dataset.load(root).cases["mask"][0] == ""
    page.get_by_role("group", name="Draft").get_by_text("Continue").click()
    assert picture.area() == drawn
    page.click("#save")
    picture.says("Saved as")


def test_letters_after_a_choice_with_the_mouse_are_keys_of_the_page(picture: Picture) -> None:
    page = picture.page
    open_case(picture, "case0")
    page.select_option("#role", "radiologist")
    # As a mouse does it: pressed on the list, which then changes.
    page.locator("#role").dispatch_event("pointerdown")
    page.focus("#role")
    page.locator("#role").dispatch_event("change")
    page.keyboard.press("t")
    assert page.evaluate("document.activeElement.id") == "view"
    assert page.input_value("#role") == "radiologist", "t is the theme, not the trainee"
    assert page.locator("html").get_attribute("data-theme") == "light"
    page.keyboard.press("/")
    page.keyboard.type("nobody")
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.id") == "view"


def test_the_name_of_a_file_does_not_stand_beside_another_case(
    picture: Picture, tmp_path: Path
) -> None:
    page = picture.page
    (tmp_path / "Doe, Jane.png").write_bytes(png())
    for _ in range(2):  # the same file again
        page.set_input_files("#file", tmp_path / "Doe, Jane.png")
        page.locator("#name").get_by_text("Doe, Jane.png").wait_for()
        picture.says("Predicted")
        assert page.input_value("#file") == ""
        open_case(picture, "case0")
        page.locator("#name").get_by_text("Case case0").wait_for()


def test_an_answer_that_comes_late_does_not_replace_the_list(picture: Picture) -> None:
    page = picture.page
    page.get_by_text("3 left").wait_for()
    waiting: list[Any] = []
    page.route("**/v1/cases?*search=case0*", lambda route: waiting.append(route))
    page.fill("#search", "case0")
    until(lambda: bool(waiting or page.wait_for_timeout(20)))
    page.fill("#search", "case1")
    page.locator("#queue [data-case=case1]").wait_for()
    until(lambda: page.locator("#queue button").count() == 1)
    for route in waiting:
        route.continue_()
    page.wait_for_timeout(300)
    assert page.locator("#queue button").all_inner_texts() == ["case1"]


def test_a_save_whose_answer_was_lost_is_not_a_conflict(picture: Picture, root: Path) -> None:
    page = picture.page
    open_case(picture, "case0")
    drawn = draw(picture)
    page.select_option("#role", "trainee")

    def lose(route: Any) -> None:
        route.fetch()
        route.abort()

    page.route("**/v1/cases/mask", lose, times=1)
    page.click("#save")
    page.get_by_role("alert").get_by_text("cannot be reached").wait_for()
    assert len(read_table(root / "annotations.csv")) == 1
    page.click("#save")
    picture.says("Saved as")
    assert len(read_table(root / "annotations.csv")) == 1
    draw(picture, 40)
    page.click("#save")
    until(lambda: page.wait_for_timeout(20) or len(read_table(root / "annotations.csv")) == 2)
    assert picture.area() > drawn


def test_two_keys_at_once_ask_one_question(picture: Picture) -> None:
    page = picture.page
    open_case(picture, "case0")
    draw(picture)
    page.evaluate(
        "for (const _ of [1, 2]) dispatchEvent(new KeyboardEvent('keydown', { key: 'n' }))"
    )
    page.get_by_role("dialog").get_by_role("button", name="Stay").click()
    assert not page.get_by_role("dialog").is_visible()
    assert page.inner_text("#name") == "Case case0"


def test_a_mask_of_another_size_is_an_error_and_no_mask(picture: Picture, root: Path) -> None:
    saved = save_mask(root, "case0", np.zeros((48, 64), np.uint8), "trainee").mask
    Image.fromarray(np.full((24, 32), 255, np.uint8)).save(root / saved)
    page = picture.page
    page.select_option("#state", "drawn")
    page.click("#queue [data-case=case0]")
    page.locator("#failure").get_by_text("does not fit the image of 64 x 48").wait_for()
    assert page.is_disabled("#save")


def test_an_error_of_the_list_goes_when_the_server_is_back(picture: Picture) -> None:
    page = picture.page
    page.get_by_text("3 left").wait_for()
    page.route("**/v1/cases?*", lambda route: route.abort())
    page.fill("#search", "c")
    page.get_by_role("alert").get_by_text("cannot be reached").wait_for()
    page.unroute("**/v1/cases?*")
    page.fill("#search", "case1")
    until(lambda: page.wait_for_timeout(20) or page.locator("#problem").inner_text() == "")


def test_a_review_does_not_skip_the_case_that_was_opened_meanwhile(
    picture: Picture, root: Path
) -> None:
    page = picture.page
    page.select_option("#role", "radiologist")
    open_case(picture, "case0")
    waiting: list[Any] = []
    page.route("**/v1/cases/review", lambda route: waiting.append(route))
    page.locator("#view").focus()
    page.keyboard.press("x")
    until(lambda: bool(waiting or page.wait_for_timeout(20)))
    page.keyboard.press("n")
    page.locator("#name").get_by_text("Case case1").wait_for()
    waiting[0].continue_()
    page.get_by_text("Mine today: 1").wait_for()
    page.wait_for_timeout(300)
    assert page.inner_text("#name") == "Case case1"
    assert read_table(root / "reviews.csv")["case_id"].tolist() == ["case0"]


def test_a_saved_case_is_left_although_its_history_cannot_be_read(
    picture: Picture, root: Path
) -> None:
    page = picture.page
    open_case(picture, "case0")
    page.select_option("#role", "radiologist")
    page.route("**/v1/cases/history?*", lambda route: route.abort())
    page.click("#save")
    page.get_by_role("alert").get_by_text("cannot be reached").wait_for()
    picture.says("Saved as")
    page.unroute("**/v1/cases/history?*")
    open_case(picture, "case1")
    page.route("**/v1/cases/history?*case1*", lambda route: route.abort())
    page.click("#save-next")
    page.locator("#name").get_by_text("Case case2").wait_for()
    assert (Dataset.load(root).cases["mask"] != "").tolist() == [True, True, False, False]

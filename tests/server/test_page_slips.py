"""A key, a scroll or a diagnosis at the wrong moment costs no work on the page."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from browsing import Picture
from dxseg.io.csv_io import read_table
from serving import TOKEN, squares, until, volumes

pytestmark = pytest.mark.slow  # test_page is always run


@pytest.fixture
def open_page(browser: Any, start_server: Callable[..., Any]) -> Iterator[Callable[..., Picture]]:
    opened: list[Picture] = []

    def open_(root: Path, **model: Any) -> Picture:
        served = start_server(dataset=root, token=TOKEN, **model)
        opened.append(Picture.open(browser, f"{served.url}/#token={TOKEN}"))
        return opened[-1]

    yield open_
    for picture in opened:
        picture.close()


@pytest.fixture
def cases(open_page: Callable[..., Picture], tmp_path: Path) -> Picture:
    picture = open_page(squares(tmp_path / "data").root)
    picture.page.click("#queue [data-case=case0]")
    picture.says("Predicted")
    return picture


@pytest.fixture
def slices(open_page: Callable[..., Picture], tmp_path: Path) -> Picture:
    picture = open_page(volumes(tmp_path / "data").root)
    picture.page.get_by_text("3 left").wait_for()
    picture.page.keyboard.press("n")
    on_slice(picture, 4)
    picture.says("Predicted")
    return picture


def on_slice(picture: Picture, number: int) -> None:
    from playwright.sync_api import expect

    expect(picture.page.locator("#slice-text")).to_contain_text(f"{number} of")
    expect(picture.page.locator("#view")).not_to_have_attribute("aria-busy", "true")


def draw(picture: Picture, row: int = 30) -> int:
    picture.page.click("[data-tool=brush]")
    picture.drag([(6, row), (20, row)])
    return picture.area()


def reopen_draft(picture: Picture) -> None:
    """Leave the page with what is drawn, and open the case from the list of drafts."""
    picture.page.once("dialog", lambda dialog: dialog.accept())
    picture.page.reload()
    picture.page.locator("#drafts").get_by_role("button", name="case0").first.click()
    picture.says("Predicted")


def drafts(picture: Picture) -> int:
    picture.page.wait_for_timeout(700)  # they are kept by now
    found: int = picture.page.locator("#drafts-list button").count()
    stored: int = picture.page.evaluate(
        "Object.keys(localStorage).filter((key) => key.startsWith('dxseg-draft')).length"
    )
    return max(found, stored)


def test_a_copy_for_a_slice_that_was_left_is_drawn_on_no_other(slices: Picture) -> None:
    page = slices.page
    waiting: list[Any] = []

    def hold(route: Any) -> None:
        if "right4" in (route.request.post_data or ""):  # slice 5
            waiting.append(route)
        else:
            route.continue_()

    page.reload()
    page.route("**/v1/cases/predict", hold)
    page.get_by_text("3 left").wait_for()
    page.keyboard.press("n")
    on_slice(slices, 4)
    page.keyboard.press("PageUp")
    on_slice(slices, 3)
    area = slices.area()
    page.keyboard.press("PageDown")
    on_slice(slices, 4)
    page.keyboard.press("Delete")
    page.keyboard.press("u")
    until(lambda: page.wait_for_timeout(20) or bool(waiting))
    page.keyboard.press("PageUp")
    page.keyboard.press("PageUp")
    on_slice(slices, 3)
    for route in waiting:
        route.continue_()
    page.wait_for_timeout(500)
    assert slices.area() == area > 0


def test_coming_back_to_a_slice_offers_no_draft_of_itself(slices: Picture) -> None:
    page = slices.page
    page.keyboard.press("Delete")
    page.keyboard.press("PageDown")
    on_slice(slices, 5)
    page.keyboard.press("PageUp")
    on_slice(slices, 4)
    assert not page.is_visible("#draft")


def test_caps_lock_is_no_shift(slices: Picture) -> None:
    page = slices.page
    page.keyboard.press("Delete")
    page.evaluate("dispatchEvent(new KeyboardEvent('keydown', {key: 'U', bubbles: true}))")
    on_slice(slices, 5)
    slices.says("As on slice 4")


def test_a_draft_is_not_lost_to_strokes_before_the_decision(cases: Picture) -> None:
    page = cases.page
    first = draw(cases)
    reopen_draft(cases)
    draw(cases, 40)
    assert drafts(cases) == 2
    reopen_draft(cases)
    page.get_by_role("group", name="Draft").get_by_text("Discard").click()
    page.get_by_role("group", name="Draft").get_by_text("Continue").click()
    cases.says("Draft")
    assert cases.area() == first
    page.select_option("#role", "trainee")
    page.click("#save")
    cases.says("Saved as")
    assert drafts(cases) == 0


def test_a_diagnosis_does_not_replace_a_draft_that_is_gone_on_with(cases: Picture) -> None:
    page = cases.page
    drawn = draw(cases)
    reopen_draft(cases)
    page.get_by_role("group", name="Draft").get_by_text("Continue").click()
    cases.says("Draft")
    page.get_by_label("bright", exact=True).first.check()
    until(lambda: page.wait_for_timeout(50) or "bright" in page.inner_text("#labels"))
    page.wait_for_timeout(500)
    assert cases.area() == drawn


def test_the_dice_of_a_comparison_follows_what_is_drawn(cases: Picture) -> None:
    page = cases.page
    page.locator("#compare").select_option("proposal")
    page.locator("#dice").get_by_text("Dice 1.000").wait_for()
    draw(cases)
    assert "1.000" not in page.inner_text("#dice")
    page.click("#undo")
    assert "1.000" in page.inner_text("#dice")


def test_a_draft_brings_its_diagnosis_back(cases: Picture, tmp_path: Path) -> None:
    page = cases.page
    page.check("#label-prompt input[value=bright]")
    cases.says("Predicted")
    draw(cases)
    reopen_draft(cases)
    assert page.is_checked("#label-prompt input[value=bright]")
    page.get_by_role("group", name="Draft").get_by_text("Continue").click()
    page.select_option("#role", "trainee")
    page.click("#save")
    cases.says("Saved as")
    assert read_table(tmp_path / "data/annotations.csv")["known"].tolist() == ["bright"]


def test_a_draft_brings_it_back_to_a_case_of_the_work_list(cases: Picture) -> None:
    page = cases.page
    page.check("#label-prompt input[value=bright]")
    cases.says("Predicted")
    drawn = draw(cases)
    page.once("dialog", lambda dialog: dialog.accept())
    page.reload()
    page.click("#queue [data-case=case0]")
    cases.says("Predicted")
    assert page.is_checked("#label-prompt input[value='']")
    page.get_by_role("group", name="Draft").get_by_text("Continue").click()
    cases.says("Predicted again")
    assert page.is_checked("#label-prompt input[value=bright]")
    assert cases.area() == drawn


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("mask.other = mask.class0; delete mask.class0", "of the classes other"),
        ("mask.other = mask.class0", "of the classes class0, other"),
        ("mask.class0.size = [24, 32]", "32 x 24 pixels does not fit"),
    ],
)
def test_a_draft_that_does_not_fit_is_kept(cases: Picture, change: str, message: str) -> None:
    page = cases.page
    draw(cases)
    reopen_draft(cases)
    page.evaluate(
        f"""() => {{
            const key = Object.keys(localStorage).find((one) => one.startsWith("dxseg-draft"));
            const draft = JSON.parse(localStorage.getItem(key));
            const {{ mask }} = draft;
            {change};
            localStorage.setItem(key, JSON.stringify(draft));
        }}"""
    )
    page.click("#queue [data-case=case1]")
    cases.says("Predicted")
    page.click("#queue [data-case=case0]")
    page.get_by_role("group", name="Draft").get_by_text("Continue").click()
    page.get_by_role("alert").get_by_text(message).wait_for()
    draw(cases, 40)
    assert drafts(cases) == 2


def test_a_key_that_is_released_with_shift_or_elsewhere_shows_the_mask_again(
    cases: Picture,
) -> None:
    page = cases.page
    outline = cases.color(37.5, 10)

    def hide() -> None:
        page.keyboard.down("h")
        assert cases.color(37.5, 10) != outline

    hide()
    page.keyboard.down("Shift")
    page.keyboard.up("H")
    page.keyboard.up("Shift")
    assert cases.color(37.5, 10) == outline
    hide()
    page.evaluate("dispatchEvent(new Event('blur'))")
    assert cases.color(37.5, 10) == outline


def test_a_review_that_is_stored_while_a_volume_opens_is_no_error(slices: Picture) -> None:
    page = slices.page
    page.select_option("#role", "trainee")
    reviews: list[Any] = []
    opening: list[Any] = []
    page.route("**/v1/cases/review", lambda route: reviews.append(route))
    page.route("**/v1/cases/volume?*", lambda route: opening.append(route))
    page.locator("#view").focus()
    page.keyboard.press("x")
    until(lambda: page.wait_for_timeout(20) or bool(reviews))
    page.keyboard.press("n")
    until(lambda: page.wait_for_timeout(20) or bool(opening))
    with page.expect_response("**/v1/cases?*"):
        reviews[0].continue_()
    page.wait_for_timeout(100)
    assert page.inner_text("#problem") == ""
    opening[0].continue_()
    on_slice(slices, 4)

"""No work is lost in silence on the page, and nothing is shown that belongs to another case."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from browsing import Picture
from dxseg.data.readers.masks import read_mask
from dxseg.data.table.annotations import save_mask
from dxseg.data.table.dataset import Dataset
from serving import TOKEN, until

pytestmark = pytest.mark.slow  # test_page is always run

NEW = "another-token-0123456789"


def mask_of(root: Path, case_id: str) -> np.ndarray:
    dataset = Dataset.load(root)
    path = dataset.mask_path(dataset.cases.set_index("case_id", drop=False).loc[case_id])
    assert path is not None
    return read_mask(path, 1)


def open_case(picture: Picture, case_id: str, says: str = "Predicted") -> None:
    picture.page.click(f"#queue [data-case={case_id}]")
    picture.says(says)


def draw(picture: Picture, row: int = 30) -> int:
    """Draw a stroke; returns the area of the mask."""
    picture.page.click("[data-tool=brush]")
    before = picture.area()
    picture.drag([(6, row), (20, row)])
    assert picture.area() > before
    return picture.area()


@contextmanager
def held(picture: Picture, path: str) -> Iterator[None]:
    """Requests to a path travel until the block ends."""
    waiting: list[Any] = []
    picture.page.route(path, lambda route: waiting.append(route))
    yield
    until(lambda: bool(waiting or picture.page.wait_for_timeout(20)))
    for route in waiting:
        route.continue_()
    picture.page.unroute(path)


def test_a_saved_mask_is_seen_again_and_replaced_only_when_asked(
    picture: Picture, root: Path
) -> None:
    drawn = np.zeros((48, 64), np.uint8)
    drawn[20:30, 2:30] = 1
    first = save_mask(root, "case0", drawn, "radiologist").mask
    page = picture.page
    page.select_option("#state", "drawn")
    open_case(picture, "case0", "The saved mask")
    assert picture.area() == 280
    page.click("#swap")
    picture.says("The proposal")
    assert picture.area() != 280
    page.click("#swap")
    picture.says("The saved mask")
    assert picture.area() == 280
    page.select_option("#role", "trainee")
    page.click("#save")
    page.get_by_role("dialog").get_by_role("button", name="Keep it").click()
    assert Dataset.load(root).cases["mask"][0] == first
    draw(picture, 40)
    page.click("#save")
    page.get_by_role("dialog").get_by_role("button", name="Replace it").click()
    picture.says("Saved as")
    assert mask_of(root, "case0").sum() == picture.area()
    assert (root / first).is_file()
    draw(picture, 44)
    page.click("#save")
    picture.says("Saved as")
    assert not page.get_by_role("dialog").is_visible(), "the mask is one's own by now"


def test_strokes_while_a_save_travels_stay_unsaved(picture: Picture, root: Path) -> None:
    page = picture.page
    open_case(picture, "case0")
    first = draw(picture)
    page.select_option("#role", "trainee")
    with held(picture, "**/v1/cases/mask"):
        page.click("#save")
        second = draw(picture, 40)
    picture.says("What was drawn meanwhile is not saved yet")
    assert mask_of(root, "case0").sum() == first
    open_again = page.get_by_role("dialog").get_by_role("button", name="Stay")
    page.click("#queue [data-case=case1]")
    open_again.click()
    page.click("#save")
    until(lambda: mask_of(root, "case0").sum() == second)


def test_nothing_can_be_drawn_while_a_case_loads_or_after_it_failed(
    picture: Picture, root: Path
) -> None:
    page = picture.page
    open_case(picture, "case0")
    page.click("[data-tool=brush]")
    where = [picture.at(6, 30), picture.at(20, 30)]

    def scribble() -> None:
        page.mouse.move(*where[0])
        page.mouse.down()
        page.mouse.move(*where[1], steps=3)
        page.mouse.up()
        for key in ("Space", "ArrowLeft", "Space", "p", "Space", "Enter", "Control+z", "f", "b"):
            page.keyboard.press(key)

    with held(picture, "**/v1/cases/predict"):
        page.click("#queue [data-case=case1]")
        scribble()
        assert page.locator("#areas td").count() == 0
    picture.says("Predicted: class0 1")
    assert page.is_disabled("#undo")
    (root / "images/case2.png").write_bytes(b"no image")
    page.click("#queue [data-case=case2]")
    page.locator("#failure").get_by_text("not an image").wait_for()
    scribble()
    assert page.is_disabled("#save")
    assert page.locator("#areas td").count() == 0


def test_a_refused_file_leaves_nothing_of_the_case_before(picture: Picture, tmp_path: Path) -> None:
    page = picture.page
    open_case(picture, "case0")
    x, y = picture.at(37, 11.5)
    (tmp_path / "bad.png").write_bytes(b"no image")
    picture.drop(tmp_path / "bad.png")
    page.locator("#failure").get_by_text("the upload").wait_for()
    assert page.locator("#areas td").count() == 0
    assert page.locator("#labels td").count() == 0
    assert page.inner_text("#name") == ""
    assert page.is_disabled("#save")
    shot = page.screenshot(clip={"x": x, "y": y, "width": 4, "height": 4})
    colors = Image.open(io.BytesIO(shot)).convert("RGB").getextrema()
    assert max(high for _, high in colors) < 40, "the picture is gone"
    open_case(picture, "case0")
    assert page.inner_text("#failure") == ""


def test_a_case_that_cannot_be_opened_does_not_hold_up_the_list(
    picture: Picture, root: Path
) -> None:
    (root / "images/case0.png").write_bytes(b"no image")
    page = picture.page
    page.click("#next")
    page.locator("#failure").get_by_text("not an image").wait_for()
    page.click("#next")
    page.get_by_text("Case case1").wait_for()


def test_what_is_drawn_beside_a_draft_does_not_replace_it(picture: Picture) -> None:
    page = picture.page
    open_case(picture, "case0")
    drawn = draw(picture)
    page.on("dialog", lambda dialog: dialog.accept())
    page.reload()
    page.locator("#drafts").get_by_role("button", name="case0").click()
    picture.says("Predicted")
    draw(picture, 40)
    page.wait_for_timeout(700)  # it is kept by now
    page.get_by_role("group", name="Draft").get_by_text("Continue").click()
    assert picture.area() == drawn


def test_a_correction_outlives_a_restart_with_a_new_token(
    browser: Any, start_server: Callable[..., Any], root: Path
) -> None:
    first = start_server(dataset=root, token=TOKEN)
    picture = Picture.open(browser, f"{first.url}/#token={TOKEN}")
    page = picture.page
    open_case(picture, "case0")
    drawn = draw(picture)
    page.select_option("#role", "trainee")
    first.stop()
    page.click("#save")
    page.get_by_role("alert").get_by_text("cannot be reached").wait_for()
    start_server(dataset=root, token=NEW, port=int(first.url.rpartition(":")[2]))
    page.click("#save")
    page.get_by_role("dialog", name="Token").wait_for()
    page.fill("#token", NEW)
    page.keyboard.press("Enter")
    picture.says("Saved as")
    assert mask_of(root, "case0").sum() == drawn
    page.close()


def test_a_draft_outlives_the_page_and_is_offered_again(picture: Picture, root: Path) -> None:
    page = picture.page
    open_case(picture, "case0")
    drawn = draw(picture)
    page.on("dialog", lambda dialog: dialog.accept())
    page.reload()
    page.locator("#drafts").get_by_role("button", name="case0").click()
    picture.says("Predicted")
    assert picture.area() < drawn
    page.get_by_role("group", name="Draft").get_by_text("Continue").click()
    picture.says("Draft")
    assert picture.area() == drawn
    page.select_option("#role", "trainee")
    page.click("#save")
    picture.says("Saved as")
    assert mask_of(root, "case0").sum() == drawn
    assert not page.is_visible("#drafts")
    assert page.evaluate("Object.keys(localStorage).filter((key) => key.includes('draft'))") == []


def test_two_tabs_do_not_replace_each_others_mask_unseen(
    browser: Any, picture: Picture, root: Path
) -> None:
    other = Picture.open(browser, f"{picture.page.url}#token={TOKEN}")
    other.page.get_by_text("3 left").wait_for()
    for tab in (picture, other):
        open_case(tab, "case0")
        tab.page.select_option("#role", "trainee")
    drawn = draw(picture)
    picture.page.click("#save")
    picture.says("Saved as")
    draw(other, 40)
    other.page.click("#save")
    other.page.get_by_role("alert").get_by_text("open the case again").wait_for()
    assert mask_of(root, "case0").sum() == drawn
    other.page.select_option("#state", "drawn")
    other.page.click("#queue [data-case=case0]")
    other.page.get_by_role("dialog").get_by_role("button", name="Leave it").click()
    other.says("The saved mask")
    assert other.area() == drawn
    other.page.close()


def test_a_case_in_other_hands_is_shown_and_passed_over(browser: Any, picture: Picture) -> None:
    open_case(picture, "case0")
    other = Picture.open(browser, f"{picture.page.url}#token={TOKEN}")
    until(lambda: other.page.locator("#queue em").count() == 1)
    other.page.click("#next")
    other.says("Predicted")
    assert other.page.inner_text("#name") == "Case case1"
    other.page.close()

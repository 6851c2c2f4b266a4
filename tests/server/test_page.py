"""The page in a browser: what is drawn there is in the dataset, pixel by pixel."""

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
from serving import TOKEN, png

ORANGE = (230, 159, 0)  # the outline of the first class


def saved(root: Path, case_id: str) -> np.ndarray:
    dataset = Dataset.load(root)
    row = dataset.cases.set_index("case_id", drop=False).loc[case_id]
    path = dataset.mask_path(row)
    assert path is not None
    return read_mask(path, 1)


def open_first(picture: Picture) -> int:
    picture.page.click("#next")
    picture.says("Predicted")
    return picture.area()


def save(picture: Picture) -> None:
    picture.page.select_option("#role", "radiologist")
    picture.page.click("#save")
    picture.says("Saved as")


def alike(color: tuple[int, ...], other: tuple[int, ...]) -> bool:
    return all(abs(one - two) < 40 for one, two in zip(color, other, strict=True))


def test_a_dropped_image_shows_outline_evidence_and_what_the_model_says(
    picture: Picture, root: Path
) -> None:
    page = picture.page
    picture.drop(root / "images/case1.png")
    picture.says("Predicted: class0")
    assert page.locator("#name").inner_text() == "Case case1"
    assert "token" not in page.url
    assert page.locator("#labels tbody tr").first.inner_text().split() == ["bright", "100.0%"]
    assert picture.area() > 100
    assert "mm²" in page.locator("#areas").inner_text()
    assert alike(picture.color(37.5, 11), ORANGE), "the upper edge of the square"
    inside = picture.color(37.5, 16.5)
    assert not alike(inside, ORANGE), "what is inside is not covered"
    page.uncheck("#show-mask")
    assert not alike(picture.color(37.5, 11), ORANGE)
    plain = picture.color(37.5, 16.5)
    page.check("#show-heat")
    half = picture.color(37.5, 16.5)
    page.fill("#opacity", "100")
    full = picture.color(37.5, 16.5)
    assert plain[1] > half[1] + 20 > full[1] + 40, "the more opaque, the less green"
    page.uncheck("#show-heat")
    assert picture.color(37.5, 16.5) == plain


def test_the_mask_follows_a_known_diagnosis_and_back(picture: Picture) -> None:
    before = open_first(picture)
    picture.page.check("#label-prompt input[value=normal]")
    picture.says("Predicted: class0 0 pixels")
    assert picture.area() == 0
    picture.page.click("#undo")
    assert picture.area() == before
    picture.page.check("#label-prompt input[value='']")
    picture.says("Predicted: class0 1")
    assert picture.area() == before


def test_what_is_drawn_lands_in_the_dataset(picture: Picture, root: Path) -> None:
    page = picture.page
    before = open_first(picture)
    page.click("[data-tool=brush]")
    picture.drag([(6, 30), (20, 30)])
    with_brush = picture.area()
    assert with_brush > before + 100
    page.click("[data-tool=eraser]")
    picture.drag([(30, 12), (44, 12)])
    erased = picture.area()
    assert erased < with_brush - 60
    page.click("[data-tool=polygon]")
    for corner in ((50, 30), (60, 30), (60, 44), (50, 44)):
        picture.click(*corner)
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "view"
    drawn = picture.area()
    assert drawn == erased + 140
    for expected in (erased, with_brush):
        page.click("#undo")
        assert picture.area() == expected
    page.click("#redo")
    page.click("#redo")
    assert picture.area() == drawn
    assert page.is_disabled("#redo")
    save(picture)
    mask = saved(root, "case0")
    assert int(mask.sum()) == drawn
    assert mask[30, 6:21].all(), "brush"
    assert not mask[10:15, 32:42].any(), "eraser"
    assert mask[17:19, 32:42].all(), "what was predicted"
    assert mask[30:44, 50:60].all(), "polygon"
    assert not mask[45:].any()
    [record] = read_table(root / "annotations.csv").to_dict("records")
    assert (record["case_id"], record["role"]) == ("case0", "radiologist")
    assert page.locator("#queue button").all_inner_texts() == ["case1", "case2"]


def test_zoom_and_pan_do_not_move_what_is_drawn(picture: Picture, root: Path) -> None:
    page = picture.page
    open_first(picture)
    page.click("#clear")
    page.click("#nearer")
    page.mouse.move(*picture.at(32, 24))
    page.mouse.wheel(0, -100)
    picture.drag([(32, 24), (20, 20)])
    page.click("[data-tool=brush]")
    picture.drag([(32, 24), (36, 24)])
    save(picture)
    mask = saved(root, "case0")
    rows, columns = np.nonzero(mask)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (20, 27, 28, 39)
    assert mask.sum() == len(rows)


def test_all_can_be_done_by_keys(picture: Picture, root: Path) -> None:
    page = picture.page
    page.get_by_text("3 left").wait_for()
    page.focus("#next")
    page.keyboard.press("Enter")
    picture.says("Predicted")
    page.focus("#clear")
    page.keyboard.press("Enter")
    page.focus("#view")
    press = page.keyboard.press
    press("b")
    for _ in range(5):
        press("[")
    picture.says("Width 3")
    press("Space")
    picture.says("Stroke started")
    press("Shift+ArrowRight")
    picture.says("Column 42, row 24")
    press("Space")
    picture.says("Drawn")
    stroke = picture.area()
    assert 33 <= stroke <= 39, "11 pixels of width 3, and round ends"
    press("p")
    for key in ("Space", "Shift+ArrowDown", "Space", "Shift+ArrowLeft", "Space", "Enter"):
        press(key)
    picture.says("Drawn")
    both = picture.area()
    assert both > stroke + 30
    press("Control+z")
    assert picture.area() == stroke
    press("Control+y")
    assert picture.area() == both
    press("e")
    press("Space")
    press("Escape")
    assert picture.area() == both, "what was begun is forgotten"
    page.focus("#role")
    page.keyboard.type("rad")
    page.focus("#save")
    press("Enter")
    picture.says("Saved as")
    assert int(saved(root, "case0").sum()) == both


def test_an_image_that_is_not_in_the_dataset_is_not_saved(picture: Picture, tmp_path: Path) -> None:
    (tmp_path / "other.png").write_bytes(png())
    picture.drop(tmp_path / "other.png")
    picture.says("Predicted")
    picture.page.select_option("#role", "trainee")
    assert picture.page.is_disabled("#save")
    assert "dxseg import" in picture.page.inner_text("#why-not")
    (tmp_path / "other.png").write_bytes(b"no image")
    picture.drop(tmp_path / "other.png")
    picture.page.get_by_role("alert").get_by_text("the upload").wait_for()


def test_what_another_has_saved_meanwhile_is_not_replaced(picture: Picture, root: Path) -> None:
    from dxseg.data.table.annotations import save_mask

    open_first(picture)
    other = save_mask(root, "case0", np.zeros((48, 64), np.uint8), "other")
    picture.page.select_option("#role", "radiologist")
    picture.page.click("#save")
    picture.page.get_by_role("alert").get_by_text("open the case again").wait_for()
    assert Dataset.load(root).cases["mask"][0] == other.mask


def test_without_a_dataset_saving_is_off_and_says_why(
    browser: Any, start_server: Callable[..., Any], root: Path
) -> None:
    opened = Picture.open(browser, start_server().url)
    opened.drop(root / "images/case1.png")
    opened.says("Predicted")
    opened.page.select_option("#role", "radiologist")
    assert opened.page.is_disabled("#save")
    assert "--dataset" in opened.page.inner_text("#why-not")
    assert not opened.page.is_visible("#waiting")
    opened.page.close()


def test_the_token_is_asked_for(browser: Any, start_server: Callable[..., Any], root: Path) -> None:
    opened = Picture.open(browser, start_server(dataset=root, token=TOKEN).url)
    opened.page.get_by_role("dialog", name="Token").wait_for()
    assert opened.page.is_disabled("#next"), "there is no queue yet"
    opened.page.fill("#token", TOKEN)
    opened.page.keyboard.press("Enter")
    opened.page.get_by_text("3 left").wait_for()
    opened.page.close()


def test_run_lengths_come_back_as_the_mask(picture: Picture) -> None:
    """Random rectangles, which touch every edge now and then, at sizes of 1 to 7 pixels."""
    wrong = picture.page.evaluate(
        """async () => {
            const { decode, encode } = await import("./runs.js");
            const random = (most) => Math.floor(Math.random() * most);
            let wrong = 0;
            for (let trial = 0; trial < 3000; trial++) {
                const [height, width] = [1 + random(7), 1 + random(7)];
                const labels = new Uint8Array(height * width);
                const value = random(3);
                const [top, left] = [random(height), random(width)];
                const [bottom, right] = [top + random(height) + 1, left + random(width) + 1];
                for (let y = top; y < Math.min(bottom, height); y++)
                    for (let x = left; x < Math.min(right, width); x++)
                        if (random(9)) labels[y * width + x] = value;
                const runs = encode({ labels, height, width }, ["one", "two"]);
                const sum = ({ counts }) => counts.reduce((one, other) => one + other, 0);
                const back = decode(runs, ["one", "two"], { height, width });
                wrong += back.some((own, place) => own !== labels[place]);
                wrong += Object.values(runs).some((one) => sum(one) !== height * width);
            }
            return wrong;
        }"""
    )
    assert wrong == 0


def test_axe_finds_nothing_that_bars_anyone(picture: Picture) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    open_first(picture)
    found = axe.Axe().run(picture.page).response["violations"]
    assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in found] == []

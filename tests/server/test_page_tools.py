"""The page as a workstation: window and level, ruler, polygon, regions, zoom, keys."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from browsing import Picture
from dicom_phantom import make_image
from dicom_phantom import save as save_dicom

pytestmark = pytest.mark.slow  # test_page is always run

STROKE_MS = 100
"""A stroke's release may take this long at 15 megapixels."""


def open_next(picture: Picture) -> None:
    picture.page.click("#next")
    picture.says("Predicted")


def test_window_and_level_change_by_preset_drag_and_key(
    browser: Any, start_server: Callable[..., Any], tmp_path: Path
) -> None:
    stored = np.zeros((48, 64), np.uint16)
    stored[:, 32:] = 1100  # 100 HU beside -1000 HU
    file = save_dicom(
        make_image(
            stored, Modality="CT", RescaleSlope=1, RescaleIntercept=-1000, WindowCenter=-500,
            WindowWidth=2000, PixelSpacing=[0.5, 0.5],
        ),
        tmp_path / "ct",
    )  # fmt: skip
    picture = Picture.open(browser, start_server(model={"high": 65535.0}).url)
    page = picture.page
    page.set_input_files("#file", file)
    picture.says("Predicted")
    page.uncheck("#show-mask")
    as_delivered = picture.color(50, 40)[0]
    page.select_option("#window", "brain")
    picture.says("Level 40, window 80 HU")
    assert picture.color(50, 40)[0] == 255, "100 HU is beyond 80"
    page.select_option("#window", "bone")
    assert 60 < picture.color(50, 40)[0] < 100, "100 HU in -500 to 1500"
    page.select_option("#window", "as delivered")
    assert abs(picture.color(50, 40)[0] - as_delivered) <= 2
    page.keyboard.press("w")
    picture.drag([(20, 20), (30, 20)])
    assert "window 20" not in page.inner_text("#status"), "wider"
    page.keyboard.press("r")
    picture.drag([(10, 10), (40, 10)])
    picture.says("15.0 mm")
    page.keyboard.press("b")
    page.keyboard.press("ArrowRight")
    picture.says("value 100 HU")
    page.close()


def test_polygon_corners_move_and_regions_grow(picture: Picture) -> None:
    page = picture.page
    open_next(picture)
    page.click("#clear")
    page.keyboard.press("p")
    for corner in ((10, 30), (20, 30), (20, 40), (10, 40)):
        picture.click(*corner)
    picture.drag([(20, 40), (30, 40)])
    picture.says("Corner 3 moved")
    picture.click(10, 30)
    picture.says("Drawn")
    assert picture.area() == pytest.approx(10 * (10 + 20) / 2, abs=8)
    page.click("#clear")
    page.keyboard.press("g")
    picture.click(37, 15)
    picture.says("Region")
    region = picture.area()
    assert 100 < region < 260
    page.keyboard.press(".")
    larger = picture.area()
    assert larger >= region
    page.keyboard.press(",")
    assert picture.area() == region
    page.keyboard.press("Control+z")
    assert picture.area() == 0, "a region is one step"
    picture.click(5, 45)
    picture.says("no region here")


def test_holes_are_filled_and_the_largest_part_stays(picture: Picture) -> None:
    page = picture.page
    open_next(picture)
    page.click("#clear")
    page.keyboard.press("p")
    for corner in ((10, 10), (30, 10), (30, 30), (10, 30)):
        picture.click(*corner)
    page.keyboard.press("Enter")
    assert picture.area() == 400
    page.keyboard.press("e")
    picture.drag([(20, 20), (20.01, 20)])
    holed = picture.area()
    assert holed < 360
    page.keyboard.press("b")
    picture.drag([(50, 40), (52, 40)])
    assert picture.area() > holed
    page.keyboard.press("l")
    assert picture.area() == holed
    page.keyboard.press("f")
    assert picture.area() == 400
    page.click("#undo")
    assert picture.area() == holed


def test_the_largest_part_of_320000_is_found(picture: Picture) -> None:
    """A checkerboard, whose parts are pixels; two of one row are joined."""
    kept = picture.page.evaluate(
        """async () => {
            const { keepLargest } = await import("./raster.js");
            const side = 800;
            const board = new Uint8Array(side * side);
            for (let place = 0; place < board.length; place++) {
                board[place] = (place + Math.floor(place / side)) % 2;
            }
            board[2] = 1;
            const rest = keepLargest(board, { width: side, height: side }, 1);
            return [...rest.keys()].filter((place) => rest[place]);
        }"""
    )
    assert kept == [1, 2, 3, 802]


def test_zoom_stays_when_the_window_changes_and_ends_with_the_case(picture: Picture) -> None:
    page = picture.page
    open_next(picture)
    fitted = picture.scale()
    page.keyboard.press("+")
    zoomed = picture.scale()
    assert zoomed > fitted
    page.set_viewport_size({"width": 1200, "height": 800})
    page.wait_for_timeout(200)
    assert picture.scale() == zoomed
    page.click("#next")
    page.get_by_text("Case case1").wait_for()
    assert picture.scale() < zoomed


def test_the_mask_hides_while_a_key_is_held_and_the_wheel_sets_the_width(picture: Picture) -> None:
    page = picture.page
    open_next(picture)
    outline = picture.color(37.5, 10)
    page.keyboard.down("h")
    assert picture.color(37.5, 10) != outline
    page.keyboard.up("h")
    assert picture.color(37.5, 10) == outline
    page.mouse.move(*picture.at(20, 20))
    page.keyboard.down("Control")
    page.mouse.wheel(0, -100)
    page.keyboard.up("Control")
    picture.says("Width 9")


def test_keys_work_wherever_the_focus_is_but_where_one_types(picture: Picture) -> None:
    page = picture.page
    open_next(picture)
    page.focus("#show-heat")
    page.keyboard.press("b")
    assert page.locator("#tools [data-tool=brush]").get_attribute("aria-pressed") == "true"
    page.keyboard.press("/")
    page.keyboard.type("case1")
    assert page.input_value("#search") == "case1"
    page.locator("#queue [data-case=case0]").wait_for(state="detached")
    page.locator("#view").focus()
    page.keyboard.press("?")
    dialog = page.get_by_role("dialog", name="Keys")
    dialog.wait_for()
    assert dialog.locator("dt").count() > 25
    page.keyboard.press("e")
    assert page.locator("#tools [data-tool=brush]").get_attribute("aria-pressed") == "true"
    page.keyboard.press("Escape")


def test_in_800_by_600_the_picture_comes_first(picture: Picture) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    page = picture.page
    page.get_by_text("3 left").wait_for()
    page.set_viewport_size({"width": 800, "height": 600})
    page.keyboard.press("n")
    picture.says("Predicted")
    box = page.locator("#view").bounding_box()
    assert box["width"] > 700
    assert box["height"] > 300
    assert box["y"] + box["height"] < 600
    page.keyboard.press("s")
    page.get_by_role("alert").get_by_text("Choose the role").wait_for()
    assert page.evaluate("document.activeElement.id") == "role", "its panel opens"
    page.locator("#view").focus()
    page.keyboard.press("j")
    for key, panel in (("j", "work-panel"), ("q", "case-panel")):
        page.keyboard.press(key)
        page.locator(f"#{panel}").wait_for()
        found = axe.Axe().run(page).response["violations"]
        assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in found] == []
    assert not page.is_visible("#work-panel"), "one panel at a time"
    page.keyboard.press("t")
    found = axe.Axe().run(page).response["violations"]
    assert [one["id"] for one in found] == [], "light"


def test_a_stroke_of_15_megapixels_is_shown_at_once(
    browser: Any, start_server: Callable[..., Any], tmp_path: Path
) -> None:
    pixels = np.full((3900, 3900), 20, np.uint8)
    pixels[1000:2500, 900:3000] = 240
    Image.fromarray(pixels).save(tmp_path / "large.png")
    picture = Picture.open(browser, start_server().url)
    page = picture.page
    page.set_input_files("#file", tmp_path / "large.png")
    picture.says("Predicted")
    page.click("[data-tool=brush]")
    page.fill("#size", "60")
    # From the release to the next frame, in which the stroke is drawn.
    page.evaluate(
        """() => {
            window.times = [];
            const view = document.getElementById("view");
            view.addEventListener("pointerup", () => {
                const start = performance.now();
                const note = () => window.times.push(performance.now() - start);
                requestAnimationFrame(() => setTimeout(note));
            }, { capture: true });
        }"""
    )
    for row in range(300, 900, 60):
        before = picture.area()
        picture.drag([(1000, row), (1400, row + 40), (1900, row)])
        assert picture.area() > before
    times = sorted(page.evaluate("window.times"))
    page.close()
    assert len(times) == 10
    assert times[2] < STROKE_MS, times  # other programs only make it longer

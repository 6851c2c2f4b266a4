"""What the page takes: DICOM, several mask classes, fingers and pens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from browsing import Picture
from dicom_phantom import make_image
from dicom_phantom import save as save_dicom
from dxseg.config.network import ModelConfig
from dxseg.data.readers.masks import read_mask
from dxseg.data.table.dataset import Dataset, DatasetSpec
from serving import TOKEN

pytestmark = pytest.mark.slow  # test_page is always run

CLASSES = ["class0", "class1"]
COLORS = [(230, 159, 0), (0, 158, 115)]  # of their outlines


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A dataset of one image: a red square of 10 x 15, and a green one."""
    root = tmp_path / "data"
    (root / "images").mkdir(parents=True)
    pixels = np.full((48, 64, 3), 20, np.uint8)
    pixels[4:14, 30:45, 0] = 240
    pixels[34:44, 4:19, 1] = 240
    Image.fromarray(pixels).save(root / "images/two.png")
    spec = DatasetSpec(
        name="two",
        channels=3,
        labels=["normal", "bright"],
        lesion_free=["normal"],
        mask_classes=CLASSES,
    )
    rows = [("two", "images/two.png", "bright")]
    return Dataset.create(
        root, spec, pd.DataFrame(rows, columns=["case_id", "image", "label"])
    ).root


@pytest.fixture
def two(browser: Any, start_server: Callable[..., Any], root: Path) -> Iterator[Picture]:
    """The page of a model of two classes, its case opened; fingers can touch it."""
    model = {"channels": 3, "classes": 2}
    served = start_server(dataset=root, token=TOKEN, model=model)
    opened = Picture.open(browser, f"{served.url}/#token={TOKEN}", has_touch=True)
    opened.page.click("#next")
    opened.says("Predicted")
    yield opened
    wrong = [told for told in opened.messages if told.startswith("error")]
    opened.page.close()
    assert wrong == []


def areas(picture: Picture) -> list[int]:
    told = picture.page.locator("#areas tbody td").all_inner_texts()
    return [int(text.split()[0]) for text in told]


def alike(color: tuple[int, ...], other: tuple[int, ...]) -> bool:
    return all(abs(one - two) < 40 for one, two in zip(color, other, strict=True))


def test_dicom_of_any_name_is_shown_and_segmented(
    browser: Any, start_server: Callable[..., Any], tmp_path: Path
) -> None:
    pixels = np.full((48, 64), 20, np.uint8)
    pixels[10:20, 30:45] = 240
    names = {"PatientName": "Doe^Jane", "PixelSpacing": [0.5, 0.25]}
    file = save_dicom(make_image(pixels, **names), tmp_path / "IM0001")
    picture = Picture.open(browser, start_server().url)
    picture.page.set_input_files("#file", file)
    picture.says("Predicted: class0")
    assert picture.page.locator("#name").inner_text() == "IM0001"
    area = picture.area()
    assert 100 < area < 200
    assert f"{area * 0.125:.1f} mm²" in picture.page.locator("#areas").inner_text()
    assert alike(picture.color(37.5, 10), COLORS[0]), "the upper edge of the square"
    picture.page.uncheck("#show-mask")
    assert min(picture.color(37.5, 15)) > 200, "the square itself"
    assert max(picture.color(10, 40)) < 60
    assert "Doe" not in picture.page.content()
    picture.page.close()


def test_a_model_without_evidence_maps_offers_none(
    browser: Any, start_server: Callable[..., Any]
) -> None:
    student = ModelConfig(architecture="unet", encoder_init="stage1", label_head=True)
    picture = Picture.open(browser, start_server(model={"model": student}).url)
    page = picture.page
    page.locator("#labels").wait_for()
    assert page.is_visible("#label-prompt")
    assert page.is_hidden("#evidence")
    page.keyboard.press("o")
    picture.says("no class activation maps")
    picture.close()


def test_each_class_has_its_outline_and_is_painted(two: Picture, root: Path) -> None:
    page = two.page
    before = areas(two)
    assert min(before) > 100
    assert alike(two.color(37.5, 4), COLORS[0]), "the upper edge of the red square"
    assert alike(two.color(11.5, 34), COLORS[1]), "the upper edge of the green square"
    swatches = "all => all.map((one) => getComputedStyle(one).backgroundColor)"
    assert page.locator("#areas .swatch").evaluate_all(swatches) == [
        f"rgb({red}, {green}, {blue})" for red, green, blue in COLORS
    ]
    page.click("[data-tool=brush]")
    page.focus("#view")
    page.keyboard.press("2")
    two.says("Class class1")
    assert page.locator("#class").input_value() == "class1"
    page.keyboard.press("3")
    assert page.locator("#class").input_value() == "class1", "there is no third class"
    two.drag([(34, 24), (54, 24)])
    assert areas(two)[0] == before[0]
    assert areas(two)[1] > before[1] + 100
    assert alike(two.color(44, 20), COLORS[1]), "the upper edge of what was painted"
    two.drag([(37, 9), (38, 9)])
    assert areas(two)[0] < before[0] - 50, "a pixel is of one class"
    page.select_option("#class", "class0")
    page.click("[data-tool=polygon]")
    for corner in ((50, 36), (60, 36), (60, 44), (50, 44)):
        two.click(*corner)
    page.keyboard.press("Enter")
    drawn = areas(two)
    page.select_option("#role", "radiologist")
    page.click("#save")
    two.says("Saved as")
    dataset = Dataset.load(root)
    path = dataset.mask_path(dataset.cases.iloc[0])
    assert path is not None
    mask = read_mask(path, 2)
    assert [int((mask == value).sum()) for value in (1, 2)] == drawn
    assert (mask[24, 34:55] == 2).all(), "brush"
    assert (mask[36:44, 50:60] == 1).all(), "polygon"
    assert (mask[9, 37], mask[9, 32], mask[39, 10]) == (2, 1, 2)


def test_one_finger_draws_and_two_move_and_zoom(two: Picture) -> None:
    page = two.page
    page.click("[data-tool=brush]")
    before, scale = areas(two), two.scale()
    two.touch([(6, 22), (14, 22), (22, 22)])
    drawn = areas(two)
    assert drawn[0] > before[0] + 100
    middle = two.at(32, 24)
    two.touch([(22, 24), (17, 24), (12, 24)], [(42, 24), (47, 24), (52, 24)])
    assert two.scale() == pytest.approx(2 * scale, rel=0.01)
    assert two.at(32, 24) == pytest.approx(middle, abs=1)
    two.touch([(32, 24), (30, 22), (28, 20), (26, 18)], [None, None, (38, 20), (36, 18)])
    assert areas(two) == drawn, "what the first finger began is forgotten"
    assert two.scale() == pytest.approx(2 * scale, rel=0.01)
    assert page.is_disabled("#redo")
    page.click("[data-tool=move]")
    place = two.at(32, 24)
    two.touch([(32, 24), (34, 26)])
    moved = two.at(32, 24)
    assert (moved[0] - place[0], moved[1] - place[1]) == pytest.approx(
        (4 * scale, 4 * scale), abs=1.5
    )
    page.click("[data-tool=polygon]")
    for corner in ((24, 20), (30, 20), (30, 26)):
        two.touch([corner])
    page.keyboard.press("Enter")
    assert areas(two)[0] > drawn[0]


def test_a_pen_draws_while_the_hand_rests(two: Picture) -> None:
    page = two.page
    page.click("[data-tool=brush]")
    before = areas(two)
    two.pen([(6, 22), (22, 22)])
    drawn = areas(two)
    assert drawn[0] > before[0] + 100
    place = two.at(32, 24)
    two.touch([(32, 24), (34, 24)])
    assert areas(two) == drawn, "a finger does not draw beside a pen"
    assert two.at(32, 24)[0] > place[0] + 10, "it moves the picture"
    place = two.at(32, 24)
    two.pen([(6, 28), (22, 28)], meanwhile=lambda: two.touch([(50, 30), (56, 40)]))
    assert two.at(32, 24) == place, "the hand that holds the pen does nothing"
    assert areas(two)[0] > drawn[0] + 50


def test_the_other_end_of_a_pen_erases(two: Picture) -> None:
    before = areas(two)
    # Chromium's protocol has no such button, so the events are made by the page.
    two.page.locator("#view").evaluate(
        """(view, [[x, y], [toX, toY]]) => {
            const pen = { pointerId: 1, pointerType: "pen", buttons: 32 };
            const send = (name, clientX, clientY, button) =>
                view.dispatchEvent(new PointerEvent(name, { ...pen, button, clientX, clientY }));
            send("pointerdown", x, y, 5);
            send("pointermove", toX, toY, -1);
            send("pointerup", toX, toY, 5);
        }""",
        [two.at(30, 9), two.at(44, 9)],
    )
    after = areas(two)
    assert after[0] < before[0] - 80, "whatever the tool"
    assert after[1] == before[1]


def test_axe_finds_nothing_with_several_classes(two: Picture) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    two.page.keyboard.press("?")
    two.page.get_by_role("dialog", name="Keys").wait_for()
    found = axe.Axe().run(two.page).response["violations"]
    assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in found] == []

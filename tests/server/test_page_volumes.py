"""Volumes on the page: slices are scrolled, corrected, copied to the next, and saved together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

import dicom_phantom
import volume_phantom
from browsing import Picture
from dxseg.commands.import_volumes import import_volumes
from dxseg.data.readers.masks import read_mask
from dxseg.data.readers.slicing import Slicing
from dxseg.data.table.dataset import Dataset
from serving import TOKEN, until, volumes

pytestmark = pytest.mark.slow  # test_page is always run

SLICING = Slicing(axis="axial", window=(0.0, 200.0))


@pytest.fixture
def viewer(browser: Any, start_server: Callable[..., Any]) -> Iterator[Picture]:
    """The page of a server without a dataset, whose model predicts slices."""
    opened = Picture.open(browser, start_server(model={"slicing": SLICING}).url)
    opened.page.locator("#labels").wait_for()
    yield opened
    opened.close()


@pytest.fixture
def picture(browser: Any, start_server: Callable[..., Any], tmp_path: Path) -> Iterator[Picture]:
    """The page of a server with volumes."""
    root = volumes(tmp_path / "data").root
    opened = Picture.open(browser, f"{start_server(dataset=root, token=TOKEN).url}/#token={TOKEN}")
    opened.page.get_by_text("3 left").wait_for()
    yield opened
    opened.close()


def ct(folder: Path) -> Path:
    hounsfield, _ = volume_phantom.ct()
    return volume_phantom.save(folder / "ct.nii.gz", hounsfield)


def on_slice(picture: Picture, number: int) -> None:
    from playwright.sync_api import expect

    expect(picture.page.locator("#slice-text")).to_contain_text(f"{number} of")
    expect(picture.page.locator("#view")).not_to_have_attribute("aria-busy", "true")


def wheel(picture: Picture, delta: float) -> None:
    picture.page.mouse.move(*picture.at(3, 3))
    picture.page.mouse.wheel(0, delta)


def mask_of(root: Path, case_id: str) -> np.ndarray | None:
    dataset = Dataset.load(root)
    path = dataset.mask_path(dataset.cases.set_index("case_id", drop=False).loc[case_id])
    return None if path is None else read_mask(path, 1)


def test_the_wheel_scrolls_slices_and_zoom_stays(viewer: Picture, tmp_path: Path) -> None:
    viewer.drop(ct(tmp_path))
    on_slice(viewer, 6)
    before = viewer.scale()
    wheel(viewer, 120)
    on_slice(viewer, 7)
    assert viewer.scale() == before
    viewer.page.keyboard.down("Control")
    wheel(viewer, -120)
    viewer.page.keyboard.up("Control")
    on_slice(viewer, 7)
    assert viewer.scale() > before
    zoomed = viewer.scale()
    viewer.page.keyboard.press("PageUp")
    on_slice(viewer, 6)
    assert viewer.scale() == zoomed
    viewer.page.select_option("#window", "whole range")
    viewer.page.keyboard.press("PageDown")
    on_slice(viewer, 7)
    level = viewer.page.evaluate("document.querySelector('#window').value")
    assert level == "whole range", "the window stays too"
    viewer.page.locator("#slice").fill("1")
    on_slice(viewer, 1)
    viewer.page.keyboard.press("PageUp")
    viewer.says("The first slice")


def test_a_label_map_holds_what_is_drawn_and_what_is_predicted(
    viewer: Picture, tmp_path: Path
) -> None:
    page = viewer.page
    viewer.drop(ct(tmp_path))
    on_slice(viewer, 6)
    page.click("#clear")
    page.click("[data-tool=polygon]")
    for corner in ((4, 4), (8, 4), (8, 9), (4, 9)):
        viewer.click(*corner)
    wheel(viewer, 120)
    viewer.says("Finish or cancel")
    page.keyboard.press("Enter")
    viewer.says("Drawn: class0 20")
    page.keyboard.press("u")
    on_slice(viewer, 7)
    viewer.says("As on slice 6: class0 20")
    page.click("#undo")
    assert viewer.area() != 20, "what was predicted there is not lost"
    page.click("#redo")
    wheel(viewer, -120)
    on_slice(viewer, 6)
    viewer.says("As you left it: class0 20")
    assert "2 not saved" in page.inner_text("#slice-text")
    with page.expect_download() as download:
        page.click("#label-map")
    viewer.says("Label map: 2 slices as drawn, 8 as predicted")
    path = tmp_path / "labels.nii.gz"
    download.value.save_as(path)
    labels = nibabel.load(path)
    assert np.array_equal(labels.affine, nibabel.load(tmp_path / "ct.nii.gz").affine)
    found = np.asarray(labels.dataobj)
    assert (found[:, :, 5].sum(), found[:, :, 6].sum()) == (20, 20)
    assert np.array_equal(np.unique(np.argwhere(found[:, :, 5])[:, 0]), 31 - np.arange(7, 3, -1))
    assert found[:, :, 4].sum() > 20
    assert "not saved" not in page.inner_text("#slice-text")


def test_a_label_map_of_a_volume_of_the_dataset_says_what_it_holds(
    browser: Any, start_server: Callable[..., Any], tmp_path: Path
) -> None:
    source, root = ct(tmp_path / "source"), tmp_path / "data"
    import_volumes(source.parent, root, name="data", mask_values={1: "class0"}, axis="axial")
    picture = Picture.open(browser, f"{start_server(dataset=root, token=TOKEN).url}/#token={TOKEN}")
    page = picture.page
    page.get_by_text("1 left").wait_for()
    page.select_option("#role", "trainee")
    page.keyboard.press("n")
    on_slice(picture, 6)
    picture.says("Predicted")
    page.click("#clear")
    page.click("[data-tool=polygon]")
    for corner in ((4, 4), (8, 4), (8, 9), (4, 9)):
        picture.click(*corner)
    page.keyboard.press("Enter")
    picture.says("Drawn: class0 20")
    page.keyboard.press("PageDown")
    on_slice(picture, 7)
    picture.says("Predicted")
    with page.expect_download():
        page.keyboard.press("k")
    picture.says("1 slices as drawn and not saved, 0 as in the dataset, 1 as predicted, 8 empty")
    assert "1 not saved" in page.inner_text("#slice-text"), "a file does not replace saving"
    page.keyboard.press("s")
    picture.says("2 slices saved")
    with page.expect_download() as download:
        page.keyboard.press("k")
    picture.says("0 slices as drawn and not saved, 2 as in the dataset, 0 as predicted, 8 empty")
    download.value.save_as(tmp_path / "labels.nii.gz")
    labels = nibabel.load(tmp_path / "labels.nii.gz")
    assert np.array_equal(labels.affine, nibabel.load(source).affine)
    assert np.asarray(labels.dataobj)[:, :, 5].sum() == 20
    picture.page.close()


def test_a_volume_without_a_record_has_no_label_map(picture: Picture) -> None:
    picture.page.keyboard.press("n")
    on_slice(picture, 4)
    picture.says("Predicted")
    picture.page.keyboard.press("k")
    picture.page.locator("#problem").get_by_text("import the source again").wait_for()


def test_leaving_a_volume_that_is_in_no_label_map_is_asked_about(
    viewer: Picture, tmp_path: Path
) -> None:
    path = ct(tmp_path)
    viewer.drop(path)
    on_slice(viewer, 6)
    viewer.page.click("#clear")
    viewer.page.keyboard.press("PageDown")
    on_slice(viewer, 7)
    viewer.drop(path)
    dialog = viewer.page.get_by_role("dialog")
    dialog.get_by_role("button", name="Stay").click()
    assert "1 not saved" in viewer.page.inner_text("#slice-text")
    viewer.drop(path)
    dialog.get_by_role("button", name="Leave it").click()
    on_slice(viewer, 6)
    assert "not saved" not in viewer.page.inner_text("#slice-text")


def test_a_volume_that_the_server_has_closed_is_sent_again(viewer: Picture, tmp_path: Path) -> None:
    viewer.drop(ct(tmp_path))
    on_slice(viewer, 6)
    viewer.page.click("#clear")
    viewer.page.route(
        "**/v1/volumes/slice",
        lambda route: route.continue_(
            post_data={**route.request.post_data_json, "volume": "of-before"}
        ),
        times=1,
    )
    viewer.page.locator("#slice").fill("1")
    on_slice(viewer, 1)
    viewer.says("Predicted")
    viewer.page.locator("#slice").fill("6")
    on_slice(viewer, 6)
    assert viewer.area() == 0, "what was drawn stays"


def test_frames_of_a_cine_loop_scroll(browser: Any, start_server: Any, tmp_path: Path) -> None:
    frames = np.full((4, 32, 32), 10, np.uint8)
    for index in range(4):
        frames[index, 4:12, 4 : 12 + index] = 250
    path = dicom_phantom.save(dicom_phantom.make_image(frames), tmp_path / "cine")
    opened = Picture.open(browser, start_server().url)
    opened.drop(path)
    on_slice(opened, 3)
    areas = []
    for number in range(1, 5):
        opened.page.locator("#slice").fill(str(number))
        on_slice(opened, number)
        opened.says("class0")
        areas.append(opened.area())
    assert areas == sorted(set(areas))
    opened.page.close()


def test_a_series_is_opened_from_its_files(viewer: Picture, tmp_path: Path) -> None:
    hounsfield = np.full((5, 16, 20), -1000, np.int16)
    hounsfield[2, 4:8, 3:9] = 90
    paths = [
        dicom_phantom.save(ds, tmp_path / f"{number}")
        for number, ds in enumerate(dicom_phantom.make_series(hounsfield))
    ]
    viewer.page.set_input_files("#file", paths)
    on_slice(viewer, 3)
    viewer.says("Predicted: class0")
    assert viewer.area() > 0
    assert viewer.page.inner_text("#name") == "5 files"
    viewer.page.set_input_files("#file", [*paths[:2], ct(tmp_path)])
    viewer.page.locator("#failure").get_by_text("not all DICOM").wait_for()
    assert not viewer.page.is_visible("#slices")


def test_slices_of_a_volume_of_the_dataset_are_saved_together(
    picture: Picture, tmp_path: Path
) -> None:
    page, root = picture.page, tmp_path / "data"
    page.select_option("#role", "trainee")
    names = page.locator("#queue button").all_inner_texts()
    assert names == ["right, 6 slices, 6 left", "left, 6 slices, 6 left", "single"]
    page.keyboard.press("n")
    on_slice(picture, 4)
    picture.says("Predicted")
    page.keyboard.press("Delete")
    page.keyboard.press("u")
    on_slice(picture, 5)
    picture.says("As on slice 4: class0 0")
    page.keyboard.press("PageDown")
    on_slice(picture, 6)
    page.locator("#view").focus()
    page.keyboard.press("s")
    picture.says("3 slices saved")
    for name in ("right3", "right4", "right5"):
        assert mask_of(root, name).sum() == 0
    assert mask_of(root, "right2") is None
    page.keyboard.press("Home")
    page.locator("#slice").fill("3")
    on_slice(picture, 3)
    page.keyboard.press("Shift+S")
    dialog = page.get_by_role("dialog")
    dialog.get_by_text("Save 1 slices as they were shown? 2 that were not").wait_for()
    dialog.get_by_role("button", name="Save them").click()
    page.get_by_text("Case left3").wait_for()
    assert mask_of(root, "right2").sum() > 0


def test_drafts_of_several_slices_outlive_the_page(picture: Picture, tmp_path: Path) -> None:
    page = picture.page
    page.keyboard.press("n")
    on_slice(picture, 4)
    picture.says("Predicted")
    page.keyboard.press("Delete")
    page.keyboard.press("u")
    on_slice(picture, 5)
    picture.says("As on slice 4")
    page.on("dialog", lambda dialog: dialog.accept())
    page.reload()
    kept = page.locator("#drafts-list button")
    kept.first.wait_for()
    assert sorted(kept.all_inner_texts()) == ["right3", "right4"]
    kept.get_by_text("right3").click()
    on_slice(picture, 4)
    page.get_by_role("group", name="Draft").get_by_text("Continue").click()
    picture.says("Draft")
    assert picture.area() == 0


def test_a_fast_wheel_does_not_predict_what_it_passes(picture: Picture) -> None:
    page = picture.page
    page.keyboard.press("n")
    on_slice(picture, 4)
    picture.says("Predicted")
    page.wait_for_timeout(300)
    asked: list[str] = []
    page.on("request", lambda sent: asked.append(sent.url) if "predict" in sent.url else None)
    for _ in range(12):
        wheel(picture, -120)
    on_slice(picture, 1)
    until(lambda: picture.page.wait_for_timeout(20) or picture.area() >= 0)
    assert len(asked) <= 6, "each slice once at most"


def test_axe_finds_nothing_on_a_volume(picture: Picture) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    picture.page.keyboard.press("n")
    on_slice(picture, 4)
    picture.says("Predicted")
    found = axe.Axe().run(picture.page).response["violations"]
    assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in found] == []

"""Masks of images with an EXIF orientation lie on the lesion, or nobody has guessed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dxseg.commands.imports import import_folder
from dxseg.data.importers.report import ImportReport
from dxseg.data.readers.images import read_image
from dxseg.data.readers.masks import read_mask
from dxseg.data.readers.orientation import as_shown
from dxseg.data.table.dataset import Dataset


def write(folder: Path, name: str, orientation: int, on_shown: bool, side: int = 40) -> None:
    """An image of a bright lesion, and its mask: drawn as shown, or on the stored pixels."""
    image = np.full((30, side, 3), 60, np.uint8)
    image[4:12, 5:20] = 240
    mask = (image[:, :, 0] > 200).astype(np.uint8) * 255
    exif = Image.Exif()
    exif[274] = orientation
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(folder / f"{name}.png", exif=exif)
    drawn = as_shown(mask, orientation) if on_shown else mask
    Image.fromarray(np.ascontiguousarray(drawn)).save(folder / f"{name}_mask.png")


def overlaps(report: ImportReport) -> list[bool | None]:
    """Whether the mask of each case is exactly its lesion; None without a mask."""
    dataset = Dataset.load(report.destination)
    found: list[bool | None] = []
    for row in dataset.cases.itertuples():
        path = dataset.mask_path(row)
        bright = read_image(dataset.image_path(row))[:, :, 0] > 200
        found.append(None if path is None else np.array_equal(read_mask(path, 1) > 0, bright))
    return found


def told(report: ImportReport, text: str) -> bool:
    return any(text in note for note in report.notes)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_masks_drawn_on_the_picture_as_shown_fit(tmp_path: Path, orientation: int) -> None:
    write(tmp_path / "in/lesion", "a", orientation, on_shown=True)
    report = import_folder(tmp_path / "in", tmp_path / "out")
    assert overlaps(report) == [True]
    assert told(report, "1 images have an EXIF orientation") == (orientation != 1)
    assert told(report, "1 masks fit such an image both") == (orientation in (2, 3, 4))


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_masks_on_stored_pixels_are_turned(tmp_path: Path, orientation: int) -> None:
    write(tmp_path / "in/lesion", "a", orientation, on_shown=False)
    report = import_folder(tmp_path / "in", tmp_path / "out")
    assert overlaps(report) == [True]
    assert told(report, "1 masks drawn on the stored pixels of such images, turned")


@pytest.mark.parametrize("on_shown", [True, False])
def test_what_the_shape_does_not_tell_the_other_masks_do(tmp_path: Path, on_shown: bool) -> None:
    write(tmp_path / "in/lesion", "a", 3, on_shown)
    write(tmp_path / "in/lesion", "b", 6, on_shown)
    write(tmp_path / "in/lesion", "c", 8, on_shown, side=30)
    assert overlaps(import_folder(tmp_path / "in", tmp_path / "out")) == [True] * 3


def test_masks_of_both_kinds_are_not_guessed(tmp_path: Path) -> None:
    write(tmp_path / "in/lesion", "a", 3, on_shown=True)
    write(tmp_path / "in/lesion", "b", 6, on_shown=True)
    write(tmp_path / "in/lesion", "c", 6, on_shown=False)
    report = import_folder(tmp_path / "in", tmp_path / "out")
    assert overlaps(report) == [None, True, True]
    [(path, reason)] = report.skipped
    assert path.endswith("a_mask.png")
    assert "exiftool" in reason


def test_several_masks_of_an_image_are_turned_and_merged(tmp_path: Path) -> None:
    write(tmp_path / "in/lesion", "a", 6, on_shown=False)
    stored = np.asarray(Image.open(tmp_path / "in/lesion/a_mask.png")).copy()
    for number, rows in enumerate([slice(0, 8), slice(8, 30)], 1):
        part = np.zeros_like(stored)
        part[rows] = stored[rows]
        Image.fromarray(part).save(tmp_path / f"in/lesion/a_mask_{number}.png")
    (tmp_path / "in/lesion/a_mask.png").unlink()
    report = import_folder(tmp_path / "in", tmp_path / "out")
    assert overlaps(report) == [True]
    assert report.merged == ["a"]

"""Which file an annotated image is: never one of another image with the same base name."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dxseg.commands.import_annotations import import_annotations
from dxseg.data.importers.report import ImportReport
from dxseg.data.table.dataset import Dataset

SQUARE = [2, 2, 6, 2, 6, 6, 2, 6]


def imported(
    folder: Path, on_disk: list[str], *listed: list[str], files: str = "{}.json"
) -> ImportReport:
    """Import squares on the images of some COCO files."""
    for name in on_disk:
        path = folder / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.arange(100, dtype=np.uint8).reshape(10, 10)).save(path)
    for number, names in enumerate(listed):
        content = {
            "images": [{"id": n, "file_name": name} for n, name in enumerate(names)],
            "categories": [{"id": 1, "name": "polyp"}],
            "annotations": [
                {"id": n, "image_id": n, "category_id": 1, "segmentation": [SQUARE]}
                for n in range(len(names))
            ],
        }
        path = folder / "in" / files.format(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
    return import_annotations(folder / "in", folder / "out")


def images(folder: Path) -> list[str]:
    return sorted(Dataset.load(folder / "out").cases["image"])


@pytest.mark.parametrize("listed", [["P1/0001.png", "P2/0001.png"], ["P2/0001.png", "P1/0001.png"]])
@pytest.mark.parametrize("there", ["P1/0001.png", "all/p1/0001.png"])
def test_an_absent_image_is_not_another_of_its_base_name(
    tmp_path: Path, listed: list[str], there: str
) -> None:
    report = imported(tmp_path, [there], listed)
    assert images(tmp_path) == [there]
    assert [name for name, _ in report.skipped] == ["P2/0001.png"]
    assert any("1 shapes drawn" in note for note in report.notes)
    assert report.failed


def test_names_with_more_folders_than_the_disk_are_found(tmp_path: Path) -> None:
    report = imported(tmp_path, ["P1/a.png", "b.png"], ["C:\\all\\P1\\a.png", "/all/P3/b.png"])
    assert images(tmp_path) == ["P1/a.png", "b.png"]
    assert not report.skipped


def test_two_names_that_lead_to_one_file_by_its_base_name_are_left_out(tmp_path: Path) -> None:
    report = imported(tmp_path, ["0001.png", "b.png"], ["P1/0001.png", "P2/0001.png", "b.png"])
    assert images(tmp_path) == ["b.png"]
    assert [name for name, _ in report.skipped] == ["P1/0001.png", "P2/0001.png"]
    assert all("an entry of another name" in reason for _, reason in report.skipped)


def test_one_name_in_two_folders_of_annotations_may_be_two_images(tmp_path: Path) -> None:
    report = imported(
        tmp_path,
        ["images/P1/a.png", "b.png"],
        ["a.png"],
        ["a.png", "b.png"],
        files="json/P{}/a.json",
    )
    assert images(tmp_path) == ["b.png"]
    assert [name for name, _ in report.skipped] == ["a.png", "a.png"]


def test_one_name_in_two_files_is_one_image(tmp_path: Path) -> None:
    report = imported(tmp_path, ["sub/a.png"], ["a.png"], ["a.png"])
    assert images(tmp_path) == ["sub/a.png"]
    assert not report.skipped

"""An image one of whose masks is left out: the rest is not its mask, which is unknown."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dicom_phantom import plain_segmentation
from dxseg.commands.import_csv import import_csv
from dxseg.commands.import_dicom import import_dicom
from dxseg.data.table.dataset import Dataset


def picture(path: Path, side: int = 12) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((side, 9), np.uint8)
    pixels[2:5, 2:5] = 255
    Image.fromarray(pixels).save(path)


@pytest.mark.parametrize("fault", ["absent", "damaged", "other size"])
def test_an_image_that_lacks_one_of_several_masks_has_none(tmp_path: Path, fault: str) -> None:
    source = tmp_path / "s"
    for name in ("a", "b", "a_1", "b_1", "b_2"):
        picture(source / f"{name}.png")
    if fault != "absent":
        picture(source / "a_2.png", side=10)
    if fault == "damaged":
        (source / "a_2.png").write_bytes(b"")
    rows = [f"{name}.png,{name}_{number}.png" for name in "ab" for number in (1, 2)]
    (source / "t.csv").write_text("\n".join(["image,mask", *rows]))
    columns = {"image": "image", "mask": "mask"}
    report = import_csv(source / "t.csv", tmp_path / "out", columns=columns)
    assert Dataset.load(tmp_path / "out").cases["mask"].tolist() == ["", "masks/b_merged.png"]
    reasons = {Path(name).name: reason for name, reason in report.skipped}
    assert set(reasons) == {"a_1.png", "a_2.png"}
    assert "another mask of its image is left out" in reasons["a_1.png"]
    assert not report.failed


def test_a_segmentation_that_cannot_be_drawn_leaves_the_mask_unknown(
    image: Callable[..., Any], store: Callable[..., Path], tmp_path: Path
) -> None:
    pictures = [image(np.full((12, 9), value, np.uint8), PatientID="P") for value in (50, 90)]
    mask = np.zeros((12, 9), np.uint8)
    mask[2:7, 3:6] = 1
    fractional = plain_segmentation(pictures[0], mask)
    fractional.SegmentationType = "FRACTIONAL"
    drawn = [plain_segmentation(ds, mask) for ds in pictures]
    report = import_dicom(store([*pictures, *drawn, fractional]), tmp_path / "data")
    assert Dataset.load(tmp_path / "data").cases["mask"].ne("").sum() == report.masks == 1
    reasons = [reason for _, reason in report.skipped]
    assert any("not a binary segmentation" in reason for reason in reasons)
    assert any("another mask of its image is left out" in reason for reason in reasons)

"""Masks go out as COCO and come back the same, by pycocotools and by our own importer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from brightness import Maker
from dxseg.commands.export import export_coco
from dxseg.commands.import_annotations import import_annotations
from dxseg.commands.imports import import_folder
from dxseg.data.readers.masks import read_mask
from dxseg.data.table.dataset import Dataset
from dxseg.errors import DxsegError
from dxseg.inference.files.predict import predict_files

MASK = np.zeros((20, 30), np.uint8)
MASK[2:6, 3:9] = 255
MASK[6, 9] = 255  # touches by a corner: the same lesion
MASK[12:18, 20:22] = 255


def write(path: Path, pixels: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def decoded(content: dict[str, Any]) -> dict[str, np.ndarray]:
    coco = pytest.importorskip("pycocotools.mask")
    masks = {}
    for image in content["images"]:
        mask = np.zeros((image["height"], image["width"]), np.uint8)
        for item in content["annotations"]:
            if item["image_id"] == image["id"]:
                inside = coco.decode(item["segmentation"])
                assert item["area"] == inside.sum() == coco.area(item["segmentation"])
                assert item["bbox"] == coco.toBbox(item["segmentation"]).tolist()
                mask |= inside * np.uint8(item["category_id"])
        masks[image["file_name"]] = mask
    return masks


def test_a_dataset_comes_back_through_pycocotools_and_our_importer(tmp_path: Path) -> None:
    gray = np.random.default_rng(0).integers(0, 200, (20, 30)).astype(np.uint8)
    for name in ("lesion/a", "lesion/unknown", "normal/b"):
        write(tmp_path / f"in/{name}.png", gray + len(name))
    write(tmp_path / "in/lesion/a_mask.png", MASK)
    import_folder(tmp_path / "in", tmp_path / "data", lesion_free=["normal"])
    report = export_coco(tmp_path / "data", tmp_path / "coco.json")
    assert (report.images, report.annotations, report.unknown) == (2, 2, 1)
    content = json.loads((tmp_path / "coco.json").read_text("utf-8"))
    assert content["categories"] == [{"id": 1, "name": "lesion"}]
    found = decoded(content)
    assert set(found) == {"lesion/a.png", "normal/b.png"}
    np.testing.assert_array_equal(found["lesion/a.png"], MASK // 255)
    assert not found["normal/b.png"].any()
    import_annotations(
        tmp_path / "coco.json",
        tmp_path / "again",
        images_root=tmp_path / "in",
        lesion_free=["normal"],
    )
    again = Dataset.load(tmp_path / "again")
    rows = {row.case_id: row for row in again.cases.itertuples()}
    path = again.mask_path(rows["a"])
    assert path is not None
    np.testing.assert_array_equal(read_mask(path, 1), MASK // 255)
    assert rows["b"].label == "normal"
    with pytest.raises(DxsegError, match="exists"):
        export_coco(tmp_path / "data", tmp_path / "coco.json")


def test_predicted_masks_have_a_score(tmp_path: Path) -> None:
    bright = np.full((32, 32), 10, np.uint8)
    bright[4:12, 8:20] = 250
    write(tmp_path / "in/sub/a.png", bright)
    write(tmp_path / "in/dark.png", np.full((32, 32), 10, np.uint8))
    (tmp_path / "in/bad.png").write_bytes(b"no image")
    predict_files(Maker()(), [tmp_path / "in"], tmp_path / "out")
    report = export_coco(tmp_path / "out", tmp_path / "coco.json")
    assert (report.images, report.annotations, report.unknown) == (2, 1, 1)
    content = json.loads((tmp_path / "coco.json").read_text("utf-8"))
    written = np.asarray(Image.open(tmp_path / "out/masks/sub/a.png"))
    np.testing.assert_array_equal(decoded(content)["sub/a.png"], written // 255)
    [annotation] = content["annotations"]
    assert 0.5 < annotation["score"] <= 1

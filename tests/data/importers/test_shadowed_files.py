"""Files in the dataset's folder are searched first: none may stand for a file of the source."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dxseg.commands.import_csv import import_csv
from dxseg.data.table.dataset import Dataset
from dxseg.errors import DxsegError

COLUMNS = {"image": "image", "mask": "mask"}


def picture(path: Path, value: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((8, 9), np.uint8)
    pixels[2:5, 2:5] = value
    Image.fromarray(pixels).save(path)


@pytest.mark.parametrize("name", ["masks/a.png", "images/a.png"])
def test_a_file_left_by_an_earlier_import_is_not_read_instead(tmp_path: Path, name: str) -> None:
    source, out = tmp_path / "s", tmp_path / "out"
    picture(source / "images/a.png", 50)
    picture(source / "masks/a.png", 255)
    (source / "t.csv").write_text("image,mask\nimages/a.png,masks/a.png\n")
    import_csv(source / "t.csv", out, columns=COLUMNS)
    before = (out / "dataset.yaml").read_bytes()
    import_csv(source / "t.csv", out, columns=COLUMNS, overwrite=True)
    picture(out / name, 200)
    with pytest.raises(DxsegError, match=rf"{name}: is there already.*choose a new destination"):
        import_csv(source / "t.csv", out, columns=COLUMNS, overwrite=True)
    assert (out / "dataset.yaml").read_bytes() == before
    assert len(Dataset.load(out)) == 1


def test_files_that_an_import_writes_do_not_stop_it_from_being_repeated(tmp_path: Path) -> None:
    source = tmp_path / "s"
    for number in (1, 2):
        picture(source / f"masks/a{number}.png", 255)
    picture(source / "images/a.png", 50)
    (source / "t.csv").write_text(
        "image,mask\nimages/a.png,masks/a1.png\nimages/a.png,masks/a2.png\n"
    )
    for overwrite in (False, True):
        report = import_csv(
            source / "t.csv", tmp_path / "out", columns=COLUMNS, overwrite=overwrite
        )
        assert report.merged == ["a"]

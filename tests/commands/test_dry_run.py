"""A dry run reports what the import would do, and leaves nothing behind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dxseg.commands.app import run
from dxseg.commands.import_layout import find_importer
from dxseg.commands.imports import import_folder
from dxseg.errors import DxsegError


def test_a_dry_run_reports_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    mask = np.zeros((12, 10), np.uint8)
    mask[3:6, 3:6] = 255
    (tmp_path / "in/x").mkdir(parents=True)
    for number in range(7):
        path = tmp_path / f"in/x/{number}.png"
        Image.fromarray(rng.integers(0, 256, (12, 10), np.uint8)).save(path)
        Image.fromarray(mask).save(path.with_name(f"{number}_mask.png"))
    before = sorted(tmp_path.rglob("*"))
    words = ["import", "folder", str(tmp_path / "in"), str(tmp_path / "out"), "--dry-run"]
    assert run(words) == 0
    printed = capsys.readouterr().out
    assert "7 images (7 x), 7 with a mask file" in printed
    assert printed.count(" <- x/") == 5
    assert "x/0.png <- x/0_mask.png, x" in printed
    assert "nothing was written" in printed
    report = import_folder(tmp_path / "in", tmp_path / "out", dry_run=True)
    assert (report.destination, report.dry_run) == (tmp_path / "out", True)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_alone_names_its_importer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (12, 10), np.uint8)
    for name in ("images/a.png", "images/b.png"):
        (tmp_path / "kv/masks").mkdir(parents=True, exist_ok=True)
        (tmp_path / "kv/images").mkdir(exist_ok=True)
        Image.fromarray(noise).save(tmp_path / "kv" / name)
    Image.fromarray((noise > 127) * np.uint8(255)).save(tmp_path / "kv/masks/a.png")
    before = sorted(tmp_path.rglob("*"))
    assert run(["import", str(tmp_path / "kv")]) == 0
    printed = capsys.readouterr().out
    assert "2 images, 1 with a mask" in printed
    assert "images/a.png <- masks/a.png" in printed
    assert f"dxseg import folder {tmp_path / 'kv'} data/kv" in printed
    assert sorted(tmp_path.rglob("*")) == before
    assert run(["import", str(tmp_path / "absent")]) == 1
    assert run(["import"]) == 2


@pytest.mark.parametrize(
    ("files", "importer"),
    [
        (["case/ct.nii.gz"], "volumes"),
        (["benign/a.png", "malignant/b.png", "normal/c.png"], "busi"),
        (["dataset.json", "imagesTr/a.nii.gz"], "msd"),
        (["list.csv"], None),
    ],
)
def test_layouts_are_recognized(tmp_path: Path, files: list[str], importer: str | None) -> None:
    for name in files:
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(b"{}")
    if importer is None:
        with pytest.raises(DxsegError, match="no image"):
            find_importer(tmp_path / "in")
        assert find_importer(tmp_path / "in/list.csv").importer == "csv"
    else:
        assert find_importer(tmp_path / "in").importer == importer

"""Class, color and structure masks: what is asked for becomes the class, what is not is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dxseg.commands.app import run
from dxseg.commands.imports import import_folder
from dxseg.data.readers.masks import read_mask
from dxseg.data.table.dataset import Dataset
from dxseg.errors import UsageError

PLAIN = np.zeros((24, 20), np.uint8)
PLAIN[4:10, 3:9] = 1
PLAIN[14:20, 8:16] = 2


def folder(root: Path, mask: np.ndarray, suffix: str = ".png", **options: int) -> Path:
    """Two images with a mask each."""
    rng = np.random.default_rng(0)
    (root / "x").mkdir(parents=True)
    for name in "ab":
        Image.fromarray(rng.integers(0, 256, (24, 20), np.uint8)).save(root / f"x/{name}.png")
        Image.fromarray(mask).save(root / f"x/{name}_mask{suffix}", **options)
    return root


def masks(destination: Path) -> list[np.ndarray]:
    dataset = Dataset.load(destination)
    classes = len(dataset.spec.mask_classes)
    return [read_mask(dataset.mask_path(row), classes) for row in dataset.cases.itertuples()]


def test_values_are_the_classes_that_are_asked_for(tmp_path: Path) -> None:
    source = folder(tmp_path / "s", PLAIN * 3)
    report = import_folder(source, tmp_path / "both", mask_classes=["6=edema", "3=fluid"])
    assert Dataset.load(tmp_path / "both").spec.mask_classes == ["edema", "fluid"]
    for mask in masks(tmp_path / "both"):
        np.testing.assert_array_equal(mask, np.select([PLAIN == 2, PLAIN == 1], [1, 2]))
    assert (report.repaired, report.failed) == ([], [])
    report = import_folder(source, tmp_path / "one", mask_classes=["3=fluid"])
    for mask in masks(tmp_path / "one"):
        np.testing.assert_array_equal(mask, PLAIN == 1)
    assert "48 pixels of other values (6) are background" in report.repaired[0][1]


def test_a_dark_value_is_a_class_by_its_number(tmp_path: Path) -> None:
    source = folder(tmp_path / "s", (PLAIN > 0) * np.uint8(76), ".tif")
    words = ["import", "folder", str(source), str(tmp_path / "refused")]
    assert run(words) == 1
    assert run([*words[:3], str(tmp_path / "read"), "--mask-class", "76=lesion"]) == 0
    for mask in masks(tmp_path / "read"):
        np.testing.assert_array_equal(mask, PLAIN > 0)


def test_a_value_is_of_no_color_mask_and_not_of_the_transparency(tmp_path: Path) -> None:
    drawn = (PLAIN > 0) * np.uint8(255)
    red_green = np.array([(0, 0, 0), (255, 0, 0), (0, 255, 0)], np.uint8)[PLAIN]
    transparent = np.dstack([np.full_like(drawn, 255)] * 3 + [drawn])
    for name, mask, reason in (
        ("color", red_green, "--mask-color"),
        ("alpha", transparent, "drawn in the transparency"),
    ):
        source = folder(tmp_path / name, mask)
        report = import_folder(source, tmp_path / f"{name} out", mask_classes=["255=lesion"])
        assert report.masks == 0
        assert all(reason in text for _, text in report.skipped)
        assert report.failed
    gray = folder(tmp_path / "gray", np.dstack([drawn] * 3))
    import_folder(gray, tmp_path / "gray out", mask_classes=["255=lesion"])
    for mask in masks(tmp_path / "gray out"):
        np.testing.assert_array_equal(mask, PLAIN > 0)


@pytest.mark.parametrize(("suffix", "options"), [(".png", {}), (".jpg", {"quality": 100})])
def test_colors_are_classes(tmp_path: Path, suffix: str, options: dict[str, int]) -> None:
    colors = np.array([(0, 0, 0), (0, 255, 0), (250, 50, 83)], np.uint8)[PLAIN]
    source = folder(tmp_path / "s", colors, suffix, **{**options, "subsampling": 0})
    words = ["import", "folder", str(source), str(tmp_path / "out")]
    words += ["--mask-color", "#fa3253=lesion", "--mask-colour", "#00ff00=duct"]
    assert run(words) == 0
    assert Dataset.load(tmp_path / "out").spec.mask_classes == ["lesion", "duct"]
    for mask in masks(tmp_path / "out"):
        wrong = (mask != np.select([PLAIN == 2, PLAIN == 1], [1, 2])).mean()
        assert wrong == 0 if suffix == ".png" else wrong < 0.03


def test_errors_name_the_colors_and_options_that_exist(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    colors = np.array([(0, 0, 0), (0, 255, 0), (250, 50, 83)], np.uint8)[PLAIN]
    assert run(["import", "folder", str(folder(tmp_path / "s", colors)), str(tmp_path / "o")]) == 1
    printed = capsys.readouterr().out
    assert "#00ff00" in printed
    assert "--mask-color" in printed
    with pytest.raises(UsageError, match="#RRGGBB"):
        import_folder(tmp_path / "s", tmp_path / "n", mask_colors={"green": "lesion"})
    with pytest.raises(UsageError, match="no mask is of it"):
        import_folder(tmp_path / "s", tmp_path / "n", mask_classes=["MA=lesion"])
    with pytest.raises(UsageError, match="expected either names"):
        import_folder(tmp_path / "s", tmp_path / "n", mask_classes=["a", "2=b"])


@pytest.fixture
def idrid(tmp_path: Path) -> Path:
    """Two images with masks of two structures that overlap, one folder each."""
    draw: dict[str, Callable[[], np.ndarray]] = {
        "1. Microaneurysms/I_{}_MA": lambda: PLAIN > 0,
        "2. Haemorrhages/I_{}_HE": lambda: PLAIN == 2,
    }
    rng = np.random.default_rng(0)
    for number in "12":
        path = tmp_path / f"idrid/1. Original Images/I_{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (24, 20, 3), np.uint8)).save(path)
        for name, drawn in draw.items():
            path = tmp_path / f"idrid/2. All Segmentation Groundtruths/{name.format(number)}.tif"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(drawn() * np.uint8(255)).save(path)
    return tmp_path / "idrid"


def test_one_folder_per_class(idrid: Path, tmp_path: Path) -> None:
    report = import_folder(idrid, tmp_path / "all")
    assert Dataset.load(tmp_path / "all").spec.mask_classes == ["Haemorrhages", "Microaneurysms"]
    assert any("overlap in 2: I_1, I_2" in note for note in report.notes)
    for mask in masks(tmp_path / "all"):
        np.testing.assert_array_equal(mask, (PLAIN > 0) * 2)
    chosen = ["Microaneurysms=red", "Haemorrhages=blood"]
    import_folder(idrid, tmp_path / "ordered", mask_classes=chosen)
    for mask in masks(tmp_path / "ordered"):
        np.testing.assert_array_equal(mask, PLAIN)
    report = import_folder(idrid, tmp_path / "one", mask_classes=["Haemorrhages=lesion"])
    assert len(report.skipped) == 2
    for mask in masks(tmp_path / "one"):
        np.testing.assert_array_equal(mask, PLAIN == 2)

"""Importing one folder a label: masks beside or in a parallel tree, nothing lost in silence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dxseg.commands.imports import import_folder
from dxseg.data.readers.masks import read_mask
from dxseg.data.table.dataset import Dataset
from dxseg.errors import DxsegError

MASK = np.zeros((8, 9), dtype=np.uint8)
MASK[2:5, 2:6] = 255


def picture(path: Path, color: tuple[int, int, int] = (80, 80, 80)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (9, 8), color).save(path)
    return path


def mask(path: Path, values: np.ndarray = MASK) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)
    return path


def rows(destination: Path) -> list[tuple[str, str, str, str]]:
    cases = Dataset.load(destination).cases
    return [tuple(row) for row in cases[["case_id", "image", "mask", "label"]].to_numpy()]


def test_masks_beside_their_images(tmp_path: Path) -> None:
    source = tmp_path / "skin"
    picture(source / "mole" / "a.jpg")
    mask(source / "mole" / "a-seg.png")
    picture(source / "mole" / "deep" / "b.bmp")
    picture(source / "none" / "c.tif")
    (source / "none" / ".hidden.png").write_bytes(b"x")
    report = import_folder(source, tmp_path / "out", mask_suffix="-seg", lesion_free=["none"])
    assert rows(tmp_path / "out") == [
        ("a", "mole/a.jpg", "mole/a-seg.png", "mole"),
        ("b", "mole/deep/b.bmp", "", "mole"),
        ("c", "none/c.tif", "", "none"),
    ]
    assert report.skipped == []
    assert Dataset.load(tmp_path / "out").spec.name == "skin"


@pytest.mark.parametrize("place", ["beside", "inside"])
def test_masks_in_a_parallel_tree(tmp_path: Path, place: str) -> None:
    source = tmp_path / "images"
    tree = source / "masks" if place == "inside" else tmp_path / "masks"
    picture(source / "x" / "1.png")
    picture(source / "x" / "p" / "2.jpg")
    picture(source / "y" / "1.png")
    mask(tree / "x" / "1.png")
    mask(tree / "x" / "p" / "2_mask.tif")
    mask(tree / "y" / "9.png")
    mask(tree / "stray.png")
    report = import_folder(source, tmp_path / "out", masks_root=tree)
    top = "" if place == "inside" else "images/"
    assert rows(tmp_path / "out") == [
        (f"{top}x_1".replace("/", "_"), f"{top}x/1.png", "masks/x/1.png", "x"),
        ("2", f"{top}x/p/2.jpg", "masks/x/p/2_mask.tif", "x"),
        (f"{top}y_1".replace("/", "_"), f"{top}y/1.png", "", "y"),
    ]
    assert {Path(file).name for file, _ in report.skipped} == {"9.png", "stray.png"}
    dataset = Dataset.load(tmp_path / "out")
    path = dataset.mask_path(dataset.cases.iloc[0])
    assert path == tree / "x" / "1.png"


def test_several_masks_of_several_classes_are_united(tmp_path: Path) -> None:
    picture(tmp_path / "s" / "x" / "a.png")
    mask(tmp_path / "s" / "x" / "a_mask.png", MASK // 255)
    mask(tmp_path / "s" / "x" / "a_mask_1.png", np.roll(MASK, 1) // 255 * 2)
    report = import_folder(tmp_path / "s", tmp_path / "out", mask_classes=["cyst", "tumour"])
    assert report.merged == ["a"]
    merged = read_mask(tmp_path / "out" / "masks" / "a_merged.png", 2)
    np.testing.assert_array_equal(merged, np.maximum(MASK // 255, np.roll(MASK, 1) // 255 * 2))


def test_repaired_and_empty_masks_are_told(tmp_path: Path) -> None:
    soft = MASK.copy()
    soft[2, 2] = 120
    picture(tmp_path / "s" / "x" / "a.png")
    mask(tmp_path / "s" / "x" / "a_mask.png", soft)
    picture(tmp_path / "s" / "x" / "b.png")
    mask(tmp_path / "s" / "x" / "b_mask.png", MASK * 0)
    picture(tmp_path / "s" / "x" / "c.png")
    mask(tmp_path / "s" / "x" / "c_mask.png", np.dstack([MASK, MASK * 0, MASK * 0]))
    report = import_folder(tmp_path / "s", tmp_path / "out")
    assert [Path(file).name for file, _ in report.repaired] == ["a_mask.png"]
    assert [Path(file).name for file, _ in report.skipped] == ["c_mask.png"]
    notes = "\n".join(report.notes)
    assert "lesion-free: 1" in notes
    assert "b_mask.png" in notes
    assert "color mask" in notes


def test_channels_follow_the_images(tmp_path: Path) -> None:
    picture(tmp_path / "gray" / "x" / "a.png")
    picture(tmp_path / "color" / "x" / "a.png", (200, 90, 60))
    picture(tmp_path / "color" / "x" / "b.png")
    assert import_folder(tmp_path / "gray", tmp_path / "o1").channels == 1
    assert import_folder(tmp_path / "color", tmp_path / "o2").channels == 3
    marked = Image.new("RGB", (40, 40), (70, 70, 70))
    marked.paste((255, 255, 0), (0, 0, 8, 8))
    (tmp_path / "marked" / "x").mkdir(parents=True)
    marked.save(tmp_path / "marked" / "x" / "a.png")
    report = import_folder(tmp_path / "marked", tmp_path / "o3")
    assert report.channels == 1
    assert any("colored marks" in line for line in report.notes)


def test_equal_names_get_distinct_ids(tmp_path: Path) -> None:
    for path in ["a/b_c/1.png", "a_b/c/1.png", "a/b_c/1.jpg"]:
        picture(tmp_path / "s" / path)
    import_folder(tmp_path / "s", tmp_path / "out")
    assert sorted(row[0] for row in rows(tmp_path / "out")) == [
        "a_b_c_1",
        "a_b_c_1_2",
        "a_b_c_1_3",
    ]


def test_links_that_leave_the_folder_are_left_out(tmp_path: Path) -> None:
    picture(tmp_path / "s" / "x" / "a.png")
    secret = picture(tmp_path / "elsewhere" / "secret.png")
    (tmp_path / "s" / "x" / "b.png").symlink_to(secret)
    report = import_folder(tmp_path / "s", tmp_path / "out")
    assert report.images == 1
    assert "outside" in report.skipped[0][1]


def test_a_destination_inside_the_source_is_no_label(tmp_path: Path) -> None:
    picture(tmp_path / "s" / "x" / "a.png")
    for overwrite in (False, True):
        report = import_folder(tmp_path / "s", tmp_path / "s" / "out", overwrite=overwrite)
        assert report.labels == {"x": 1}


def test_wrong_requests_are_named(tmp_path: Path) -> None:
    picture(tmp_path / "s" / "x" / "a.png")
    with pytest.raises(DxsegError, match="lesion-free 'healthy'"):
        import_folder(tmp_path / "s", tmp_path / "out", lesion_free=["healthy"])
    with pytest.raises(DxsegError, match="no such folder"):
        import_folder(tmp_path / "absent", tmp_path / "out")
    with pytest.raises(DxsegError, match="mask suffix"):
        import_folder(tmp_path / "s", tmp_path / "out", mask_suffix="")
    (tmp_path / "empty" / "x").mkdir(parents=True)
    with pytest.raises(DxsegError, match="no readable image"):
        import_folder(tmp_path / "empty", tmp_path / "nothing")
    assert not (tmp_path / "out").exists()


def test_words_for_nothing_are_counted_once_an_image(tmp_path: Path) -> None:
    for label in ("unknown", "mole", "NA"):
        picture(tmp_path / "s" / label / f"{label}.png")
    report = import_folder(tmp_path / "s", tmp_path / "out")
    assert report.labels == {"": 2, "mole": 1}
    assert any(note.startswith("label: 2 values mean missing") for note in report.notes)


def test_a_lesion_free_label_without_images_is_named_with_those_that_exist(tmp_path: Path) -> None:
    for label in ("normal", "mole"):
        picture(tmp_path / "s" / label / f"{label}.png")
    with pytest.raises(DxsegError, match=r"--lesion-free 'healthy'.*labels are 'mole', 'normal'"):
        import_folder(tmp_path / "s", tmp_path / "out", lesion_free=["healthy"])
    assert not (tmp_path / "out").exists()


def test_folders_of_patients_are_patients_unless_a_label_is_among_them(tmp_path: Path) -> None:
    for number in range(3):
        for name in "ab":
            picture(tmp_path / "s" / f"IMD00{number}" / f"{name}.png")
    import_folder(tmp_path / "s", tmp_path / "out")
    dataset = Dataset.load(tmp_path / "out")
    assert dataset.spec.labels == []
    assert dataset.cases["patient_id"].nunique() == 3
    import_folder(tmp_path / "s", tmp_path / "labels", lesion_free=["IMD000"])
    assert Dataset.load(tmp_path / "labels").spec.labels == ["IMD000", "IMD001", "IMD002"]


def test_arrays_count_as_images_left_out(tmp_path: Path) -> None:
    picture(tmp_path / "s" / "a.png")
    np.save(tmp_path / "s" / "a_mask.npy", MASK)
    report = import_folder(tmp_path / "s", tmp_path / "out")
    assert report.failed[0][0] == "1 images left out"

"""Importing any CSV: a column mapping, lines of the user's own file in every error."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dxseg.commands.imports import import_csv
from dxseg.data.readers.masks import read_mask
from dxseg.data.table.dataset import Dataset
from dxseg.errors import DxsegError

MASK = np.zeros((8, 9), dtype=np.uint8)
MASK[2:5, 2:6] = 255
COLUMNS = {"image": "file", "label": "diagnosis"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Images a, b, c and masks a1, a2 (a1 shifted) below a folder "data"."""
    root = tmp_path / "data"
    (root / "i").mkdir(parents=True)
    (root / "m").mkdir()
    for name in "abc":
        Image.new("L", (9, 8), 50).save(root / "i" / f"{name}.png")
    Image.fromarray(MASK).save(root / "m" / "a1.png")
    Image.fromarray(np.roll(MASK, 2)).save(root / "m" / "a2.png")
    return root


def write(folder: Path, text: str) -> Path:
    path = folder / "table.csv"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_columns_are_mapped_and_others_left_out(
    folder: Path, tmp_path: Path, separator: str
) -> None:
    text = "file,seg,diagnosis,pid,age\ni/b.png,,z,7,50\ni/a.png,m/a1.png,y,07,60\ni/c.png,,,8,\n"
    csv = write(folder, text.replace(",", separator))
    columns = {**COLUMNS, "mask": "seg", "patient_id": "pid"}
    report = import_csv(csv, tmp_path / "out", columns=columns, lesion_free=["z"])
    assert report.labels == {"": 1, "y": 1, "z": 1}
    dataset = Dataset.load(tmp_path / "out")
    assert dataset.spec.labels == ["y", "z"]
    assert dataset.spec.name == "data"
    assert dataset.spec.spacing_unit == "pixel"
    assert dataset.cases["case_id"].tolist() == ["b", "a", "c"]
    assert dataset.cases["patient_id"].tolist() == ["7", "07", "8"]
    assert dataset.has_mask.tolist() == [True, True, False]
    assert dataset.image_path(dataset.cases.iloc[1]) == folder / "i" / "a.png"


def test_one_row_a_mask_becomes_one_case(folder: Path, tmp_path: Path) -> None:
    csv = write(folder, "file,seg,diagnosis\ni/a.png,m/a1.png,y\ni/a.png,m/a2.png,y\n")
    report = import_csv(csv, tmp_path / "out", columns={**COLUMNS, "mask": "seg"})
    assert (report.images, report.masks, report.merged) == (1, 1, ["a"])
    merged = read_mask(tmp_path / "out" / "masks" / "a_merged.png", 1)
    np.testing.assert_array_equal(merged, (MASK | np.roll(MASK, 2)) // 255)


def test_rows_that_contradict_each_other_are_refused(folder: Path, tmp_path: Path) -> None:
    csv = write(folder, "file,diagnosis\ni/a.png,y\ni/b.png,y\ni/a.png,z\n")
    with pytest.raises(DxsegError, match=r"rows 2, 4: image 'i/a.png' has label 'y' and 'z'"):
        import_csv(csv, tmp_path / "out", columns=COLUMNS)


def test_paths_absolute_below_the_root_or_without_suffix(folder: Path, tmp_path: Path) -> None:
    csv = write(tmp_path, f"file,seg,diagnosis\n{folder}/i/a.png,./m/a1.png,y\ni/b,,y\n")
    columns = {**COLUMNS, "mask": "seg"}
    import_csv(csv, tmp_path / "out", columns=columns, images_root=folder)
    cases = Dataset.load(tmp_path / "out").cases
    assert cases["image"].tolist() == ["i/a.png", "i/b.png"]
    assert cases["mask"].tolist() == ["m/a1.png", ""]


def test_spacing_is_taken_only_where_given(folder: Path, tmp_path: Path) -> None:
    csv = write(folder, "file,diagnosis,dy,dx\ni/a.png,y,0.1,0.2\ni/b.png,y,,\n")
    columns = {**COLUMNS, "spacing_y": "dy", "spacing_x": "dx"}
    import_csv(csv, tmp_path / "out", columns=columns)
    dataset = Dataset.load(tmp_path / "out")
    assert dataset.spec.spacing_unit == "mm"
    np.testing.assert_array_equal(dataset.cases["spacing_y"], [0.1, np.nan])
    np.testing.assert_array_equal(dataset.cases["spacing_x"], [0.2, np.nan])


def test_several_labels_an_image(folder: Path, tmp_path: Path) -> None:
    csv = write(folder, "file,diagnosis\ni/a.png,q; p\ni/b.png,p\ni/c.png,\n")
    import_csv(csv, tmp_path / "out", columns=COLUMNS, multi_label=True)
    dataset = Dataset.load(tmp_path / "out")
    assert dataset.spec.labels == ["p", "q"]
    np.testing.assert_array_equal(dataset.label_targets(), [[1, 1], [1, 0], [np.nan] * 2])


def test_absent_files_are_left_out_and_told(folder: Path, tmp_path: Path) -> None:
    csv = write(folder, "file,seg,diagnosis\ni/a.png,m/none.png,y\ni/none.png,,y\n")
    report = import_csv(csv, tmp_path / "out", columns={**COLUMNS, "mask": "seg"})
    assert (report.images, report.masks) == (1, 0)
    assert [Path(file).parent.name for file, _ in report.skipped] == ["m", "i"]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("../secret.png,y", ["row 3", "image", "'../secret.png'"]),
        ("/etc/passwd,y", ["row 3", "image"]),
        (",y", ["row 3", "image", "empty"]),
        ("i/b.png,w", ["row 3", "label", "'w'"]),
    ],
)
def test_wrong_values_name_the_users_file_and_line(
    folder: Path, tmp_path: Path, row: str, words: list[str]
) -> None:
    csv = write(folder, f"file,diagnosis\ni/a.png,y\n{row}\n")
    with pytest.raises(DxsegError) as caught:
        import_csv(csv, tmp_path / "out", columns=COLUMNS, labels=["y"])
    for word in ["table.csv", *words]:
        assert word in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_wrong_mappings_are_named(folder: Path, tmp_path: Path) -> None:
    csv = write(folder, "file,diagnosis\ni/a.png,y\n")
    for columns, word in [
        ({"image": "picture"}, "'picture'.*it has file, diagnosis"),
        ({"label": "diagnosis"}, "expected image"),
        ({"image": "file", "sex": "diagnosis"}, "unknown: sex"),
    ]:
        with pytest.raises(DxsegError, match=word):
            import_csv(csv, tmp_path / "out", columns=columns)
    with pytest.raises(DxsegError, match="no rows"):
        import_csv(write(folder, "file,diagnosis\n"), tmp_path / "out", columns=COLUMNS)
    with pytest.raises(DxsegError, match="no such file"):
        import_csv(folder / "absent.csv", tmp_path / "out", columns=COLUMNS)


@pytest.mark.real_data
def test_the_real_lung_windows(lidc_root: Path, tmp_path: Path) -> None:
    columns = {
        "image": "image",
        "mask": "mask",
        "label": "diagnosis",
        "patient_id": "patient",
    }
    report = import_csv(
        lidc_root / "cases.csv", tmp_path / "lidc", columns=columns, lesion_free=["none"]
    )
    assert (report.images, report.masks, report.channels) == (2475, 950, 1)
    assert report.labels == {"nodule": 950, "none": 1525}
    assert report.skipped == report.repaired == []
    dataset = Dataset.load(tmp_path / "lidc")
    assert dataset.cases["patient_id"].nunique() == 239
    assert dataset.has_mask.all()

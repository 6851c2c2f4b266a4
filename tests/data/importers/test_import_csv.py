"""Importing any CSV: a column mapping, lines of the user's own file in every error."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openpyxl
import pytest
from PIL import Image

from dxseg.commands.import_csv import import_csv
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


@pytest.mark.parametrize(("masks", "failed"), [(["x", "y"], 1), (["x", "a1"], 0)])
def test_a_table_none_of_whose_masks_exists_has_failed(
    folder: Path, tmp_path: Path, masks: list[str], failed: int
) -> None:
    lines = [f"i/{image}.png,m/{mask}.png" for image, mask in zip("ab", masks, strict=True)]
    csv = write(folder, "\n".join(["file,seg", *lines]))
    report = import_csv(csv, tmp_path / "out", columns={"image": "file", "mask": "seg"})
    assert len(report.failed) == failed
    assert all("no such mask" in reason for _, reason in report.skipped)


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


@pytest.mark.parametrize("other", ["b.jpg", "b.PNG"])
def test_a_name_without_suffix_that_fits_several_files_is_refused(
    folder: Path, tmp_path: Path, other: str
) -> None:
    Image.new("L", (9, 8), 50).save(folder / "i" / other)
    csv = write(folder, "file,diagnosis\ni/b,y\n")
    with pytest.raises(DxsegError, match=rf"table\.csv.*'b' may be .*'{other}'.*suffix"):
        import_csv(csv, tmp_path / "out", columns=COLUMNS)
    write(folder, "file,diagnosis\ni/b.png,y\n")
    import_csv(csv, tmp_path / "out", columns=COLUMNS)
    assert Dataset.load(tmp_path / "out").cases["image"].tolist() == ["i/b.png"]


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


WORDS = ["NA", "N/A", "NaN", "none", "null", "unknown", "?", ""]


@pytest.mark.parametrize("multi_label", [False, True])
def test_words_for_nothing_are_neither_labels_nor_patients(
    folder: Path, tmp_path: Path, multi_label: bool
) -> None:
    for number in range(len(WORDS)):
        Image.new("L", (9, 8), number).save(folder / f"{number}.png")
    rows = [f"{number}.png,{word},{word},{word}" for number, word in enumerate(WORDS)]
    csv = write(folder, "\n".join(["file,diagnosis,pid,seg", "i/a.png,Yes,P1,m/a1.png", *rows]))
    columns = {**COLUMNS, "patient_id": "pid", "mask": "seg"}
    report = import_csv(csv, tmp_path / "out", columns=columns, multi_label=multi_label)
    cases = Dataset.load(tmp_path / "out").cases
    assert cases["label"].tolist() == ["Yes", *[""] * 8]
    assert cases["patient_id"].tolist() == ["P1", *[""] * 8]
    assert (report.masks, report.skipped) == (1, [])
    text = str(report)
    assert "label: 7 values mean missing (1 'NA', 1 'N/A', 1 'NaN'" in text
    assert "patient_id: 7 values mean missing" in text
    assert "no label means lesion-free (labels: 'Yes')" in text


def test_a_word_for_nothing_may_be_named_as_a_label_and_others_added(
    folder: Path, tmp_path: Path
) -> None:
    csv = write(folder, "file,diagnosis\ni/a.png,None\ni/b.png,99\ni/c.png,y\n")
    import_csv(csv, tmp_path / "out", columns=COLUMNS, lesion_free=["none"], missing=["99"])
    dataset = Dataset.load(tmp_path / "out")
    assert dataset.spec.labels == ["none", "y"]
    assert dataset.cases["label"].tolist() == ["none", "", "y"]


def test_spellings_of_a_label_or_patient_are_one(folder: Path, tmp_path: Path) -> None:
    csv = write(
        folder, "file,diagnosis,pid\ni/a.png,Normal ,7.0\ni/b.png,normal,7\ni/c.png,1.0,8\n"
    )
    columns = {**COLUMNS, "patient_id": "pid"}
    report = import_csv(csv, tmp_path / "out", columns=columns, lesion_free=["normal"])
    dataset = Dataset.load(tmp_path / "out")
    assert dataset.cases["label"].tolist() == ["normal", "normal", "1"]
    assert dataset.cases["patient_id"].tolist() == ["7", "7", "8"]
    assert "patient_id: 1 other spellings of 1 names" in str(report)


def test_rows_of_one_image_under_several_names_are_one_case(folder: Path, tmp_path: Path) -> None:
    text = f"file,diagnosis\ni/a.png,y\ni\\a.png,Y\nI/A,y\n'./i/a.png',y\n{folder}/i/a.png,y\n"
    report = import_csv(write(folder, text), tmp_path / "out", columns=COLUMNS)
    assert report.images == 1
    assert "4 rows repeat an earlier row" in str(report)


@pytest.mark.parametrize("path", ["/etc/passwd", "C:\\data\\a.png", "\\\\server\\a.png"])
def test_absolute_paths_elsewhere_are_refused_with_the_option(
    folder: Path, tmp_path: Path, path: str
) -> None:
    csv = write(folder, f"file,diagnosis\ni/a.png,y\n{path},y\n")
    with pytest.raises(DxsegError, match=r"table\.csv.*\n.*row 3, column image.*--images-root"):
        import_csv(csv, tmp_path / "out", columns=COLUMNS)


@pytest.mark.parametrize(
    "lists", [("q|p", "p"), ("q, p", "p"), ("['q', 'p']", "['p']"), ("q/p", "p")]
)
def test_other_separators_of_lists_are_recognized(
    folder: Path, tmp_path: Path, lists: tuple[str, str]
) -> None:
    csv = write(folder, "file\tdiagnosis\ni/a.png\t{}\ni/b.png\t{}\ni/c.png\tNA\n".format(*lists))
    import_csv(csv, tmp_path / "out", columns=COLUMNS, multi_label=True)
    dataset = Dataset.load(tmp_path / "out")
    assert dataset.spec.labels == ["p", "q"]
    assert dataset.cases["label"].tolist() == ["q;p", "p", ""]


def test_a_separator_may_be_given_and_lists_without_multi_label_are_told(
    folder: Path, tmp_path: Path
) -> None:
    csv = write(folder, "file,diagnosis\ni/a.png,q:p\ni/b.png,p|q\n")
    with_separator = {"multi_label": True, "label_separator": ":"}
    import_csv(csv, tmp_path / "out", columns=COLUMNS, **with_separator)  # type: ignore[arg-type]
    assert Dataset.load(tmp_path / "out").spec.labels == ["p", "p|q", "q"]
    report = import_csv(csv, tmp_path / "single", columns=COLUMNS)
    assert "labels that look like lists: 'p|q'; give --multi-label" in str(report)


def test_a_workbook_is_a_table(folder: Path, tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    assert book.active is not None
    for row in (["file", "diagnosis", "pid"], ["i/a.png", 1, 7], ["i/b.png", "n/a", None]):
        book.active.append(row)
    book.save(folder / "table.xlsx")
    columns = {**COLUMNS, "patient_id": "pid"}
    import_csv(folder / "table.xlsx", tmp_path / "out", columns=columns)
    cases = Dataset.load(tmp_path / "out").cases
    assert cases[["label", "patient_id"]].to_numpy().tolist() == [["1", "7"], ["", ""]]


@pytest.mark.parametrize("mask", ["i/a_mask.png", "i/seg-a.png", "i/a_outline.png", "masks/a.png"])
def test_an_image_that_looks_like_the_mask_of_another_is_asked_about(
    folder: Path, tmp_path: Path, mask: str
) -> None:
    (folder / "masks").mkdir()
    Image.fromarray(MASK).save(folder / mask)
    csv = write(folder, f"file,diagnosis\ni/a.png,y\n{mask},y\ni/b.png,z\n")
    report = import_csv(csv, tmp_path / "asked", columns=COLUMNS)
    assert Dataset.load(tmp_path / "asked").cases["image"].tolist() == ["i/a.png", "i/b.png"]
    assert report.failed
    assert "--keep-mask-like" in report.skipped[0][1]
    kept = import_csv(csv, tmp_path / "kept", columns=COLUMNS, keep_mask_like=True)
    assert (kept.images, kept.failed) == (3, [])


def test_a_photo_that_is_named_like_a_mask_is_an_image(folder: Path, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (8, 9)).astype(np.uint8)
    Image.fromarray(noise).save(folder / "i" / "a_lesion.png")
    csv = write(folder, "file,diagnosis\ni/a.png,y\ni/a_lesion.png,y\n")
    report = import_csv(csv, tmp_path / "out", columns=COLUMNS)
    assert (report.images, report.skipped) == (2, [])


@pytest.mark.parametrize("row", ["m/a1.png,,y", "i/b.png,i/a.png,y", "i/b.png,i/b.png,y"])
def test_a_file_is_an_image_or_a_mask(folder: Path, tmp_path: Path, row: str) -> None:
    csv = write(folder, f"file,seg,diagnosis\ni/a.png,m/a1.png,y\n{row}\n")
    with pytest.raises(DxsegError, match=r"both an image and a mask, such as .*row [23]"):
        import_csv(csv, tmp_path / "out", columns={**COLUMNS, "mask": "seg"})

"""nnU-Net's raw datasets become datasets: masks, channels, labels from a table, or a clear no."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

import dxseg
from dxseg.commands.import_nnunet import import_nnunet
from dxseg.data.readers.images import read_image
from dxseg.data.readers.masks import read_mask
from dxseg.data.table.dataset import Dataset
from dxseg.errors import DxsegError

RNG = np.random.default_rng(0)
MASK = np.zeros((8, 9), dtype=np.uint8)
MASK[2:5, 2:6] = 1
DESCRIPTION: dict[str, Any] = {
    "channel_names": {"0": "gray"},
    "labels": {"background": 0, "lesion": 1},
    "numTraining": 2,
    "file_ending": ".png",
}


def image(channels: int = 1, size: tuple[int, int] = (8, 9)) -> npt.NDArray[np.uint8]:
    return RNG.integers(0, 256, (*size, channels), dtype=np.uint8)


def write(path: Path, pixels: npt.NDArray[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels[:, :, 0] if pixels.shape[2:] == (1,) else pixels).save(path)


def describe(folder: Path, **changes: Any) -> None:
    (folder / "dataset.json").write_text(json.dumps({**DESCRIPTION, **changes}))


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Two training cases with masks, one test case without."""
    folder = tmp_path / "Dataset007_Thyroid"
    for number in (1, 2):
        write(folder / "imagesTr" / f"t_{number}_0000.png", image())
        write(folder / "labelsTr" / f"t_{number}.png", MASK * (number == 1))
    write(folder / "imagesTs" / "u_1_0000.png", image())
    describe(folder)
    return folder


def test_masks_of_training_and_images_of_test(raw: Path, tmp_path: Path) -> None:
    report = dxseg.import_nnunet(raw, tmp_path / "out")
    assert (report.images, report.masks, report.skipped) == (3, 2, [])
    dataset = Dataset.load(tmp_path / "out")
    assert dataset.spec.name == "Dataset007_Thyroid"
    assert dataset.spec.mask_classes == ["lesion"]
    cases = dataset.cases.set_index("case_id")
    assert cases["mask"].to_dict() == {
        "t_1": "labelsTr/t_1.png",
        "t_2": "labelsTr/t_2.png",
        "u_1": "",
    }
    assert cases["image"]["u_1"] == "imagesTs/u_1_0000.png"
    np.testing.assert_array_equal(read_mask(raw / cases["mask"]["t_1"], 1), MASK)
    assert cases["split"].eq("").all()


def test_labels_come_from_a_table(raw: Path, tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    table.write_text("case_id;label;patient_id;age\nu_1;benign;P1;50\nt_2; healthy ;P2;60\n")
    import_nnunet(raw, tmp_path / "out", labels=table, lesion_free=["healthy"])
    dataset = Dataset.load(tmp_path / "out")
    assert dataset.spec.labels == ["benign", "healthy"]
    cases = dataset.cases.set_index("case_id")
    assert cases["label"].to_dict() == {"t_1": "", "t_2": "healthy", "u_1": "benign"}
    assert cases["patient_id"].to_dict() == {"t_1": "", "t_2": "P2", "u_1": "P1"}


def test_a_mask_against_its_lesion_free_label_is_left_out(raw: Path, tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    table.write_text("case_id,label\nt_1,healthy\n")
    report = import_nnunet(raw, tmp_path / "out", labels=table, lesion_free=["healthy"])
    assert [Path(file).name for file, _ in report.skipped] == ["t_1.png"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("case_id,diagnosis\nt_1,x\n", ["no column label"]),
        ("case_id,label\n", ["no rows"]),
        ("case_id,label\nt_1,x\nt_1_0000,x\n", ["row 3: 't_1_0000'", "'t_1'"]),
        ("case_id,label\nt_1,x\nt_1,y\n", ["row 3", "case_id", "'t_1'"]),
        ("case_id,label\nt_1,\x01\n", ["labels.csv", "control"]),
    ],
)
def test_wrong_tables_of_labels_are_refused(
    raw: Path, tmp_path: Path, text: str, words: list[str]
) -> None:
    table = tmp_path / "labels.csv"
    table.write_text(text)
    with pytest.raises(DxsegError) as caught:
        import_nnunet(raw, tmp_path / "out", labels=table)
    for word in ["labels.csv", *words]:
        assert word in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_channels_in_several_files_are_stacked(raw: Path, tmp_path: Path, dtype: type) -> None:
    describe(raw, channel_names={"0": "T1", "1": "T2"})
    expected = {}
    for folder, name in (("imagesTr", "t_1"), ("imagesTr", "t_2"), ("imagesTs", "u_1")):
        pixels = (image(2).astype(dtype) * (257 if dtype == np.uint16 else 1)).astype(dtype)
        for channel in range(2):
            write(raw / folder / f"{name}_{channel:04d}.png", pixels[:, :, channel : channel + 1])
        expected[name] = pixels
    report = import_nnunet(raw, tmp_path / "out")
    assert (report.channels, report.images, report.skipped) == (2, 3, [])
    dataset = Dataset.load(tmp_path / "out")
    for row in dataset.cases.itertuples():
        read = read_image(dataset.image_path(row))
        assert read.dtype == dtype
        np.testing.assert_array_equal(read, expected[row.case_id])


def test_one_color_file_is_three_channels(raw: Path, tmp_path: Path) -> None:
    describe(raw, channel_names={"0": "R", "1": "G", "2": "B"})
    for name in ("imagesTr/t_1", "imagesTr/t_2", "imagesTs/u_1"):
        write(raw / f"{name}_0000.png", image(3))
    report = import_nnunet(raw, tmp_path / "out")
    assert report.channels == 3
    assert Dataset.load(tmp_path / "out").cases["image"][0] == "imagesTr/t_1_0000.png"


def test_cases_that_lack_a_channel_or_disagree_are_told(raw: Path, tmp_path: Path) -> None:
    describe(raw, channel_names={"0": "T1", "1": "T2"})
    write(raw / "imagesTr" / "t_1_0001.png", image(size=(5, 5)))
    write(raw / "imagesTr" / "t_2_0001.png", image())
    write(raw / "imagesTs" / "v_0001.png", image())
    (raw / "imagesTs" / "notes.txt").touch()
    report = import_nnunet(raw, tmp_path / "out")
    assert Dataset.load(tmp_path / "out").cases["case_id"].tolist() == ["t_2"]
    told = {Path(file).name: reason for file, reason in report.skipped}
    assert set(told) == {"t_1_0000.png", "u_1_0000.png", "v_0001.png", "notes.txt"}
    assert "(5, 5, 1)" in told["t_1_0000.png"]
    assert "1 channel(s); expected 2" in told["u_1_0000.png"]
    assert "no gaps" in told["v_0001.png"]


def test_masks_with_the_ignore_value_are_left_out(raw: Path, tmp_path: Path) -> None:
    describe(raw, labels={"background": 0, "lesion": 1, "ignore": 2})
    write(raw / "labelsTr" / "t_1.png", MASK * 2)
    report = import_nnunet(raw, tmp_path / "out")
    assert report.masks == 1
    assert [Path(file).name for file, _ in report.skipped] == ["t_1.png"]
    assert any("value 2 (ignore)" in note for note in report.notes)


def test_classes_follow_their_values(raw: Path, tmp_path: Path) -> None:
    describe(raw, labels={"tumour": 2, "liver": 1, "background": 0})
    write(raw / "labelsTr" / "t_1.png", MASK * 2)
    import_nnunet(raw, tmp_path / "out")
    assert Dataset.load(tmp_path / "out").spec.mask_classes == ["liver", "tumour"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"labels": {"background": 0, "whole": [1, 2]}}, ["whole", "region"]),
        ({"labels": {"background": 0, "lesion": 2}}, ["labels", "without gaps"]),
        ({"labels": {"lesion": 1}}, ["background 0"]),
        ({"labels": {"background": 0, "ignore": 1}}, ["background 0"]),
        ({"labels": "lesion"}, ["labels"]),
        ({"channel_names": {}}, ["channel_names"]),
        ({"file_ending": ".mhx"}, ["'.mhx'"]),
        ({"file_ending": "/../x.png"}, ["file_ending"]),
        ({"dataset": {"t_1": {"images": ["/etc/passwd"], "label": "x"}}}, ["dataset", "imagesTr"]),
        ({"file_ending": ".bmp"}, ["no image", "_0000.bmp"]),
    ],
)
def test_what_cannot_be_understood_is_refused(
    raw: Path, tmp_path: Path, changes: dict[str, Any], words: list[str]
) -> None:
    describe(raw, **changes)
    with pytest.raises(DxsegError) as caught:
        import_nnunet(raw, tmp_path / "out")
    for word in words:
        assert word in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe{}", b"[1]", b"[" * 100_000, b"NaN"])
def test_damaged_descriptions_are_refused(raw: Path, tmp_path: Path, content: bytes) -> None:
    (raw / "dataset.json").write_bytes(content)
    with pytest.raises(DxsegError, match=r"dataset\.json"):
        import_nnunet(raw, tmp_path / "out")
    (raw / "dataset.json").unlink()
    with pytest.raises(DxsegError, match=r"dataset\.json.*cannot be read"):
        import_nnunet(raw, tmp_path / "out")


def test_links_out_of_the_source_are_left_out(raw: Path, tmp_path: Path) -> None:
    write(tmp_path / "secret.png", image())
    (raw / "imagesTs" / "u_1_0000.png").unlink()
    (raw / "imagesTs" / "u_1_0000.png").symlink_to(tmp_path / "secret.png")
    report = import_nnunet(raw, tmp_path / "out")
    assert report.images == 2
    assert "outside" in report.skipped[0][1]


def test_the_command_tells_what_it_did(raw: Path, tmp_path: Path, cli: Callable[..., Any]) -> None:
    table = tmp_path / "labels.csv"
    table.write_text("case_id,label\nt_2,healthy\n")
    words = ["--labels", table, "--lesion-free", "healthy", "--name", "thyroid"]
    result = cli("import", "nnunet", raw, tmp_path / "out", *words)
    assert result.exit_code == 0, result.output
    assert "3 images (2 unlabeled, 1 healthy), 2 with a mask file" in result.output
    assert Dataset.load(tmp_path / "out").spec.name == "thyroid"


def test_patients_come_from_the_table_of_labels_a_pattern_or_names(
    raw: Path, tmp_path: Path
) -> None:
    names = [path.name for path in sorted((raw / "imagesTr").iterdir())]
    import_nnunet(raw, tmp_path / "pattern", patient_pattern=r"(\w)_0000")
    found = Dataset.load(tmp_path / "pattern")
    assert found.spec.patients_from is None
    assert found.cases["patient_id"].tolist()[: len(names)] == [name[-10] for name in names]
    labels = tmp_path / "labels.csv"
    case = names[0].split("_0000")[0]
    labels.write_text(f"case_id,label,patient_id\n{case},x,P7\n")
    import_nnunet(raw, tmp_path / "both", labels=labels, patient_pattern=r"(\w)_0000")
    patients = Dataset.load(tmp_path / "both").cases.set_index("case_id")["patient_id"]
    assert patients[case] == "P7"
    assert patients.ne("").all()


def test_masks_with_the_number_of_a_channel_are_named_and_the_import_fails(
    raw: Path, tmp_path: Path
) -> None:
    masks = sorted((raw / "labelsTr").iterdir())
    for path in masks:
        path.rename(path.with_name(f"{path.stem}_0000{path.suffix}"))
    report = import_nnunet(raw, tmp_path / "out")
    assert report.masks == 0
    assert report.failed
    reasons = [reason for file, reason in report.skipped if "labelsTr" in file]
    assert sum("mask of no imported case" in reason for reason in reasons) == len(masks)

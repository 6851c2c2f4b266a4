"""Tasks of the Decathlon and NIfTI raw datasets become slices, with the names of their classes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

import dxseg
from dxseg.commands.import_nnunet import import_nnunet
from dxseg.commands.import_volumes import import_msd
from dxseg.data.readers.masks import read_mask
from dxseg.data.table.dataset import Dataset
from dxseg.errors import DxsegError, UsageError

SHAPE = (6, 5, 4)
LABELS = np.zeros(SHAPE, np.uint8)
LABELS[1:5, 1:4, 1:3] = 1
LABELS[2, 2, 2] = 2
TASK: dict[str, Any] = {
    "name": "Liver",
    "modality": {"0": "CT"},
    "labels": {"0": "background", "1": "liver", "2": "cancer"},
    "training": [{"image": "./imagesTr/liver_1.nii.gz", "label": "./labelsTr/liver_1.nii.gz"}],
    "test": ["./imagesTs/liver_9.nii.gz"],
    "reference": "A hospital",
    "licence": "CC-BY-SA 4.0",
}
RAW = {
    "channel_names": {"0": "CT"},
    "labels": {"background": 0, "liver": 1, "cancer": 2},
    "numTraining": 1,
    "file_ending": ".nii.gz",
}


def save(path: Path, voxels: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(voxels, np.diag([1.0, 1.0, 3.0, 1.0])), path)


def voxels() -> Any:
    return np.random.default_rng(0).integers(-100, 200, SHAPE).astype(np.int16)


@pytest.fixture
def task(tmp_path: Path) -> Path:
    """One training volume with a label map, one test volume."""
    folder = tmp_path / "Task03_Liver"
    save(folder / "imagesTr" / "liver_1.nii.gz", voxels())
    save(folder / "labelsTr" / "liver_1.nii.gz", LABELS)
    save(folder / "imagesTs" / "liver_9.nii.gz", voxels())
    (folder / "imagesTr" / "._liver_1.nii.gz").write_bytes(b"rubbish of another system")
    (folder / "dataset.json").write_text(json.dumps(TASK))
    return folder


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """The same as a raw dataset of nnU-Net."""
    folder = tmp_path / "Dataset003_Liver"
    save(folder / "imagesTr" / "liver_1_0000.nii.gz", voxels())
    save(folder / "labelsTr" / "liver_1.nii.gz", LABELS)
    save(folder / "imagesTs" / "liver_9_0000.nii.gz", voxels())
    (folder / "dataset.json").write_text(json.dumps(RAW))
    return folder


def checked(destination: Path) -> Dataset:
    dataset = Dataset.load(destination)
    assert dataset.spec.mask_classes == ["liver", "cancer"]
    cases = dataset.cases
    assert cases["volume_id"].tolist() == ["liver_1"] * 4 + ["liver_9"] * 4
    assert cases["mask"].ne("").tolist() == [True] * 4 + [False] * 4
    counts = np.zeros(3, int)
    for row in cases[:4].itertuples():
        path = dataset.mask_path(row)
        assert path is not None
        counts += np.bincount(read_mask(path, 2).ravel(), minlength=3)
    np.testing.assert_array_equal(counts, np.bincount(LABELS.ravel()))
    return dataset


def test_a_task_of_the_decathlon(task: Path, tmp_path: Path) -> None:
    report = dxseg.import_msd(task, tmp_path / "out", lesion_classes=["cancer"])
    assert (report.images, report.masks, report.volumes) == (8, 4, 2)
    dataset = checked(tmp_path / "out")
    assert (dataset.spec.modality, dataset.spec.licence) == ("CT", "CC-BY-SA 4.0")
    assert dataset.cases["label"][:4].tolist().count("cancer") == 1


def test_a_raw_dataset_of_volumes(raw: Path, tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    table.write_text("case_id,label\nliver_9,cancer\n")
    import_nnunet(raw, tmp_path / "out", labels=table, lesion_classes=["cancer"])
    dataset = checked(tmp_path / "out")
    assert dataset.cases["label"][4:].tolist() == ["cancer"] * 4
    assert dataset.cases["label_level"][4:].eq("study").all()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"labels": {"0": "background", "2": "x"}}, ["labels", "without gaps"]),
        ({"labels": {"one": "x"}}, ["labels"]),
        ({"training": [{"image": "./imagesTr/liver_1.nii.gz"}]}, ["training.0.label"]),
        ({"test": ["../secret.nii.gz"]}, ["'../secret.nii.gz'", "in this folder"]),
        ({"test": ["/etc/passwd"]}, ["'/etc/passwd'"]),
        ({"test": ["a\0.nii"]}, ["expected .nii"]),
        ({"test": ["imagesTs/x.png"]}, ["expected .nii"]),
        ({"test": ["imagesTr/liver_1.nii.gz"]}, ["'liver_1' was found 2 times"]),
    ],
)
def test_wrong_listings_are_refused(
    task: Path, tmp_path: Path, changes: dict[str, Any], words: list[str]
) -> None:
    save(tmp_path / "secret.nii.gz", voxels())
    (task / "dataset.json").write_text(json.dumps({**TASK, **changes}))
    with pytest.raises(DxsegError) as caught:
        import_msd(task, tmp_path / "out")
    for word in words:
        assert word in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_links_out_of_a_raw_dataset_are_left_out(raw: Path, tmp_path: Path) -> None:
    save(tmp_path / "secret.nii.gz", voxels())
    (raw / "imagesTs" / "liver_9_0000.nii.gz").unlink()
    (raw / "imagesTs" / "liver_9_0000.nii.gz").symlink_to(tmp_path / "secret.nii.gz")
    report = import_nnunet(raw, tmp_path / "out")
    assert report.volumes == 1
    assert any("outside" in reason for _, reason in report.skipped)


def test_volumes_without_a_label_map_and_repeated_ones_are_told(raw: Path, tmp_path: Path) -> None:
    (raw / "labelsTr/liver_1.nii.gz").unlink()
    save(raw / "imagesTs/liver_1_0000.nii.gz", voxels())
    report = import_nnunet(raw, tmp_path / "out")
    assert report.volumes == 2
    reasons = {Path(file).parent.name: reason for file, reason in report.skipped}
    assert "imported without it" in reasons["labelsTr"]
    assert reasons["imagesTs"] == "case liver_1 is in imagesTr too"


@pytest.mark.parametrize(("known", "level"), [(False, "mask"), (True, "image")])
def test_slices_with_the_ignore_label_are_unknown(
    raw: Path, tmp_path: Path, known: bool, level: str
) -> None:
    labels = {"background": 0, "liver": 1, "ignore": 2}
    (raw / "dataset.json").write_text(json.dumps({**RAW, "labels": labels}))
    report = import_nnunet(raw, tmp_path / "out", slice_labels_known=known)
    dataset = Dataset.load(tmp_path / "out")
    cases = dataset.cases[:4]
    assert dataset.spec.mask_classes == ["liver"]
    assert cases["label"].tolist() == ["no liver", "liver", "", "no liver"]
    assert cases["label_level"].tolist() == [level, level, "", level]
    assert cases["mask"].ne("").tolist() == [False, True, False, False]
    assert not any("DROPPED" in note for note in report.notes)


@pytest.mark.parametrize("source", ["task", "raw"])
def test_patients_of_volumes_come_from_a_pattern_or_a_table(
    source: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    folder = request.getfixturevalue(source)
    command = dxseg.import_msd if source == "task" else import_nnunet
    command(folder, tmp_path / "pattern", patient_pattern=r"_(\d)$")
    found = Dataset.load(tmp_path / "pattern")
    assert found.cases["patient_id"].unique().tolist() == ["1", "9"]
    assert found.spec.patients_from is None
    table = tmp_path / "patients.csv"
    table.write_text("image,patient_id\nliver_1,P\nliver_9,P\n")
    command(folder, tmp_path / "table", patients=table)
    assert Dataset.load(tmp_path / "table").cases["patient_id"].unique().tolist() == ["P"]
    with pytest.raises(UsageError, match="give one of them"):
        command(folder, tmp_path / "both", patients=table, patient_pattern="a")


def test_options_of_volumes_are_refused_for_images(raw: Path, tmp_path: Path) -> None:
    (raw / "dataset.json").write_text(json.dumps({**RAW, "file_ending": ".png"}))
    for option in ({"lesion_classes": ["cancer"]}, {"slice_labels_known": True}):
        with pytest.raises(UsageError, match="for volumes"):
            import_nnunet(raw, tmp_path / "out", **option)


def test_the_commands(task: Path, raw: Path, tmp_path: Path, cli: Callable[..., Any]) -> None:
    words = ["--window", "liver", "--axis", "axial", "--lesion-class", "cancer"]
    for verb, source in (("msd", task), ("nnunet", raw)):
        result = cli("import", verb, source, tmp_path / verb, *words)
        assert result.exit_code == 0, result.output
        assert "2 volumes, 8 slices" in result.output
        assert Dataset.load(tmp_path / verb).spec.name == source.name

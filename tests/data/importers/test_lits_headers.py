"""What users of LiTS meet: folders of batches, lost positions, label maps placed elsewhere."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import numpy as np
import pytest

from dxseg.data.importers.patients import PatientRules, find_patients
from dxseg.data.table.dataset import Dataset
from volume_import import bring
from volume_phantom import RAS, ct, save, turned_affine

ELSEWHERE = turned_affine(RAS) @ np.diag([-1, 1, 1, 1])
BY_VOXEL = "laid on it voxel by voxel"


@pytest.fixture
def displaced(tmp_path: Path) -> Path:
    """Three scans in two folders of batches; the headers of two label maps are mirrored."""
    for number in range(3):
        voxels, labels = ct(number)
        folder = tmp_path / f"lits/Training Batch {1 + number // 2}"
        save(folder / f"volume-{number}.nii", voxels)
        affine = ELSEWHERE if number else None
        save(folder / f"segmentation-{number}.nii", labels, affine=affine)
    return tmp_path / "lits"


def test_a_label_map_that_is_placed_elsewhere_is_left_out_and_named(
    displaced: Path, tmp_path: Path
) -> None:
    report = bring(displaced, tmp_path / "out", mask_replace=None)
    cases = Dataset.load(tmp_path / "out").cases
    assert set(cases.loc[cases["label"].ne(""), "volume_id"]) == {"Training Batch 1_volume-0"}
    [note] = [note for note in report.notes if note.startswith("Training Batch 2_volume-2: ")]
    assert "imported without its label map" in note
    assert "--masks-by-voxel" in note


def test_it_may_be_laid_on_its_scan_voxel_by_voxel(displaced: Path, tmp_path: Path) -> None:
    bring(displaced, tmp_path / "out", mask_replace=None)
    report = bring(
        displaced, tmp_path / "out", mask_replace=None, masks_by_voxel=True, overwrite=True
    )
    dataset = Dataset.load(tmp_path / "out")
    truth = [int((ct(number)[1] == 2).any(axis=(0, 1)).sum()) for number in range(3)]
    assert (
        dataset.cases.groupby("volume_id")["mask"].agg(lambda m: m.ne("").sum()).tolist() == truth
    )
    [note] = [note for note in report.notes if BY_VOXEL in note]
    assert note.startswith("2 volumes (Training Batch 1_volume-1, Training Batch 2_volume-2): ")


def test_a_label_map_in_its_place_is_turned_as_ever(tmp_path: Path) -> None:
    voxels, labels = ct()
    save(tmp_path / "lits/volume-0.nii", voxels)
    save(tmp_path / "lits/segmentation-0.nii", labels, ((1, 0, 2), (1, -1, 1)))
    for number, by_voxel in enumerate((False, True)):
        report = bring(tmp_path / "lits", tmp_path / f"{number}", masks_by_voxel=by_voxel)
        assert not any(BY_VOXEL in note for note in report.notes)
    masks = [
        [path.read_bytes() for path in sorted((tmp_path / f"{number}").glob("masks/*/*.png"))]
        for number in range(2)
    ]
    assert masks[0] == masks[1]
    assert masks[0]


def test_another_shape_is_refused_in_any_case(tmp_path: Path) -> None:
    voxels, labels = ct()
    for number in range(2):
        save(tmp_path / f"lits/volume-{number}.nii", voxels)
        shown = labels[:-number] if number else labels
        save(tmp_path / f"lits/segmentation-{number}.nii", shown)
    report = bring(tmp_path / "lits", tmp_path / "out", masks_by_voxel=True)
    assert any(note.startswith("volume-1: imported without") for note in report.notes)


def test_positions_that_nobody_has_filled_in_are_named_once(tmp_path: Path) -> None:
    for number in range(3):
        voxels, labels = ct(number)
        affine = np.eye(4) if number else None
        save(tmp_path / f"lits/volume-{number}.nii", voxels, affine=affine)
        save(tmp_path / f"lits/segmentation-{number}.nii", labels, affine=affine)
    report = bring(tmp_path / "lits", tmp_path / "out")
    [note] = [note for note in report.notes if "identity" in note]
    assert note.startswith("2 volumes (volume-1, volume-2): its header has the identity")


@pytest.mark.parametrize(
    "files",
    [
        [f"Training Batch {1 + n // 5}/volume-{n}.nii" for n in range(10)],
        [f"volume_pt{1 + n // 2}/volume-{n}.nii" for n in range(10)],
        [f"media/nas/01_Datasets/CT/LITS/Training Batch 1/volume-{n}.nii" for n in range(10)],
    ],
)
def test_batches_are_no_patients(files: list[str]) -> None:
    assert find_patients([PurePosixPath(name) for name in files], PatientRules()).names == [""] * 10


def test_scans_in_parts_beside_all_their_label_maps(tmp_path: Path) -> None:
    for number in range(4):
        voxels, labels = ct(number)
        save(tmp_path / f"lits/volume_pt{1 + number // 2}/volume-{number}.nii", voxels)
        save(tmp_path / f"lits/segmentations/segmentation-{number}.nii", labels)
    report = bring(tmp_path / "lits", tmp_path / "out", mask_replace=None)
    dataset = Dataset.load(tmp_path / "out")
    assert (report.volumes, report.failed) == (4, [])
    assert dataset.has_mask.all()
    assert dataset.cases["patient_id"].eq("").all()


@pytest.mark.parametrize(
    ("window", "told"),
    [("90,220", None), ("15,100", "100%: 0% are below it and black, 100% above it and white")],
)
def test_a_window_that_leaves_no_contrast_is_reported(
    tmp_path: Path, window: str, told: str | None
) -> None:
    voxels, labels = ct()
    save(tmp_path / "lits/volume-0.nii", np.where(labels, 100, voxels))
    save(tmp_path / "lits/segmentation-0.nii", labels)
    report = bring(tmp_path / "lits", tmp_path / "out", window=window)
    notes = [note for note in report.notes if "no contrast" in note]
    assert len(notes) == (told is not None)
    assert all(str(told) in note.replace(" of the outlined voxels", "") for note in notes)

"""All volumes of a dataset are sliced in one plane."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dxseg.commands.import_volumes import import_volumes
from dxseg.data.readers.sliced_volume import SlicedVolume, through_plane
from dxseg.data.readers.volume import Volume
from dxseg.data.table.dataset import Dataset
from volume_phantom import RAS, TURNS, save, turned_affine

SHAPE = (12, 14, 8)
THICK, THIN = (0.8, 0.8, 5.0), (0.9, 0.9, 0.6)
AXIAL, CORONAL = 8, 14


def volume(path: Path, spacing: tuple[float, float, float]) -> None:
    voxels = np.random.default_rng(0).integers(-900, 900, SHAPE).astype(np.int16)
    save(path, voxels, affine=turned_affine(RAS, SHAPE, spacing))


@pytest.mark.parametrize("axis", [None, "through-plane"])
def test_one_plane_for_all_volumes(tmp_path: Path, axis: str | None) -> None:
    for number in range(3):
        volume(tmp_path / f"in/v{number}.nii.gz", THIN if number == 1 else THICK)
    given = {} if axis is None else {"axis": axis}
    report = import_volumes(tmp_path / "in", tmp_path / "out", **given)
    dataset = Dataset.load(tmp_path / "out")
    assert dataset.cases.groupby("volume_id").size().tolist() == [AXIAL] * 3
    assert dataset.spec.slicing is not None
    assert dataset.spec.slicing.axis == "axial"
    [note] = [note for note in report.notes if "coarsest" in note]
    assert note.startswith("1 of 3 volumes")
    assert note.endswith("sliced axial as the others: v1")


def test_the_majority_decides_and_an_axis_that_is_named_stays(tmp_path: Path) -> None:
    for number in range(3):
        volume(tmp_path / f"in/v{number}.nii.gz", THICK if number == 1 else THIN)
    import_volumes(tmp_path / "in", tmp_path / "out")
    assert len(Dataset.load(tmp_path / "out")) == 3 * CORONAL
    report = import_volumes(tmp_path / "in", tmp_path / "named", axis="axial")
    assert len(Dataset.load(tmp_path / "named")) == 3 * AXIAL
    assert not any("coarsest" in note for note in report.notes)


def test_a_volume_that_cannot_be_read_has_no_vote(tmp_path: Path) -> None:
    volume(tmp_path / "in/a.nii", THICK)
    (tmp_path / "in/b.nii").write_bytes(b"no NIfTI")
    report = import_volumes(tmp_path / "in", tmp_path / "out")
    assert len(Dataset.load(tmp_path / "out")) == AXIAL
    assert [name for name, _ in report.skipped] == ["b"]


@pytest.mark.parametrize("turn", TURNS[::5])
def test_the_plane_of_a_grid_is_the_one_it_is_sliced_in(turn: object) -> None:
    from dxseg.data.readers.slicing import Slicing

    affine = turned_affine(turn, SHAPE, THIN)  # type: ignore[arg-type]
    shape = tuple(SHAPE[axis] for axis in turn[0])  # type: ignore[index]
    sliced = SlicedVolume(Volume(np.zeros(shape), affine), Slicing(window=(0.0, 1.0)))
    assert through_plane(affine) == sliced.plane

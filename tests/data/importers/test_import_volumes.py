"""Volumes into datasets of slices: pairing, masks, wrong wishes, the command."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dxseg.commands.import_volumes import import_volumes
from dxseg.data.readers.images import read_image
from dxseg.data.readers.masks import read_mask
from dxseg.data.readers.nifti import read_nifti
from dxseg.data.readers.sliced_volume import SlicedVolume
from dxseg.data.readers.slicing import WINDOWS, Slicing
from dxseg.data.table.dataset import Dataset
from dxseg.errors import DxsegError, UsageError
from progress_calls import on_progress
from volume_import import LIVER, bring
from volume_phantom import SHAPE, ct, depth_in_ball, dice, save


def test_slices_masks_and_labels_of_lits(lits: Path, tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    with on_progress(lambda *call: calls.append(call)):
        report = bring(lits, tmp_path / "out")
    assert calls == [(1, 3), (2, 3), (3, 3)]
    assert (report.volumes, report.images, report.masks, report.channels) == (3, 30, 6, 1)
    assert report.labels == {"no tumour": 24, "tumour": 6}
    liver = sum(int((ct(number, number < 2)[1] == 1).sum()) for number in range(3))
    assert any(f"value 1: {liver} voxels DROPPED" in note for note in report.notes)

    dataset = Dataset.load(tmp_path / "out")
    assert dataset.spec.labels == ["no tumour", "tumour"]
    assert dataset.spec.lesion_free == ["no tumour"]
    assert dataset.spec.mask_classes == ["tumour"]
    assert (dataset.spec.slicing, dataset.spec.spacing_unit) == (LIVER, "mm")
    assert dataset.has_mask.all()
    cases = dataset.cases
    assert cases["volume_id"].unique().tolist() == ["volume-0", "volume-1", "volume-2"]
    assert cases["slice_index"].tolist() == [*range(10)] * 3
    np.testing.assert_allclose(cases["spacing_y"], 0.8)
    np.testing.assert_allclose(cases["spacing_x"], 0.75)
    for row in cases.itertuples():
        number = int(row.volume_id[-1])
        voxels, labels = ct(number, number < 2)
        # Axial: the slice number leads to the head, rows to the back, columns to the left.
        truth = labels[::-1, ::-1, row.slice_index].T == 2
        gray = np.rint((voxels[::-1, ::-1, row.slice_index].T + 45.0) * (255 / 150)).clip(0, 255)
        np.testing.assert_array_equal(read_image(dataset.image_path(row))[:, :, 0], gray)
        path = dataset.mask_path(row)
        mask = np.zeros(truth.shape) if path is None else read_mask(path, 1)
        np.testing.assert_array_equal(mask, truth)
        assert row.label == ("tumour" if truth.any() else "no tumour")
        assert (path is not None) == truth.any()


def test_organs_keep_their_masks_and_no_label_means_empty(lits: Path, tmp_path: Path) -> None:
    values = {1: "liver", 2: "tumour"}
    bring(lits, tmp_path / "out", mask_values=values, lesion_classes=["tumour"])
    dataset = Dataset.load(tmp_path / "out")
    assert dataset.spec.mask_classes == ["liver", "tumour"]
    assert dataset.spec.lesion_classes == ["tumour"]
    assert dataset.spec.labels == ["no tumour", "tumour"]
    assert dataset.spec.lesion_free == []
    assert dataset.spec.organs_only == ["no tumour"]
    assert dataset.cases["mask"].ne("").all()
    for row in dataset.cases.itertuples():
        labels = ct(int(row.volume_id[-1]), row.volume_id != "volume-2")[1]
        mask = read_mask(dataset.mask_path(row), 2)
        np.testing.assert_array_equal(mask, labels[::-1, ::-1, row.slice_index].T)
        assert row.label == ("tumour" if (mask == 2).any() else "no tumour")


def test_several_values_may_share_a_class(lits: Path, tmp_path: Path) -> None:
    bring(lits, tmp_path / "out", mask_values={1: "lesion", 2: "lesion"}, lesion_label="ill")
    dataset = Dataset.load(tmp_path / "out")
    assert dataset.spec.labels == ["no ill", "ill"]
    row = dataset.cases.iloc[5]
    mask = read_mask(dataset.mask_path(row), 1)
    np.testing.assert_array_equal(mask, ct(0)[1][::-1, ::-1, 5].T > 0)


@pytest.mark.parametrize(("bits", "neighbours"), [(8, 1), (16, 0), (16, 2)])
def test_files_hold_what_slicing_gives(
    lits: Path, tmp_path: Path, bits: int, neighbours: int
) -> None:
    rule = Slicing(axis="coronal", bits=bits, neighbours=neighbours)
    options = {"axis": "coronal", "window": "percentiles", "bits": bits, "neighbours": neighbours}
    bring(lits, tmp_path / "out", **options)
    dataset = Dataset.load(tmp_path / "out")
    assert dataset.spec.channels == 2 * neighbours + 1
    sliced = SlicedVolume(read_nifti(lits / "volume-1.nii.gz"), rule)
    rows = dataset.cases[dataset.cases["volume_id"].eq("volume-1")]
    assert len(rows) == len(sliced) == SHAPE[1]
    for index, row in enumerate(rows.itertuples()):
        np.testing.assert_array_equal(
            read_image(dataset.image_path(row)), sliced.image(index), strict=True
        )
    assert rows["spacing_y"].iloc[0] == pytest.approx(5)


def test_label_maps_beside_their_volumes_and_in_a_parallel_tree(tmp_path: Path) -> None:
    voxels, labels = ct()
    for name in ("a", "b/a", "b/a2", "b/a10"):
        save(tmp_path / f"in/{name}.nii.gz", voxels)
    save(tmp_path / "in/a_mask.nii", labels)
    save(tmp_path / "in/b/a10_mask.nii.gz", labels)
    save(tmp_path / "in/lost_mask.nii.gz", labels)
    (tmp_path / "in/readme.txt").write_text("x")
    (tmp_path / "in/.hidden.nii").write_text("x")
    report = import_volumes(tmp_path / "in", tmp_path / "beside", mask_values={1: "l", 2: "l"})
    cases = Dataset.load(tmp_path / "beside").cases
    assert cases["volume_id"].unique().tolist() == ["a", "b_a", "b_a2", "b_a10"]
    masked = cases.loc[cases["mask"].ne(""), "volume_id"].unique().tolist()
    assert masked == ["a", "b_a10"]
    assert {Path(name).name for name, _ in report.skipped} == {"lost_mask.nii.gz", "readme.txt"}

    save(tmp_path / "masks/b/a.nii.gz", labels)
    save(tmp_path / "masks/b/a2_mask.nii", labels)
    for name in ("a_mask.nii", "b/a10_mask.nii.gz", "lost_mask.nii.gz"):
        (tmp_path / "in" / name).unlink()
    options = {"masks_root": tmp_path / "masks", "mask_values": {1: "l", 2: "l"}}
    import_volumes(tmp_path / "in", tmp_path / "parallel", **options)
    cases = Dataset.load(tmp_path / "parallel").cases
    assert cases.loc[cases["mask"].ne(""), "volume_id"].unique().tolist() == ["b_a", "b_a2"]


def test_names_that_clash_or_lead_nowhere_are_errors(tmp_path: Path) -> None:
    voxels, _ = ct()
    save(tmp_path / "in/a.nii", voxels)
    save(tmp_path / "in/a.nii.gz", voxels)
    with pytest.raises(DxsegError, match="name of the same volume"):
        import_volumes(tmp_path / "in", tmp_path / "out")
    (tmp_path / "in/a.nii").unlink()
    save(tmp_path / "in/b/c.nii", voxels)
    save(tmp_path / "in/b_c.nii", voxels)
    with pytest.raises(DxsegError, match="'b_c' was found 2 times"):
        import_volumes(tmp_path / "in", tmp_path / "out")
    (tmp_path / "none").mkdir()
    with pytest.raises(DxsegError, match="no volume"):
        import_volumes(tmp_path / "none", tmp_path / "out")
    with pytest.raises(DxsegError, match="no such folder"):
        import_volumes(tmp_path / "absent", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mask_values": {0: "x"}}, "from 1 to 65535"),
        ({"mask_values": {}}, "at least one"),
        ({"lesion_classes": ["liver"]}, "'liver'.*classes are tumour"),
        ({"lesion_label": "x", "lesion_free": ["x"]}, "cannot mean both"),
        ({"mask_replace": ("volume", "")}, "TEXT=OTHER"),
    ],
)
def test_wrong_wishes_are_refused_before_anything_is_written(
    lits: Path, tmp_path: Path, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        bring(lits, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_label_maps_none_of_whose_values_is_mapped_are_an_error(lits: Path, tmp_path: Path) -> None:
    with pytest.raises(DxsegError, match=r"values 1, 2, none of which.*requested: 255"):
        bring(lits, tmp_path / "out", mask_values={255: "tumour"})
    assert not (tmp_path / "out/dataset.yaml").exists()


def test_a_bad_volume_or_label_map_is_told_and_the_others_imported(
    lits: Path, tmp_path: Path
) -> None:
    whole = (lits / "volume-0.nii.gz").read_bytes()
    (lits / "volume-0.nii.gz").write_bytes(whole[: len(whole) // 2])
    save(lits / "segmentation-2.nii.gz", ct()[1][:-1])
    report = bring(lits, tmp_path / "out")
    cases = Dataset.load(tmp_path / "out").cases
    assert cases["volume_id"].unique().tolist() == ["volume-1", "volume-2"]
    assert [name for name, _ in report.skipped] == ["volume-0"]
    [told] = [note for note in report.notes if "without its label map" in note]
    assert told.startswith("volume-2: ")
    assert "voxels, but its image has" in told
    assert cases.loc[cases["volume_id"].eq("volume-2"), "label"].eq("").all()


def test_the_command(cli: Callable[..., Any], lits: Path, tmp_path: Path) -> None:
    words = ["--mask-replace", "volume=segmentation", "--mask-value", "2=tumour"]
    words += ["--window", "liver", "--neighbours", 1, "--axis", "axial", "--name", "LiTS"]
    result = cli("import", "volumes", lits, tmp_path / "out", *words)
    assert result.exit_code == 0, result.output
    assert "3 volumes, 30 slices (24 no tumour, 6 tumour)" in result.output
    dataset = Dataset.load(tmp_path / "out")
    assert dataset.spec.name == "LiTS"
    assert dataset.spec.slicing == Slicing(axis="axial", window=WINDOWS["liver"], neighbours=1)
    for words, told in (
        (["--mask-value", "tumour=2"], "expected a number"),
        (["--mask-value", "2=a", "--mask-value", "2=b"], "--mask-value '2=b': 2 is given twice"),
        (["--mask-replace", "volume"], "volume=segmentation"),
        (["--window", "bone"], "LEVEL,WIDTH"),
        (["--axis", "oblique"], 'Invalid value "oblique" for --axis'),
    ):
        result = cli("import", "volumes", lits, tmp_path / "other", *words)
        assert (result.exit_code, told in result.output) == (2, True), result.output


def test_volumes_that_look_like_label_maps_are_asked_about(tmp_path: Path) -> None:
    voxels, labels = ct()
    save(tmp_path / "in/a.nii", voxels)
    save(tmp_path / "in/a_x.nii", labels)
    report = import_volumes(tmp_path / "in", tmp_path / "asked")
    assert (report.volumes, report.skipped[0][0]) == (1, "a_x")
    assert "--keep-mask-like" in report.skipped[0][1]
    assert report.failed
    kept = import_volumes(tmp_path / "in", tmp_path / "kept", keep_mask_like=True)
    assert kept.volumes == 2
    values = {1: "liver", 2: "tumour"}
    paired = import_volumes(
        tmp_path / "in", tmp_path / "paired", mask_suffix="_x", mask_values=values
    )
    assert (paired.volumes, paired.failed) == (1, [])
    assert paired.masks > 0


def test_usual_names_of_label_maps(tmp_path: Path) -> None:
    voxels, labels = ct()
    save(tmp_path / "in/imagesTr/liver_1_0000.nii.gz", voxels)
    save(tmp_path / "in/labelsTr/liver_1.nii.gz", labels)
    save(tmp_path / "in/case_2/imaging.nii.gz", voxels)
    save(tmp_path / "in/case_2/segmentation.nii.gz", labels)
    save(tmp_path / "in/P3_FLAIR.nii", voxels)
    save(tmp_path / "in/P3_seg.nii", labels)
    report = import_volumes(
        tmp_path / "in", tmp_path / "out", mask_values={1: "liver", 2: "tumour"}
    )
    assert (report.volumes, report.skipped, report.failed) == (3, [], [])
    cases = Dataset.load(tmp_path / "out").cases
    assert cases.loc[cases["mask"].ne(""), "volume_id"].nunique() == 3


def test_itk_formats_make_the_dataset_that_nifti_makes(lits: Path, tmp_path: Path) -> None:
    sitk = pytest.importorskip("SimpleITK")
    folder = tmp_path / "itk"
    folder.mkdir()
    for path in lits.glob("*.nii*"):
        suffix = ".mhd" if path.name.startswith("volume") else ".nrrd"
        sitk.WriteImage(sitk.ReadImage(path), folder / path.name.replace(".nii.gz", suffix), True)
    first, second = (bring(source, tmp_path / source.name / "out") for source in (lits, folder))
    assert (first.images, first.masks, first.labels) == (second.images, second.masks, second.labels)
    for row, other in zip(
        *(Dataset.load(report.destination).cases.itertuples() for report in (first, second)),
        strict=True,
    ):
        assert (row.case_id, row.label) == (other.case_id, other.label)
        for name in filter(None, (row.image, row.mask)):
            pixels = (read_image(report.destination / name) for report in (first, second))
            np.testing.assert_array_equal(*pixels)
    # Voxels in a file of their own count as part of the volume.
    before = {p: p.stat().st_mtime_ns for p in (folder / "out/images").rglob("*.png")}
    raw = next(folder.glob("volume-0.*raw"))
    raw.write_bytes(next(folder.glob("volume-1.*raw")).read_bytes())
    header = folder / "volume-0.mhd"
    header.write_text((folder / "volume-1.mhd").read_text().replace("volume-1", "volume-0"))
    bring(folder, folder / "out", overwrite=True)
    changed = {p.parent.name for p, time in before.items() if p.stat().st_mtime_ns != time}
    assert changed == {"volume-0"}


@pytest.mark.parametrize("kind", ["sheared", "rotated"])
def test_oblique_volumes_are_resampled_with_their_label_maps_on_request(
    tmp_path: Path, kind: str
) -> None:
    """A ball of 12 mm: slices show it where their masks do, and its volume is kept."""
    affine = np.diag([1.0, 1.1, 2.5, 1.0])
    if kind == "sheared":
        affine[1, 2] = 0.6
    else:
        turn = Rotation.from_euler("xz", [15, 25], degrees=True).as_matrix()
        affine[:3, :3] = turn @ affine[:3, :3]
    shape = (44, 40, 22)
    center = tuple((affine @ [*(np.array(shape) - 1) / 2, 1])[:3])
    indices = np.moveaxis(np.indices(shape), 0, -1)
    depth = depth_in_ball(indices @ affine[:3, :3].T + affine[:3, 3], center, 12.0)
    save(tmp_path / "in/a.nii.gz", (100 + 20 * depth).astype(np.int16), affine=affine)
    save(tmp_path / "in/a_seg.nii.gz", (depth > 0).astype(np.uint8), affine=affine)
    options = {"axis": "axial", "window": "100,200"}
    report = import_volumes(tmp_path / "in", tmp_path / "stored", **options)
    [note] = [note for note in report.notes if "oblique or sheared" in note]
    assert "--resample" in note
    stored = Dataset.load(tmp_path / "stored").cases
    voxel = stored[["spacing_x", "spacing_y", "spacing_z"]].astype(float).prod(axis=1)
    assert voxel.tolist() == pytest.approx([abs(np.linalg.det(affine))] * len(stored), rel=1e-3)
    report = import_volumes(tmp_path / "in", tmp_path / "data", resample=True, **options)
    assert "1 volumes were resampled onto the patient's axes: a" in report.notes

    dataset = Dataset.load(tmp_path / "data")
    assert dataset.spec.slicing is not None
    assert dataset.spec.slicing.resample is True
    assert len(dataset) >= 22
    rows = [row for row in dataset.cases.itertuples() if row.mask]
    masks = np.stack([read_mask(tmp_path / "data" / str(row.mask), 1) for row in rows])
    bright = np.stack([read_image(dataset.image_path(row))[:, :, 0] > 127 for row in rows])
    assert dice(masks, bright) > 0.95
    voxel = np.prod(dataset.cases[["spacing_z", "spacing_y", "spacing_x"]].iloc[0])
    assert masks.sum() * voxel == pytest.approx(4 / 3 * np.pi * 12**3, rel=0.04)
    # As datasets without it are written: their digest stays.
    assert "resample" not in (tmp_path / "stored/dataset.yaml").read_text()

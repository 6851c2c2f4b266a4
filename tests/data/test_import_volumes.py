"""Volumes into datasets of slices: pairing, labels, masks, resuming, hostile input."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dxseg.data.dataset import Dataset
from dxseg.data.files import sha256_file
from dxseg.data.importers.nifti import import_volumes
from dxseg.data.importers.volumes import write_volumes
from dxseg.data.nifti import read_nifti
from dxseg.data.readers import read_image, read_mask
from dxseg.data.slicing import WINDOWS, SlicedVolume, Slicing
from dxseg.data.volume import FoundVolume
from dxseg.errors import DxsegError, UsageError
from volume_phantom import SHAPE, TURNS, ct, save

LIVER = Slicing(window=WINDOWS["liver"])


@pytest.fixture
def lits(tmp_path: Path) -> Path:
    """Three volumes named as LiTS names them, each stored in its own order; the last is healthy."""
    for number, turn in enumerate((TURNS[0], TURNS[21], TURNS[38])):
        voxels, labels = ct(number, tumour=number < 2)
        save(tmp_path / f"lits/volume-{number}.nii.gz", voxels, turn)
        save(tmp_path / f"lits/segmentation-{number}.nii.gz", labels, TURNS[5 * number])
    return tmp_path / "lits"


def bring(source: Path, destination: Path, **options: Any) -> Any:
    options = {
        "slicing": LIVER,
        "mask_replace": ("volume", "segmentation"),
        "mask_values": {2: "tumour"},
        **options,
    }
    return import_volumes(source, destination, **options)


def files(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): sha256_file(path)
        for path in folder.rglob("*")
        if path.is_file()
    }


def age(folder: Path) -> set[Path]:
    """Give all files a time by which `is_aged` knows that they were not written again."""
    paths = {path for path in folder.rglob("*") if path.is_file()}
    for path in paths:
        os.utime(path, (1, 1))
    return paths


def is_aged(path: Path) -> bool:
    return path.stat().st_mtime == 1


def test_slices_masks_and_labels_of_lits(lits: Path, tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    report = bring(lits, tmp_path / "out", progress=lambda *call: calls.append(call))
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
        grey = np.rint((voxels[::-1, ::-1, row.slice_index].T + 45.0) * (255 / 150)).clip(0, 255)
        np.testing.assert_array_equal(read_image(dataset.image_path(row))[:, :, 0], grey)
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
    assert dataset.spec.labels == ["no tumour", "tumour"]
    assert dataset.spec.lesion_free == []
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
    bring(lits, tmp_path / "out", slicing=rule)
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
    with pytest.raises(DxsegError, match="same volume by name"):
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
        ({"lesion_classes": ["liver"]}, "'liver'.*there are tumour"),
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
    with pytest.raises(DxsegError, match=r"values 1, 2, none of which.*asked for: 255"):
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


# Labels from a table.


def table(folder: Path, text: str) -> Path:
    path = folder / "labels.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_volumes_without_a_label_map_take_labels_from_the_table(lits: Path, tmp_path: Path) -> None:
    for number in (1, 2):
        (lits / f"segmentation-{number}.nii.gz").unlink()
    csv = table(
        tmp_path,
        "volume;finding;slice;who\n"
        "volume-0;free of tumour;;P1\n"
        "volume-1;tumour;;P2\n"
        "volume-1;no tumour;0;\n"
        "volume-2;no tumour;;\n"
        "volume-7;metastasis;;P9\n",
    )
    columns = {"volume_id": "volume", "label": "finding", "slice_index": "slice"}
    columns["patient_id"] = "who"
    report = bring(lits, tmp_path / "out", labels=csv, label_columns=columns)
    dataset = Dataset.load(tmp_path / "out")
    cases = dataset.cases.set_index("case_id")
    assert dataset.spec.labels == ["no tumour", "tumour"], "no label that nothing has"
    assert cases.loc["volume-1_0000", ["label", "label_level"]].tolist() == ["no tumour", "image"]
    assert cases.loc["volume-1_0001", ["label", "label_level"]].tolist() == ["tumour", "study"]
    assert cases.loc["volume-2_0004", ["label", "label_level"]].tolist() == ["no tumour", "study"]
    assert cases.loc["volume-0_0005", ["label", "label_level"]].tolist() == ["tumour", "image"]
    people = cases.groupby("volume_id")["patient_id"].unique().map(list).to_dict()
    assert people == {"volume-0": ["P1"], "volume-1": ["P2"], "volume-2": [""]}
    targets = dict(zip(cases.index, dataset.label_targets(), strict=True))
    assert targets["volume-1_0000"] == 0
    assert targets["volume-1_0001"] == -1, "a lesion somewhere in the study says nothing of a slice"
    assert targets["volume-2_0004"] == 0
    assert any("1 rows fit no volume: lines 6" in note for note in report.notes)


def test_label_maps_that_disagree_with_the_table_are_told(lits: Path, tmp_path: Path) -> None:
    rows = [f"volume-{number},{('no tumour', 'tumour')[number]}" for number in (0, 1)]
    csv = table(tmp_path, "\n".join(["volume_id,label", *rows, ""]))
    report = bring(lits, tmp_path / "out", labels=csv)
    [told] = [note for note in report.notes if "disagree" in note]
    assert told.endswith("holds: volume-0")
    assert report.labels == {"no tumour": 24, "tumour": 6}


def test_rows_join_on_whatever_keys_they_fill_in(tmp_path: Path) -> None:
    affine = np.diag([1.0, 1, 5, 1])

    def volume(number: int, **keys: str) -> FoundVolume:
        from dxseg.data.volume import Volume

        voxels = np.random.default_rng(number).integers(0, 99, (4, 5, 2))
        return FoundVolume(f"v{number}", lambda: Volume(voxels, affine), keys=keys)

    found = [
        volume(0, patient="A", study="1", accession="x"),
        volume(1, patient="A", study="2", accession="y"),
        volume(2, patient="B", study="3", accession="z"),
        volume(3, patient="C", study="4", accession="w"),
    ]
    csv = table(
        tmp_path,
        "patient,study,accession,label\nA,2,,cyst\nB,,,normal\n,,w,cyst\nA,9,,cyst\n",
    )
    report = write_volumes(
        found,
        tmp_path / "out",
        {"name": "x"},
        slicing=Slicing(),
        labels=csv,
        lesion_free=["normal"],
    )
    dataset = Dataset.load(tmp_path / "out")
    study = dataset.cases.assign(study=dataset.study_labels).groupby("volume_id")["study"].first()
    assert study.to_dict() == {"v0": "", "v1": "cyst", "v2": "normal", "v3": "cyst"}
    assert (dataset.spec.labels, dataset.spec.lesion_free) == (["cyst", "normal"], ["normal"])
    assert any("lines 5" in note for note in report.notes)
    held = b"".join(p.read_bytes() for p in (tmp_path / "out").rglob("*.*") if p.is_file())
    assert b"accession" not in held


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("volume_id,label\nvolume-0,a\nvolume-0,b\n", "rows 2 and 3 give different"),
        ("volume_id,slice_index,label\nvolume-0,1,a\nvolume-0,1,b\n", "rows 2 and 3"),
        ("volume_id,label,patient_id\nvolume-0,a,P\nvolume-0,a,Q\n", "rows 2 and 3.*patient_id"),
        ("volume_id,slice_index,label\nvolume-0,-1,a\n", "row 2: slice_index '-1'"),
        ("volume_id,slice_index,label\nvolume-0,1.0,a\n", r"slice_index '1\.0'"),
        ("volume_id,label\n,a\n", "row 2: fills in none of volume_id"),
        ("volume,label\nvolume-0,a\n", "expected label and at least one of volume_id"),
        ("volume_id,diagnosis\nvolume-0,a\n", "expected label"),
        ("volume_id,slice_index,label\nvolume-0,10,tumour\n", "slice 10.*0 to 9"),
    ],
)
def test_wrong_tables_are_refused(lits: Path, tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(DxsegError, match=words):
        bring(lits, tmp_path / "out", labels=table(tmp_path, text))
    assert not (tmp_path / "out/dataset.yaml").exists()


def test_a_lesion_free_label_that_nothing_has_is_an_error(lits: Path, tmp_path: Path) -> None:
    with pytest.raises(DxsegError, match=r"'Normal': no volume.*no tumour, tumour"):
        bring(lits, tmp_path / "out", lesion_free=["no tumour", "Normal"])


# Interrupted, repeated, hostile.


@pytest.mark.parametrize("volume", [1, 2])
def test_an_interrupted_import_goes_on_where_it_stopped(
    lits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, volume: int
) -> None:
    bring(lits, tmp_path / "whole")

    def stop(done: int, total: int) -> None:
        if done == volume:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bring(lits, tmp_path / "out", progress=stop)
    assert not (tmp_path / "out/dataset.yaml").exists()
    before = age(tmp_path / "out/images")
    damaged = tmp_path / "out/images/volume-0/0003.png"
    if volume == 2:
        damaged.write_bytes(b"")
    bring(lits, tmp_path / "out")
    redone = {path for path in before if volume == 2 and path.parent == damaged.parent}
    assert {path for path in before if is_aged(path)} == before - redone, (
        "finished volumes whose files are whole are not redone"
    )
    assert files(tmp_path / "out") == files(tmp_path / "whole")


def test_killed_at_any_moment_it_leaves_no_dataset_or_a_whole_one(
    lits: Path, tmp_path: Path
) -> None:
    bring(lits, tmp_path / "whole")
    script = (
        "import sys\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        f"sys.path.insert(0, {str(Path(__file__).parents[1])!r})\n"
        "from pathlib import Path\n"
        "from test_import_volumes import bring\n"
        "print('ready', flush=True)\n"
        "bring(Path(sys.argv[1]), Path(sys.argv[2]))\n"
    )
    delays = random.Random(0)
    for _ in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", script, str(lits), str(tmp_path / "out")],
            stdout=subprocess.PIPE,
            env=os.environ,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        time.sleep(delays.uniform(0, 0.4))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        if (tmp_path / "out/dataset.yaml").exists():
            assert len(Dataset.load(tmp_path / "out")) == 30
            break
    bring(lits, tmp_path / "out", overwrite=True)
    whole, again = files(tmp_path / "whole"), files(tmp_path / "out")
    assert {name: again.get(name) for name in whole} == whole
    assert all(Path(name).name.startswith(".") for name in again.keys() - whole.keys())


def test_importing_anew_takes_over_what_is_the_same_and_drops_what_is_gone(
    lits: Path, tmp_path: Path
) -> None:
    bring(lits, tmp_path / "out")
    with pytest.raises(DxsegError, match="overwrite"):
        bring(lits, tmp_path / "out")
    age(tmp_path / "out/images")
    (lits / "volume-1.nii.gz").unlink()
    save(lits / "volume-2.nii.gz", ct(9)[0], TURNS[38])
    report = bring(lits, tmp_path / "out", overwrite=True)
    assert report.volumes == 2
    assert is_aged(tmp_path / "out/images/volume-0/0000.png")
    assert not is_aged(tmp_path / "out/images/volume-2/0000.png")
    assert not (tmp_path / "out/images/volume-1").exists()
    bring(lits, tmp_path / "fresh")
    assert files(tmp_path / "out") == files(tmp_path / "fresh")
    bring(lits, tmp_path / "out", slicing=Slicing(axis="sagittal"), overwrite=True)
    assert len(Dataset.load(tmp_path / "out")) == 2 * SHAPE[0]
    assert len(list((tmp_path / "out/images/volume-0").iterdir())) == SHAPE[0]


def test_nothing_is_written_through_a_link(lits: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    bring(lits, tmp_path / "out")
    images = tmp_path / "out/images"
    images.rename(tmp_path / "kept")
    images.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DxsegError, match="a link leads elsewhere"):
        bring(lits, tmp_path / "out", slicing=Slicing(), overwrite=True)
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_one_volume_is_in_memory_at_a_time(tmp_path: Path) -> None:
    import gc
    import weakref

    from dxseg.data.volume import Volume

    alive: list[weakref.ref[Any]] = []

    def load() -> Volume:
        gc.collect()
        assert [ref for ref in alive if ref() is not None] == []
        voxels = np.zeros((4, 5, 3), np.int16)
        alive.append(weakref.ref(voxels))
        return Volume(voxels, np.eye(4))

    found = [FoundVolume(f"v{number}", load) for number in range(3)]
    write_volumes(found, tmp_path / "out", {"name": "x"}, slicing=LIVER)
    assert len(alive) == 3


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
        (["--mask-value", "2=a", "--mask-value", "2=b"], "occurs twice"),
        (["--mask-replace", "volume"], "volume=segmentation"),
        (["--window", "bone"], "LEVEL,WIDTH"),
        (["--axis", "oblique"], "axis 'oblique'"),
    ):
        result = cli("import", "volumes", lits, tmp_path / "other", *words)
        assert (result.exit_code, told in result.output) == (2, True), result.output

"""Volumes of several files on one grid, one per sequence: channels in their order."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from dxseg.commands.import_dicom import import_dicom
from dxseg.commands.import_nnunet import import_nnunet
from dxseg.commands.import_volumes import import_msd, import_volumes
from dxseg.data.importers.sequences import note_sequences
from dxseg.data.readers.images import read_image
from dxseg.data.readers.slicing import Slicing
from dxseg.data.table.dataset import Dataset
from dxseg.errors import DxsegError, UsageError
from volume_phantom import RAS, SHAPE, TURNS, ct, save, turned_affine

CHANNELS = {"post": "_post", "flair": "_flair"}
WINDOW = {"post": "100,200"}
VOXELS, LABELS = ct()
OTHER = np.roll(VOXELS, 5, axis=0) * 3 + 7


def brats(folder: Path, *cases: str) -> Path:
    """Cases as BraTS names them, with a sequence that nobody asks for."""
    for case in cases:
        save(folder / case / f"{case}_flair.nii.gz", OTHER)
        save(folder / case / f"{case}_post.nii.gz", VOXELS, TURNS[30])
        save(folder / case / f"{case}_pre.nii.gz", VOXELS)
        save(folder / case / f"{case}_seg.nii.gz", LABELS)
    return folder


def expected(axial: int, voxels: Any, low: float, high: float) -> Any:
    """A slice in radiological orientation, scaled from `low` to `high`."""
    plane = voxels[::-1, ::-1, axial].T.astype(float)
    return np.rint(((plane - low) * (255 / (high - low))).clip(0, 255))


def check_pixels(dataset: Dataset, windows: list[tuple[Any, float, float]]) -> None:
    for row in dataset.cases.itertuples():
        pixels = read_image(dataset.image_path(row))
        shown = [expected(row.slice_index, *window) for window in windows]
        np.testing.assert_array_equal(pixels, np.stack(shown, axis=2))


def test_sequences_are_channels_in_the_order_of_the_option(tmp_path: Path) -> None:
    source = brats(tmp_path / "in", "P1", "P2")
    report = import_volumes(source, tmp_path / "out", channels=CHANNELS, window=WINDOW)
    assert (report.volumes, report.images, report.channels, report.failed) == (2, 20, 2, [])
    assert any("2 files: of no sequence" in note and "_pre" in note for note in report.notes)
    dataset = Dataset.load(tmp_path / "out")
    slicing = dataset.spec.slicing
    assert slicing is not None
    assert slicing.suffixes == CHANNELS
    assert list(slicing.suffixes) == ["post", "flair"], "a mapping may be sorted on its way"
    assert slicing.windows == [(100, 200), None]
    low, high = np.percentile(OTHER, (0.5, 99.5))
    # Stored in another order of axes, but on the same grid.
    check_pixels(dataset, [(VOXELS, 0, 200), (OTHER, low, high)])
    assert dataset.has_mask.all()


def test_neighbors_of_each_sequence_are_together(tmp_path: Path) -> None:
    source = brats(tmp_path / "in", "P1")
    import_volumes(source, tmp_path / "out", channels=CHANNELS, window="100,200", neighbours=1)
    dataset = Dataset.load(tmp_path / "out")
    assert dataset.spec.channels == 6
    pixels = read_image(dataset.image_path(next(dataset.cases.iloc[5:6].itertuples())))
    for channel, (voxels, index) in enumerate((v, i) for v in (VOXELS, OTHER) for i in (4, 5, 6)):
        np.testing.assert_array_equal(pixels[:, :, channel], expected(index, voxels, 0, 200))


def test_files_that_seem_to_be_sequences_are_named_with_the_options(tmp_path: Path) -> None:
    source = brats(tmp_path / "in", "P1", "P2")
    report = import_volumes(source, tmp_path / "out")
    assert report.volumes == 6
    [note] = [note for note in report.notes if "--channel" in note]
    options = "--channel flair=_flair --channel post=_post --channel pre=_pre"
    assert note.startswith("2 folders have 3 volumes each")
    assert note.endswith(options)
    channels = dict(pair.split("=") for pair in options.split() if "=" in pair)
    assert import_volumes(source, tmp_path / "again", channels=channels).volumes == 2


@pytest.mark.parametrize(
    "names",
    [("a/v_flair", "b/w_post"), ("a/T1w", "a/T2w"), ("a/1", "a/2", "b/1", "b/2"), ("a", "b", "c")],
)
def test_other_folders_are_no_sequences(names: tuple[str, ...]) -> None:
    assert note_sequences([Path("/x") / f"{name}.nii.gz" for name in names]) == []


def test_bids_suffixes_are_whole_words() -> None:
    paths = [Path(f"/x/sub-{n}/sub-{n}_{end}.nii") for n in (1, 2) for end in ("T1w", "T2w")]
    [note] = note_sequences(paths)
    assert note.endswith("--channel T1w=_T1w --channel T2w=_T2w")


def test_one_sequence_of_many_files(tmp_path: Path) -> None:
    source = brats(tmp_path / "in", "P1")
    import_volumes(source, tmp_path / "out", channels={"post": "_post"}, window="100,200")
    check_pixels(Dataset.load(tmp_path / "out"), [(VOXELS, 0, 200)])


def test_files_named_by_their_sequence_alone(tmp_path: Path) -> None:
    for case in ("a", "b"):
        for name, voxels in (("T1w", VOXELS), ("FLAIR", OTHER), ("seg", LABELS)):
            save(tmp_path / "in" / case / f"{name}.nii.gz", voxels)
    channels = {"t1": "T1w", "flair": "FLAIR"}
    report = import_volumes(tmp_path / "in", tmp_path / "out", channels=channels)
    assert (report.volumes, report.failed) == (2, [])
    assert Dataset.load(tmp_path / "out").has_mask.all()


def test_a_missing_sequence_leaves_the_case_out_by_name(tmp_path: Path) -> None:
    source = brats(tmp_path / "in", "P1", "P2")
    (source / "P2/P2_post.nii.gz").unlink()
    report = import_volumes(source, tmp_path / "out", channels=CHANNELS)
    assert report.volumes == 1
    assert any(n.endswith("P2/P2: no file of sequence post (*_post)") for n in report.notes)
    assert report.failed, "an import that lost an image ends with exit code 1"
    (source / "P1/P1_post.nii.gz").unlink()
    with pytest.raises(DxsegError, match=r"no volume has files of all sequences.*P1: no file of"):
        import_volumes(source, tmp_path / "none", channels=CHANNELS)


@pytest.mark.parametrize(
    ("voxels", "affine", "reason"),
    [
        (OTHER[:-1], turned_affine(RAS), "24 x 10 x 31 voxels, but"),
        (OTHER, turned_affine(RAS, spacing=(0.75, 0.8, 4.0)), "lies up to 1.8 voxels away"),
    ],
)
def test_another_grid_is_named_with_both_files(
    tmp_path: Path, voxels: Any, affine: Any, reason: str
) -> None:
    source = brats(tmp_path / "in", "P1", "P2")
    save(source / "P2/P2_flair.nii.gz", voxels, affine=affine)
    report = import_volumes(source, tmp_path / "out", channels=CHANNELS)
    assert report.volumes == 1
    [text] = [reason for name, reason in report.skipped if name == "P2_P2"]
    for word in (reason, "P2_flair.nii.gz", "P2_post.nii.gz", "resample"):
        assert word in text


def test_a_sequence_that_is_there_twice_is_an_error(tmp_path: Path) -> None:
    source = brats(tmp_path / "in", "P1")
    save(source / "P1/P1_post.nii", VOXELS)
    with pytest.raises(DxsegError, match=r"P1_post.* are both sequence post"):
        import_volumes(source, tmp_path / "out", channels=CHANNELS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": {"a": "_x", "b": "_x"}}, "suffix: two sequences have the same"),
        ({"channels": {"a": "x/y"}}, "expected the end of the name of a file"),
        ({"channels": {"a": "_x"}, "window": {"b": "liver"}}, "window b=...: no such sequence"),
        ({"channels": {"a": "_x"}, "window": {"a": "leber"}}, "window 'leber'"),
        ({"window": {"a": "liver"}}, "there are no sequences"),
    ],
)
def test_wrong_options(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        import_volumes(brats(tmp_path / "in", "P1"), tmp_path / "out", **options)


def test_dicom_has_no_sequences(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there are no sequences"):
        import_dicom(tmp_path, tmp_path / "out", window={"a": "liver"})


@pytest.mark.parametrize(
    "names", [("CT", "PET"), ("zscore 0", "zscore 1")], ids=["names", "one rule twice"]
)
def test_the_channels_of_nnunet(tmp_path: Path, names: tuple[str, str]) -> None:
    """The names can be rules of normalization, which are then told apart by their number."""
    first, second = names
    raw = tmp_path / "Dataset001_Two"
    for number, voxels in enumerate((VOXELS, OTHER)):
        save(raw / f"imagesTr/a_{number:04d}.nii.gz", voxels)
    save(raw / "imagesTs/b_0000.nii.gz", VOXELS)
    save(raw / "labelsTr/a.nii.gz", (LABELS == 2).astype(np.uint8))
    description = {
        "channel_names": {"0": first.split()[0], "1": second.split()[0]},
        "labels": {"background": 0, "tumor": 1},
        "file_ending": ".nii.gz",
    }
    (raw / "dataset.json").write_text(json.dumps(description))
    report = import_nnunet(raw, tmp_path / "out", window={first: "100,200", second: "250,500"})
    assert any("case b has 1 channel(s); expected 2" in note for note in report.notes)
    dataset = Dataset.load(tmp_path / "out")
    check_pixels(dataset, [(VOXELS, 0, 200), (OTHER, 0, 500)])
    assert dataset.spec.slicing is not None
    assert dataset.spec.slicing.suffixes == {first: "_0000", second: "_0001"}


@pytest.mark.parametrize("names", [("FLAIR", "T1w"), ("MRI 0", "MRI 1")])
def test_the_fourth_dimension_of_the_decathlon(tmp_path: Path, names: tuple[str, str]) -> None:
    task = tmp_path / "Task01_Two"
    both = nibabel.Nifti1Image(np.stack([VOXELS, OTHER], axis=3), turned_affine(RAS))
    (task / "imagesTr").mkdir(parents=True)
    both.to_filename(task / "imagesTr/a.nii.gz")
    save(task / "labelsTr/a.nii.gz", (LABELS == 2).astype(np.uint8))
    listing = {
        "modality": {str(number): name.split()[0] for number, name in enumerate(names)},
        "labels": {"0": "background", "1": "tumor"},
        "training": [{"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz"}],
    }
    (task / "dataset.json").write_text(json.dumps(listing))
    import_msd(task, tmp_path / "out", window="100,200")
    dataset = Dataset.load(tmp_path / "out")
    check_pixels(dataset, [(VOXELS, 0, 200), (OTHER, 0, 200)])
    assert dataset.spec.modality == ", ".join(names)
    assert dataset.has_mask.all()
    # A volume of one sequence among them is left out.
    save(task / "imagesTr/a.nii.gz", VOXELS)
    with pytest.raises(DxsegError, match="expected a fourth dimension of 2 sequences"):
        import_msd(task, tmp_path / "none", window="100,200")


def test_datasets_keep_the_digest_they_had_before_sequences() -> None:
    fields = Slicing(window=(1.0, 2.0)).model_dump(exclude_none=True)
    assert set(fields) == {"axis", "window", "percentiles", "neighbours", "bits"}


def test_the_command(tmp_path: Path, cli: Callable[..., Any]) -> None:
    source = brats(tmp_path / "in", "P1")
    words = ["--channel", "post=_post", "--channel", "flair=_flair", "--window", "post=liver"]
    result = cli("import", "volumes", source, tmp_path / "out", *words)
    assert result.exit_code == 0, result.output
    assert "sequences post (level 30, width 150), flair (percentiles" in result.output
    assert Dataset.load(tmp_path / "out").spec.channels == 2
    wrong = cli("import", "volumes", source, tmp_path / "x", "--channel", "post")
    assert wrong.exit_code == 2
    assert "NAME=SUFFIX" in wrong.output
    assert SHAPE[2] == len(Dataset.load(tmp_path / "out"))

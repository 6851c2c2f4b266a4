"""A model of several sequences: volumes are found by the names it was trained on."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image

from dxseg import predict
from dxseg.data.readers.slicing import make_slicing
from dxseg.errors import UsageError
from dxseg.inference.files.output_folder import PredictSummary
from dxseg.inference.predictor import Predictor
from volume_phantom import RAS, TURNS, ct, save, turned, turned_affine

RULE = make_slicing(sequences={"post": "_post", "flair": "_flair"}, window="100,200")
VOXELS, _ = ct()
BRIGHT = VOXELS > 100
"""Class 1 is where the first channel is bright, class 2 where the second is."""
OTHER = np.where(np.roll(BRIGHT, 3, axis=2), 300, -100).astype(np.int16)
BOTH = np.where(OTHER > 100, 2, 0)
BOTH[BRIGHT] = 1


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, make_predictor: Any) -> Callable[..., PredictSummary]:
    predictor = make_predictor(channels=2, classes=2, slicing=RULE)
    monkeypatch.setattr(Predictor, "from_folder", lambda *_args, **_options: predictor)
    return lambda *args, **options: predict("model_folder", *args, **options)


def write(folder: Path, name: str = "P1", ends: tuple[str, str] = ("_post", "_flair")) -> Path:
    save(folder / f"{name}{ends[0]}.nii.gz", VOXELS, TURNS[40])
    save(folder / f"{name}{ends[1]}.nii.gz", OTHER)
    return folder


def rows(output: Path) -> dict[str, dict[str, str]]:
    with (output / "predictions.csv").open(encoding="utf-8", newline="") as stream:
        return {row["name"]: row for row in csv.DictReader(stream)}


def check(path: Path) -> None:
    """One label map on the grid of the first sequence."""
    written = nibabel.load(path)
    np.testing.assert_array_equal(np.asarray(written.dataobj) > 0, turned(BOTH > 0, TURNS[40]))
    np.testing.assert_array_equal(np.asarray(written.dataobj) == 1, turned(BOTH == 1, TURNS[40]))


def test_one_volume_of_several_files(tmp_path: Path, run: Any) -> None:
    write(tmp_path / "in/P1")
    write(tmp_path / "in/P2", "P2")
    save(tmp_path / "in/P2/P2_pre.nii.gz", VOXELS)
    summary = run(tmp_path / "in", output=tmp_path / "out", slice_overlays=True)
    assert (summary.done, summary.failed) == (2, [])
    assert summary.of_no_sequence == ["P2_pre.nii.gz"]
    assert "Of no sequence: 1 (P2_pre.nii.gz)" in str(summary)
    for name in ("P1/P1", "P2/P2"):
        check(tmp_path / f"out/masks/{name}.nii.gz")
        assert rows(tmp_path / "out")[name]["slices"] == "10"
        assert list((tmp_path / f"out/overlays/{name}.nii.gz").glob("*.png"))
    again = run(tmp_path / "in", output=tmp_path / "out")
    assert (again.done, again.skipped) == (0, 2)


def test_an_absent_sequence_is_a_failed_row(tmp_path: Path, run: Any) -> None:
    write(tmp_path / "in", "P1")
    write(tmp_path / "in", "P2")
    (tmp_path / "in/P2_flair.nii.gz").unlink()
    summary = run(tmp_path / "in", output=tmp_path / "out")
    assert (summary.done, [name for name, _ in summary.failed]) == (1, ["P2"])
    error = rows(tmp_path / "out")["P2"]["error"]
    assert "P2_post.nii.gz: no file of sequence flair" in error
    assert "--channel" in error


def test_other_names_by_option(tmp_path: Path, run: Any) -> None:
    folder = write(tmp_path / "in", "case", ("_0000", "_0001"))
    with pytest.raises(UsageError, match=r"of no sequence of the model \(post: \*_post"):
        run(folder, output=tmp_path / "out")
    for channels in ({"post": "_0000"}, {"post": "_0000", "t1": "_0001"}):
        with pytest.raises(UsageError, match="the model was trained on post, flair"):
            run(folder, output=tmp_path / "out", channels=channels)
    # The order is that of the model.
    run(folder, output=tmp_path / "out", channels={"flair": "_0001", "post": "_0000"})
    check(tmp_path / "out/masks/case.nii.gz")


def test_files_named_by_their_sequence_alone(tmp_path: Path, run: Any) -> None:
    folder = write(tmp_path / "P7", "", ("post", "flair"))
    run(folder, output=tmp_path / "out", channels={"post": "post", "flair": "flair"})
    check(tmp_path / "out/masks/P7.nii.gz")


def test_an_image_of_one_channel_is_refused(tmp_path: Path, run: Any) -> None:
    write(tmp_path / "in")
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "in/a.png")
    summary = run(tmp_path / "in", output=tmp_path / "out")
    [(name, error)] = summary.failed
    assert name == "a.png"
    assert "the sequences post, flair" in error


def test_a_model_of_one_file_has_no_channels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_predictor: Any
) -> None:
    predictor = make_predictor(slicing=make_slicing(window="100,200"))
    monkeypatch.setattr(Predictor, "from_folder", lambda *_args, **_options: predictor)
    with pytest.raises(UsageError, match="trained on volumes of one file"):
        predict("m", write(tmp_path / "in"), output=tmp_path / "out", channels={"a": "_post"})


def test_sequences_in_the_fourth_dimension(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_predictor: Any
) -> None:
    rule = make_slicing(sequences={"post": None, "flair": None}, window="100,200")
    predictor = make_predictor(channels=2, classes=2, slicing=rule)
    monkeypatch.setattr(Predictor, "from_folder", lambda *_args, **_options: predictor)
    image = nibabel.Nifti1Image(np.stack([VOXELS, OTHER], axis=3), turned_affine(RAS))
    (tmp_path / "in").mkdir()
    image.to_filename(tmp_path / "in/a.nii.gz")
    write(tmp_path / "in", "b")
    summary = predict("m", tmp_path / "in", output=tmp_path / "out")
    assert summary.done == 1
    assert {name: "fourth dimension of 2" in error for name, error in summary.failed} == {
        "b_flair.nii.gz": True,
        "b_post.nii.gz": True,
    }
    written = nibabel.load(tmp_path / "out/masks/a.nii.gz")
    np.testing.assert_array_equal(np.asarray(written.dataobj), BOTH)
    np.testing.assert_array_equal(written.affine, nibabel.load(tmp_path / "in/a.nii.gz").affine)
    # Files of one sequence each, named, are the same to the model.
    names = {"post": "_post", "flair": "_flair"}
    predict("m", tmp_path / "in/b_*.nii.gz", output=tmp_path / "out2", channels=names)
    check(tmp_path / "out2/masks/b.nii.gz")

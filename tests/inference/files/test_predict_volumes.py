"""Volumes in, one label map each out, lying exactly as its volume."""

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
from dxseg.data.readers.slicing import Slicing
from dxseg.inference.files import volumes
from dxseg.inference.files.inputs import PredictionInput
from dxseg.inference.files.predict import predict_files
from dxseg.inference.files.volumes import predict_volume
from dxseg.inference.predictor import Predictor
from progress_calls import on_progress
from volume_phantom import RAS, SHAPE, SPACING, TURNS, ct, save, turned, turned_affine

# The network finds what is brighter than the level.
RULE = Slicing(window=(100.0, 200.0))
HOUNSFIELD, _ = ct()
BRIGHT = HOUNSFIELD > 100
VOXEL = float(np.prod(SPACING))


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch, make_predictor: Any) -> Callable[..., Predictor]:
    """Make `predict_files` run the network that finds bright pixels."""

    def install(**options: Any) -> Predictor:
        predictor = make_predictor(**{"slicing": RULE, **options})
        monkeypatch.setattr(Predictor, "from_folder", lambda *_args, **_options: predictor)
        return predictor

    return install


def table(output: Path) -> dict[str, dict[str, str]]:
    with (output / "predictions.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    return {row["name"]: row for row in rows}


def label_map(path: Path) -> np.ndarray:
    return np.asarray(nibabel.load(path).dataobj)


def test_every_order_of_axes_comes_back_as_it_came(tmp_path: Path, use: Any) -> None:
    use()
    for number, turn in enumerate(TURNS):
        save(tmp_path / f"in/{number}.nii", HOUNSFIELD, turn)
    summary = predict("model_folder", tmp_path / "in", output=tmp_path / "out")
    assert (summary.done, summary.failed) == (48, [])
    rows = table(tmp_path / "out")
    for number, turn in enumerate(TURNS):
        source = nibabel.load(tmp_path / f"in/{number}.nii")
        written = nibabel.load(tmp_path / f"out/masks/{number}.nii.gz")
        np.testing.assert_array_equal(np.asarray(written.dataobj), turned(BRIGHT, turn))
        np.testing.assert_array_equal(written.affine, source.affine)
        assert (written.header["sform_code"], written.header["qform_code"]) == (2, 0)
        row = rows[f"{number}.nii"]
        assert [row[name] for name in ("slices", "height", "width")] == ["10", "24", "32"]
        assert float(row["lesion_volume_mm3"]) == pytest.approx(BRIGHT.sum() * VOXEL, abs=1e-3)
        assert row["lesion_area_px"] == ""
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"masks", "predictions.csv"}, "no overlays, no slices"


def test_an_unforeseen_exception_costs_one_row(
    tmp_path: Path, use: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where slices are counted, before the first volume is predicted."""
    use()
    for name in ("a.nii", "b.nii"):
        save(tmp_path / "in" / name, HOUNSFIELD)

    def failing(original: Callable[..., Any]) -> Callable[..., Any]:
        def fail(source: Any, count: int) -> Any:
            if "a.nii" in str(source):
                raise KeyError("no such field")
            return original(source, count)

        return fail

    monkeypatch.setattr(volumes, "volume_grid", failing(volumes.volume_grid))
    monkeypatch.setattr(volumes, "read_sequences", failing(volumes.read_sequences))
    summary = predict("model_folder", tmp_path / "in", output=tmp_path / "out")
    assert summary.done == 1
    [(name, reason)] = summary.failed
    assert name == "a.nii"
    assert "KeyError: 'no such field'" in reason
    assert {name: row["status"] for name, row in table(tmp_path / "out").items()} == {
        "a.nii": "failed",
        "b.nii": "ok",
    }


@pytest.mark.parametrize("axis", ["axial", "coronal", "sagittal"])
def test_along_every_axis(make_predictor: Any, axis: str) -> None:
    from dxseg.data.readers.volume import Volume

    voxels = np.full((32, 32, 32), -1000, np.int16)
    voxels[3:9, 11:25, 17:20] = 500
    voxels[20, 5:7, 30] = 500
    predictor = make_predictor(slicing=Slicing(axis=axis, window=RULE.window))
    volume = Volume(voxels, turned_affine(TURNS[29], voxels.shape, (1, 1, 1)))
    prediction = predict_volume(predictor, volume)
    np.testing.assert_array_equal(prediction.mask, voxels > 100)
    assert prediction.voxel_mm3 == pytest.approx(1)


def test_neighbours_are_seen_in_their_order(tmp_path: Path, use: Any) -> None:
    use(channels=3, slicing=Slicing(window=RULE.window, neighbours=1))
    turn = TURNS[23]
    path = save(tmp_path / "a.nii.gz", HOUNSFIELD, turn)
    predict("model_folder", path, output=tmp_path / "out")
    # The network looks at the first channel, which is the slice below.
    below = BRIGHT[:, :, [0, *range(SHAPE[2] - 1)]]
    np.testing.assert_array_equal(label_map(tmp_path / "out/masks/a.nii.gz"), turned(below, turn))


def test_images_and_volumes_together(tmp_path: Path, use: Any) -> None:
    use()
    for name in ("v/a.nii.gz", "b.nii"):
        save(tmp_path / "in" / name, HOUNSFIELD)
    Image.fromarray(np.full((32, 32), 250, np.uint8)).save(tmp_path / "in/c.png")
    whole = (tmp_path / "in/b.nii").read_bytes()
    (tmp_path / "in/bad.nii").write_bytes(whole[:-100])
    calls: list[tuple[int, int]] = []
    with on_progress(lambda *call: calls.append(call)):
        summary = predict("model_folder", tmp_path / "in", output=tmp_path / "out")
    assert (summary.done, [name for name, _ in summary.failed]) == (3, ["bad.nii"])
    assert calls[0] == (0, 31), "an image, ten slices a readable header"
    assert calls[-1] == (31, 31)
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)
    assert sorted(
        path.relative_to(tmp_path / "out").as_posix()
        for path in (tmp_path / "out").rglob("*.*")
        if path.is_file()
    ) == [
        *("masks/b.nii.gz", "masks/c.png", "masks/v/a.nii.gz"),
        *("overlays/c.png", "predictions.csv"),
    ]
    rows = table(tmp_path / "out")
    assert (rows["c.png"]["lesion_area_px"], rows["c.png"]["lesion_volume_mm3"]) == ("1024", "")
    assert rows["c.png"]["slices"] == ""
    assert "cut short" in rows["bad.nii"]["error"]


def test_overlays_of_slices_are_written_where_asked_for(tmp_path: Path, use: Any) -> None:
    use(channels=3, slicing=Slicing(window=RULE.window, neighbours=1))
    path = save(tmp_path / "in/a.nii", HOUNSFIELD, TURNS[40])
    stale = tmp_path / "out/overlays/a.nii/0000.png"
    predict("model_folder", path, output=tmp_path / "out")
    stale.parent.mkdir(parents=True)
    stale.write_bytes(b"of an earlier model")
    predict("model_folder", path, output=tmp_path / "out", overwrite=True, slice_overlays=True)
    overlays = sorted((tmp_path / "out/overlays/a.nii").iterdir())
    found = [index for index in range(1, SHAPE[2]) if BRIGHT[:, :, index - 1].any()]
    assert [file.name for file in overlays] == [f"{index:04d}.png" for index in found]
    with Image.open(overlays[0]) as overlay:
        drawn = np.array(overlay)
    assert drawn.shape == (24, 32, 3)
    own = HOUNSFIELD[::-1, ::-1, found[0]].T
    gray = np.rint(own * (255 / 200)).clip(0, 255)
    plain = (drawn == drawn[:, :, :1]).all(axis=2)
    assert 0 < (~plain).sum() < 100, "an outline"
    np.testing.assert_array_equal(drawn[plain][:, 0], gray[plain])


def test_overlays_of_slices_are_made_for_volumes_that_are_done(tmp_path: Path, use: Any) -> None:
    """Only volumes with a lesion have such overlays: the dark one is predicted once."""
    use()
    save(tmp_path / "in/a.nii", HOUNSFIELD)
    save(tmp_path / "in/dark.nii", np.where(BRIGHT, 90, HOUNSFIELD).astype(np.int16))
    predict("model_folder", tmp_path / "in", output=tmp_path / "out")
    done = []
    for _ in range(2):
        summary = predict(
            "model_folder", tmp_path / "in", output=tmp_path / "out", slice_overlays=True
        )
        done.append(summary.done)
    assert done == [1, 0]
    assert any((tmp_path / "out/overlays/a.nii").iterdir())


def test_overlays_of_slices_do_not_outlive_their_volume(tmp_path: Path, use: Any) -> None:
    use()
    for name in ("a", "b"):
        save(tmp_path / f"in/{name}.nii", HOUNSFIELD)
    options = {"output": tmp_path / "out", "slice_overlays": True}
    predict("model_folder", tmp_path / "in", **options)
    (tmp_path / "in/a.nii").write_bytes(b"cut short")
    summary = predict("model_folder", tmp_path / "in", **options)
    assert [name for name, _ in summary.failed] == ["a.nii"]
    assert [folder.name for folder in (tmp_path / "out/overlays").iterdir()] == ["b.nii"]


def test_a_series_is_as_new_as_its_newest_slice(tmp_path: Path) -> None:
    (tmp_path / "series").mkdir()
    (tmp_path / "series" / "1.dcm").touch()
    series = PredictionInput("series", tmp_path / "series", is_series=True)
    assert set(series.files) == {tmp_path / "series", tmp_path / "series/1.dcm"}
    two = PredictionInput("v", tmp_path / "a.nii", sequences=(None, tmp_path / "a.nii"))
    assert two.files == [tmp_path / "a.nii"]


def test_what_is_done_is_skipped(tmp_path: Path, use: Any) -> None:
    use()
    for name in ("a", "b"):
        save(tmp_path / f"in/{name}.nii.gz", HOUNSFIELD)
    predict("model_folder", tmp_path / "in", output=tmp_path / "out")
    (tmp_path / "out/masks/b.nii.gz").write_bytes(b"")
    calls: list[tuple[int, int]] = []
    with on_progress(lambda *call: calls.append(call)):
        summary = predict("model_folder", tmp_path / "in", output=tmp_path / "out")
    assert (summary.done, summary.skipped) == (1, 1)
    assert calls[0] == (10, 20)
    assert label_map(tmp_path / "out/masks/b.nii.gz").any()


def test_the_odds_of_a_volume_are_the_mean_of_its_slices_odds(tmp_path: Path, use: Any) -> None:
    predictor = use(labels=("healthy", "ill"), lesion_free=("healthy",))
    predict("model_folder", save(tmp_path / "a.nii", HOUNSFIELD), output=tmp_path / "out")
    from dxseg.data.readers.sliced_volume import SlicedVolume
    from dxseg.data.readers.volume import Volume

    sliced = SlicedVolume(Volume(HOUNSFIELD, turned_affine(RAS)), RULE)
    each = predictor.predict([sliced.image(index) for index in range(len(sliced))])
    row = table(tmp_path / "out")["a.nii"]
    ill = [one.label_probabilities["ill"] for one in each]
    assert min(ill) < 0.5 < max(ill)
    odds = np.mean([one / (1 - one) for one in ill])
    assert float(row["p_ill"]) == pytest.approx(odds / (1 + odds), abs=1e-6)
    assert float(row["p_healthy"]) == pytest.approx(1 / (1 + odds), abs=1e-6)
    found = np.concatenate([one.probabilities[0][one.mask > 0] for one in each])
    assert float(row["confidence"]) == pytest.approx(found.mean(), abs=1e-5)


def test_a_volume_without_lesion_is_as_sure_as_its_least_sure_slice(
    tmp_path: Path, use: Any
) -> None:
    use()
    dark = np.where(BRIGHT, 90, HOUNSFIELD).astype(np.int16)
    predict("model_folder", save(tmp_path / "a.nii", dark), output=tmp_path / "out")
    row = table(tmp_path / "out")["a.nii"]
    peak = 1 / (1 + np.exp(-20 * (round(0.45 * 255) / 255 - 0.5)))
    assert float(row["confidence"]) == pytest.approx(1 - peak, abs=1e-5)
    assert float(row["lesion_volume_mm3"]) == 0


def test_classes_have_a_volume_each(tmp_path: Path, use: Any) -> None:
    use(channels=3, classes=2, slicing=Slicing(window=RULE.window, neighbours=1))
    predict("model_folder", save(tmp_path / "a.nii", HOUNSFIELD), output=tmp_path / "out")
    row = table(tmp_path / "out")["a.nii"]
    mask = label_map(tmp_path / "out/masks/a.nii.gz")
    for value, name in ((1, "class0"), (2, "class1")):
        assert (mask == value).any()
        volume = float(row[f"lesion_volume_mm3_{name}"])
        assert volume == pytest.approx((mask == value).sum() * VOXEL, abs=1e-3)


def test_a_model_of_images_refuses_volumes_and_says_why(tmp_path: Path, use: Any) -> None:
    use(slicing=None)
    path = save(tmp_path / "a.nii", HOUNSFIELD)
    summary = predict("model_folder", path, output=tmp_path / "out")
    [(name, reason)] = summary.failed
    assert name == "a.nii"
    assert str(path) in reason
    assert "dxseg import volumes" in reason
    assert "slices" not in table(tmp_path / "out")["a.nii"]


LABELLED = {"labels": ("normal", "tumour"), "lesion_free": ("normal",)}
FAINT = HOUNSFIELD.clip(max=60) + 30.0 * BRIGHT
"""No voxel reaches the threshold; those of the lesion come closest."""


def known_volume(tmp_path: Path, values: np.ndarray, label: str) -> tuple[np.ndarray, Any]:
    save(tmp_path / "in/v.nii", values)
    predict("model_folder", tmp_path / "in", output=tmp_path / "out", labels={"v": label})
    return label_map(tmp_path / "out/masks/v.nii.gz"), table(tmp_path / "out")["v.nii"]


def test_a_study_known_to_be_lesion_free_is_empty_in_every_slice(tmp_path: Path, use: Any) -> None:
    use(**LABELLED)
    mask, row = known_volume(tmp_path, HOUNSFIELD, "normal")
    assert not mask.any()
    assert (row["label_prompt"], row["lesion_volume_mm3"]) == ("normal", "0.000")
    assert float(row["p_tumour"]) > 0.5, "the network's own opinion stays"


def test_a_study_with_a_known_lesion_forces_no_slice_where_one_is_found(
    tmp_path: Path, use: Any
) -> None:
    use(**LABELLED)
    mask, row = known_volume(tmp_path, HOUNSFIELD, "tumour")
    assert np.array_equal(mask > 0, BRIGHT)
    assert not BRIGHT.any(axis=(0, 1)).all(), "some slices have none, and get none"
    assert row["label_prompt"] == "tumour"


def test_a_study_with_a_known_lesion_that_no_slice_shows_gets_it_in_the_likeliest(
    tmp_path: Path, use: Any
) -> None:
    use(**LABELLED)
    save(tmp_path / "plain/v.nii", FAINT)
    predict("model_folder", tmp_path / "plain", output=tmp_path / "other")
    assert not label_map(tmp_path / "other/masks/v.nii.gz").any()
    mask, row = known_volume(tmp_path, FAINT, "tumour")
    assert mask.any()
    assert not (mask.astype(bool) & ~BRIGHT).any()
    assert mask.any(axis=(0, 1)).sum() == 1, "in one slice"
    assert float(row["lesion_volume_mm3"]) == pytest.approx(mask.sum() * VOXEL, abs=1e-3)


@pytest.mark.parametrize("kind", ["Nifti1Image", "Nifti2Image"])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_every_format_of_volumes_is_predicted(
    tmp_path: Path, use: Any, kind: str, suffix: str
) -> None:
    use()
    image = getattr(nibabel, kind)(HOUNSFIELD, turned_affine(RAS, SHAPE))
    image.header["descrip"] = b"NAME"
    (tmp_path / "in").mkdir()
    image.to_filename(tmp_path / f"in/v{suffix}")
    summary = predict("model_folder", tmp_path / "in", output=tmp_path / "out")
    assert (summary.done, summary.failed) == (1, [])
    written = nibabel.load(tmp_path / "out/masks/v.nii.gz")
    assert type(written).__name__ == kind
    assert not bytes(written.header["descrip"]).strip(b"\0")
    np.testing.assert_array_equal(np.asarray(written.dataobj), BRIGHT)
    source = nibabel.load(tmp_path / f"in/v{suffix}")
    np.testing.assert_array_equal(written.affine, source.affine)


@pytest.mark.parametrize(
    ("suffix", "written"),
    [(".nrrd", ".nrrd"), (".nhdr", ".nrrd"), (".mhd", ".mha"), (".mha", ".mha")],
)
def test_itk_formats_come_back_in_their_own(
    tmp_path: Path, use: Any, suffix: str, written: str
) -> None:
    sitk = pytest.importorskip("SimpleITK")
    use()
    nifti = save(tmp_path / "a.nii", HOUNSFIELD, TURNS[13])
    (tmp_path / "in").mkdir()
    sitk.WriteImage(sitk.ReadImage(nifti), tmp_path / f"in/a{suffix}")
    summary = predict("model_folder", tmp_path / "in", output=tmp_path / "out")
    assert (summary.done, summary.failed) == (1, [])
    image = sitk.ReadImage(tmp_path / f"out/masks/a{written}")
    found = sitk.GetArrayFromImage(image).transpose()
    np.testing.assert_array_equal(found, turned(BRIGHT, TURNS[13]))
    source = sitk.ReadImage(tmp_path / f"in/a{suffix}")
    assert image.GetOrigin() == source.GetOrigin()
    assert image.GetDirection() == source.GetDirection()
    again = predict("model_folder", tmp_path / "in", output=tmp_path / "out")
    assert (again.done, again.skipped) == (0, 1)


def test_slices_are_seen_at_the_spacing_of_the_network(tmp_path: Path, use: Any) -> None:
    """A line of one voxel is kept at the volume's own spacing, and averaged away at four times."""
    voxels = np.full(SHAPE, -1000, np.int16)
    voxels[9, :, 3:6] = 500
    save(tmp_path / "in/a.nii.gz", voxels)
    for scale, expected in ((1, voxels > 0), (4, np.zeros(SHAPE))):
        use(spacing=(SPACING[1] * scale, SPACING[0] * scale))
        output = tmp_path / f"out{scale}"
        predict("model_folder", tmp_path / "in", output=output)
        np.testing.assert_array_equal(label_map(output / "masks/a.nii.gz"), expected)


def test_resampling_for_one_call_leaves_the_predictor_as_it_was(
    tmp_path: Path, make_predictor: Any
) -> None:
    predictor = make_predictor(slicing=RULE)
    before = predictor.info
    predict_files(
        predictor, [save(tmp_path / "a.nii", HOUNSFIELD)], tmp_path / "out", resample=True
    )
    assert predictor.info == before
    assert not before.slicing.resample

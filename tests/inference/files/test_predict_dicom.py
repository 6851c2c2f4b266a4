"""DICOM in: a series gives one label map in its place, a single image a mask of its size."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from dicom_phantom import make_image, make_series, save
from dxseg import predict
from dxseg.data.readers.slicing import Slicing
from dxseg.inference.predictor import Predictor
from progress_calls import on_progress
from volume_phantom import depth_in_ball, dice

# The network finds what is brighter than the level.
RULE = Slicing(window=(100.0, 200.0))
HOUNSFIELD = np.full((10, 24, 32), -1000)
HOUNSFIELD[3:6, 4:9, 20:30] = 500
HOUNSFIELD[8, 15:20, 3:11] = 500


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch, make_predictor: Any) -> Callable[..., Predictor]:
    """Make `predict_files` run the network that finds bright pixels."""

    def install(**options: Any) -> Predictor:
        predictor = make_predictor(**options)
        monkeypatch.setattr(Predictor, "from_folder", lambda *_args, **_options: predictor)
        return predictor

    return install


def rows(output: Path) -> list[dict[str, str]]:
    with (output / "predictions.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.parametrize("orientation", [(1, 0, 0, 0, 1, 0), (0, 1, 0, 0, 0, -1)])
def test_a_series_gives_a_label_map_in_its_place(
    tmp_path: Path, use: Any, orientation: tuple[float, ...]
) -> None:
    use(slicing=RULE)
    objects = make_series(HOUNSFIELD, orientation=orientation)
    for number, ds in enumerate(objects):
        # Names without suffix, in an order that says nothing.
        save(ds, tmp_path / "export/CT" / f"IM{7 * number % 10}")
    calls: list[tuple[int, int]] = []
    with on_progress(lambda *call: calls.append(call)):
        summary = predict("model_folder", tmp_path / "export", output=tmp_path / "out")
    assert (summary.done, summary.failed) == (1, [])
    assert calls[-1] == (10, 10)
    written = nibabel.load(tmp_path / "out/masks/CT.nii.gz")
    mask = np.asarray(written.dataobj)
    assert np.array_equal(mask, (HOUNSFIELD > 100).transpose(2, 1, 0))
    for column, row, index in [(0, 0, 0), (31, 23, 9), (5, 2, 7)]:
        ds = objects[index]
        place = (
            np.array(ds.ImagePositionPatient)
            + np.array(orientation[:3]) * ds.PixelSpacing[1] * column
            + np.array(orientation[3:]) * ds.PixelSpacing[0] * row
        )
        assert (written.affine @ [column, row, index, 1])[:3] == pytest.approx(place * [-1, -1, 1])
    assert (written.header["sform_code"], written.header["qform_code"]) == (1, 1)
    assert np.allclose(written.get_qform(), written.affine)
    [told] = rows(tmp_path / "out")
    assert (told["name"], told["slices"], told["status"]) == ("CT", "10", "ok")
    volume = (HOUNSFIELD > 100).sum() * 2.0 * 0.5 * 0.75
    assert float(told["lesion_volume_mm3"]) == pytest.approx(volume)
    again = predict("model_folder", tmp_path / "export", output=tmp_path / "out")
    assert (again.done, again.skipped) == (0, 1)


def test_overlays_of_a_series_spare_those_of_images_beside_it(tmp_path: Path, use: Any) -> None:
    use(slicing=RULE)
    for number, ds in enumerate(make_series(HOUNSFIELD)):
        save(ds, tmp_path / "in/CT" / f"{number}.dcm")
    Image.fromarray(np.full((32, 32), 250, np.uint8)).save(tmp_path / "in/CT/0003.png")
    summary = predict("model_folder", tmp_path / "in", output=tmp_path / "out", slice_overlays=True)
    assert (summary.done, summary.failed) == (2, [])
    written = {path.relative_to(tmp_path / "out").as_posix() for path in tmp_path.rglob("out/**/*")}
    assert {"masks/CT.nii.gz", "masks/CT/0003.png", "overlays/CT/0003.png"} <= written
    slices = {name for name in written if name.startswith("overlays/CT.nii.gz/")}
    assert len(slices) == 4, "those with a lesion"


def test_the_folder_of_a_series_may_be_named_itself(tmp_path: Path, use: Any) -> None:
    use(slicing=RULE)
    for number, ds in enumerate(make_series(HOUNSFIELD)):
        save(ds, tmp_path / "CT" / f"{number}.dcm")
    predict("model_folder", tmp_path / "CT", output=tmp_path / "out")
    assert (tmp_path / "out/masks/CT.nii.gz").is_file()


def test_series_that_cannot_be_stacked_fail_alone(tmp_path: Path, use: Any) -> None:
    use(slicing=RULE)
    for number, ds in enumerate([*make_series(HOUNSFIELD), *make_series(HOUNSFIELD)]):
        save(ds, tmp_path / "in/two" / f"{number}.dcm")
    for number, ds in enumerate(make_series(HOUNSFIELD)):
        save(ds, tmp_path / "in/one" / f"{number}.dcm")
    (tmp_path / "in/gap").mkdir()
    for path in sorted((tmp_path / "in/one").iterdir())[::3]:
        (tmp_path / "in/gap" / path.name).write_bytes(path.read_bytes())
    (tmp_path / "in/gap/1.dcm").write_bytes((tmp_path / "in/one/1.dcm").read_bytes())
    summary = predict("model_folder", tmp_path / "in", output=tmp_path / "out")
    assert summary.done == 1
    reasons = dict(summary.failed)
    assert "contains slices of 2 volumes; expected one" in reasons["two"]
    assert "expected equal distances" in reasons["gap"]


def test_for_a_model_of_images_each_slice_is_an_image(tmp_path: Path, use: Any) -> None:
    use(high=65535.0)
    objects = make_series(HOUNSFIELD[:3], WindowCenter=100, WindowWidth=200)
    for number, ds in enumerate(objects):
        save(ds, tmp_path / "in" / f"{number}.dcm")
    assert predict("model_folder", tmp_path / "in", output=tmp_path / "out").done == 3
    assert len(list((tmp_path / "out/masks").glob("*.png"))) == 3


def test_a_single_image_gives_a_mask_of_its_size(tmp_path: Path, use: Any) -> None:
    use()
    pixels = np.full((40, 56), 10, np.uint8)
    pixels[4:12, 20:36] = 250
    for name in ("a.dcm", "b"):
        save(make_image(pixels), tmp_path / "in" / name)
    summary = predict(
        "model_folder", [tmp_path / "in/a.dcm", tmp_path / "in/b"], output=tmp_path / "out"
    )
    assert summary.failed == []
    for name in ("a", "b"):
        mask = np.asarray(Image.open(tmp_path / f"out/masks/{name}.png"))
        assert mask.shape == (40, 56)
        assert mask[8, 28] == 255
        assert mask[30, 10] == 0


def test_images_without_spacing_are_named_where_the_network_has_one(
    tmp_path: Path, use: Any
) -> None:
    use(spacing=(0.5, 0.5))
    pixels = np.full((20, 20), 10, np.uint8)
    save(make_image(pixels, PixelSpacing=[0.5, 0.5]), tmp_path / "in/known.dcm")
    save(make_image(pixels), tmp_path / "in/unknown.dcm")
    Image.fromarray(pixels).save(tmp_path / "in/picture.png")
    summary = predict("model_folder", tmp_path / "in", output=tmp_path / "out")
    assert sorted(summary.of_unknown_spacing) == ["picture.png", "unknown.dcm"]
    assert "Of unknown spacing" in str(summary)
    use()
    summary = predict("model_folder", tmp_path / "in", output=tmp_path / "other")
    assert summary.of_unknown_spacing == []


def test_inputs_that_were_reduced_below_the_spacing_are_named(tmp_path: Path, use: Any) -> None:
    pixels = np.full((40, 20), 10, np.uint8)
    for name, spacing in (("small", 0.5), ("large", 1.0)):
        save(make_image(pixels, PixelSpacing=[spacing, spacing]), tmp_path / f"in/{name}.dcm")
    for number, ds in enumerate(make_series(HOUNSFIELD[:3])):
        save(ds, tmp_path / "in/series" / f"{number}.dcm")
    slicing = Slicing(window=(100.0, 200.0))
    use(spacing=(1.0, 1.0), slicing=slicing)
    summary = predict("model_folder", tmp_path / "in", output=tmp_path / "out")
    assert summary.failed == []
    assert summary.reduced == ["large.dcm"]
    assert "reduced further: 1 (large.dcm)" in str(summary)
    use(spacing=(0.1, 0.1), slicing=slicing)
    summary = predict("model_folder", tmp_path / "in", output=tmp_path / "finer")
    assert sorted(summary.reduced) == ["large.dcm", "series", "small.dcm"]
    use(spacing=(0.1, 0.1), slicing=slicing, sliding_window=True)
    assert predict("model_folder", tmp_path / "in", output=tmp_path / "cut").reduced == []


RADIUS = 14.0


def ball(kind: str) -> tuple[list[Any], np.ndarray]:
    """A series through a ball, and its mask (slice, row, column)."""
    shape, heights = (24, 40, 44), 2.5 * np.arange(24)
    orientation: tuple[float, ...] = (1, 0, 0, 0, 1, 0)
    shift = np.zeros(3)
    if kind == "uneven":
        heights = np.cumsum(np.tile([1.5, 2.5, 3.5, 2.5], 6)) - 1.5
    elif kind == "tilted":
        shift = np.array([0, np.tan(np.deg2rad(14)), 0])
    else:
        turn = Rotation.from_euler("xz", [18, -10], degrees=True).as_matrix()
        orientation = tuple(turn[:2].flat)
    objects = make_series(np.zeros(shape), spacing=(2.5, 1.0, 1.1), orientation=orientation)
    row, column = np.reshape(orientation, (2, 3))
    across, y, x = np.cross(row, column), *np.mgrid[:40, :44]
    origin = -(across * 29 + shift * 29 + row * 1.1 * 21 + column * 19)
    inside = np.zeros(shape, bool)
    for index, (ds, height) in enumerate(zip(objects, heights, strict=True)):
        first = origin + (across + shift) * height
        points = first + x[..., None] * 1.1 * row + y[..., None] * column
        depth = depth_in_ball(points, (0.0, 0.0, 0.0), RADIUS)
        inside[index] = depth > 0
        ds.ImagePositionPatient = [float(value) for value in first]
        ds.PixelData = (100 + 20 * depth + 1024).clip(0).astype(np.int16).tobytes()
    return objects, inside


@pytest.mark.parametrize("kind", ["uneven", "tilted", "rotated"])
def test_a_stack_askew_is_resampled_on_request_and_its_mask_comes_back(
    tmp_path: Path, use: Any, kind: str
) -> None:
    use(slicing=Slicing(window=(100.0, 200.0), axis="axial"), size=64)
    objects, inside = ball(kind)
    for number, ds in enumerate(objects):
        save(ds, tmp_path / "in/CT" / f"{number}.dcm")
    if kind != "rotated":
        summary = predict("model_folder", tmp_path / "in", output=tmp_path / "refused")
        [(_, reason)] = summary.failed
        assert "--resample" in reason
    options = {"resample": True, "slice_overlays": True}
    summary = predict("model_folder", tmp_path / "in", output=tmp_path / "out", **options)
    assert (summary.done, summary.failed) == (1, [])
    written = nibabel.load(tmp_path / "out/masks/CT.nii.gz")
    found = np.asarray(written.dataobj).transpose(2, 1, 0)
    assert found.shape == inside.shape
    assert dice(found, inside) > 0.95
    [told] = rows(tmp_path / "out")
    assert float(told["lesion_volume_mm3"]) == pytest.approx(4 / 3 * np.pi * RADIUS**3, rel=0.06)
    assert list((tmp_path / "out/overlays/CT.nii.gz").glob("*.png"))

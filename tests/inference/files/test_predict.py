from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

import dicom_phantom
from dxseg import predict
from dxseg.data.readers.images import READERS
from dxseg.errors import DxsegError, UsageError
from dxseg.inference.files import job as job_module
from dxseg.inference.predictor import Predictor
from progress_calls import on_progress


@pytest.fixture
def use(monkeypatch, make_predictor) -> Callable[..., list[str]]:
    """Make `predict_files` run the network that finds bright pixels; gives the files it read."""

    def install(**options: object) -> list[str]:
        predictor = make_predictor(**options)
        read: list[str] = []
        stream = predictor.stream

        def spying(items, **options):
            def spied():
                for name, path in items:
                    read.append(name)
                    yield name, path

            return stream(spied(), **options)

        monkeypatch.setattr(predictor, "stream", spying)
        monkeypatch.setattr(Predictor, "from_folder", lambda *_args, **_options: predictor)
        return read

    return install


def table(output: Path) -> dict[str, dict[str, str]]:
    with (output / "predictions.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len({row["name"] for row in rows}) == len(rows), "one row an image"
    return {row["name"]: row for row in rows}


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as opened:
        return np.array(opened)


def files_below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_results_of_a_folder(tmp_path, use, write_image):
    use()
    square = np.full((32, 32, 1), 10, np.uint8)
    square[4:12, 4:12] = 250
    write_image(tmp_path / "in/sub/a.png", square)
    write_image(tmp_path / "in/dark.png", np.full((20, 50, 1), 10, np.uint8))
    calls: list[tuple[int, int]] = []
    with on_progress(lambda *call: calls.append(call)):
        summary = predict("model_folder", tmp_path / "in", output=tmp_path / "out")
    assert (summary.done, summary.skipped, summary.failed) == (2, 0, [])
    assert calls == [(0, 2), (1, 2), (2, 2)]
    assert files_below(tmp_path / "out") == {
        "predictions.csv",
        "masks/sub/a.png",
        "masks/dark.png",
        "overlays/sub/a.png",
        "overlays/dark.png",
    }
    assert (pixels(tmp_path / "out/masks/sub/a.png") == np.where(square[..., 0] > 99, 255, 0)).all()
    assert pixels(tmp_path / "out/masks/dark.png").shape == (20, 50)
    assert pixels(tmp_path / "out/overlays/dark.png").shape == (20, 50, 3)
    rows = table(tmp_path / "out")
    row = rows["sub/a.png"]
    assert (row["height"], row["width"], row["status"], row["error"]) == ("32", "32", "ok", "")
    assert row["lesion_area_px"] == "64"
    assert float(row["p_normal"]) + float(row["p_bright"]) == pytest.approx(1, abs=2e-6)
    assert 0.99 < float(row["confidence"]) <= 1
    assert rows["dark.png"]["lesion_area_px"] == "0"
    assert "lesion_area_mm2" not in row, "a PNG has no spacing"


def test_several_classes_have_an_area_each(tmp_path, use, write_image):
    use(channels=3, classes=2, labels=())
    image = np.full((32, 32, 3), 10, np.uint8)
    image[:8, :8, 0] = 250
    image[16:20, 16:20, 1] = 250
    write_image(tmp_path / "in/a.png", image)
    predict("model_folder", tmp_path / "in", output=tmp_path / "out")
    row = table(tmp_path / "out")["a.png"]
    areas = ("lesion_area_px", "lesion_area_px_class0", "lesion_area_px_class1")
    assert [row[name] for name in areas] == ["80", "64", "16"]
    assert np.unique(pixels(tmp_path / "out/masks/a.png")).tolist() == [0, 1, 2]


def test_a_corrupt_file_is_listed_and_the_others_done(tmp_path, use, write_image):
    use(batch_size=2)
    for index in range(5):
        write_image(tmp_path / f"in/{index}.png")
    (tmp_path / "in/2.png").write_bytes((tmp_path / "in/1.png").read_bytes()[:50])
    (tmp_path / "in/3.png").write_bytes(b"")
    summary = predict("model_folder", tmp_path / "in", output=tmp_path / "out")
    assert summary.done == 3
    assert [name for name, _ in summary.failed] == ["2.png", "3.png"]
    rows = table(tmp_path / "out")
    assert [rows[f"{index}.png"]["status"] for index in range(5)] == [
        *("ok", "ok"),
        *("failed", "failed"),
        "ok",
    ]
    assert "2.png" in rows["2.png"]["error"]
    assert not (tmp_path / "out/masks/2.png").exists()


def test_again_only_what_is_missing_is_predicted(tmp_path, use, write_image):
    read = use()
    for index in range(5):
        write_image(tmp_path / f"in/{index}.png")
    (tmp_path / "in/2.png").write_bytes(b"broken")
    predict("model_folder", tmp_path / "in", output=tmp_path / "out")
    read.clear()
    write_image(tmp_path / "in/2.png")
    write_image(tmp_path / "in/new.png")
    (tmp_path / "out/masks/4.png").unlink()
    calls: list[tuple[int, int]] = []
    with on_progress(lambda *call: calls.append(call)):
        summary = predict("model_folder", tmp_path / "in", output=tmp_path / "out")
    assert read == ["2.png", "4.png", "new.png"]
    assert (summary.done, summary.skipped, summary.failed) == (3, 3, [])
    assert calls[0] == (3, 6)
    assert calls[-1] == (6, 6)
    assert {row["status"] for row in table(tmp_path / "out").values()} == {"ok"}
    assert len(table(tmp_path / "out")) == 6


@pytest.mark.parametrize("kind", ["masks", "overlays"])
def test_a_result_that_a_power_cut_emptied_is_predicted_again(tmp_path, use, write_image, kind):
    read = use()
    write_image(tmp_path / "in/a.png")
    write_image(tmp_path / "in/b.png")
    predict("model_folder", tmp_path / "in", output=tmp_path / "out")
    path = tmp_path / "out" / kind / "a.png"
    whole = path.read_bytes()
    path.write_bytes(b"")
    read.clear()
    predict("model_folder", tmp_path / "in", output=tmp_path / "out")
    assert read == ["a.png"]
    assert path.read_bytes() == whole


def test_a_torn_last_row_is_predicted_again(tmp_path, use, write_image):
    read = use()
    for index in range(3):
        write_image(tmp_path / f"in/{index}.png")
    predict("model_folder", tmp_path / "in", output=tmp_path / "out")
    path = tmp_path / "out/predictions.csv"
    whole = path.read_bytes()
    last = whole[:-1].rindex(b"\n") + 1
    for length in (last + 1, last + 9, len(whole) - 1):
        path.write_bytes(whole[:length])
        read.clear()
        predict("model_folder", tmp_path / "in", output=tmp_path / "out")
        assert read == ["2.png"]
        assert path.read_bytes() == whole


def test_overwrite_predicts_everything_anew(tmp_path, use, write_image):
    read = use()
    write_image(tmp_path / "in/a.png")
    predict("model_folder", tmp_path / "in", output=tmp_path / "out")
    predict("model_folder", tmp_path / "in", output=tmp_path / "out", overwrite=True)
    assert read == ["a.png", "a.png"]
    assert len(table(tmp_path / "out")) == 1


def test_another_model_does_not_inherit_results(tmp_path, use, write_image):
    use()
    write_image(tmp_path / "in/a.png")
    predict("model_folder", tmp_path / "in", output=tmp_path / "out")
    read = use(digest="cd" * 32, threshold=0.999999)
    predict("model_folder", tmp_path / "in", output=tmp_path / "out")
    assert read == ["a.png"]
    row = table(tmp_path / "out")["a.png"]
    assert (row["model"].split("-")[0], row["lesion_area_px"]) == ("cdcdcdcdcdcd", "0")
    use(labels=("other",))
    with pytest.raises(DxsegError, match="another output folder"):
        predict("model_folder", tmp_path / "in", output=tmp_path / "out")
    predict("model_folder", tmp_path / "in", output=tmp_path / "out", overwrite=True)
    assert "p_other" in table(tmp_path / "out")["a.png"]


@pytest.mark.parametrize("changed", [{"threshold": 0.9}, {"flip": True}, {"sliding_window": True}])
def test_results_of_other_settings_are_predicted_anew(tmp_path, use, write_image, changed):
    use()
    write_image(tmp_path / "in/a.png")
    predict("model_folder", tmp_path / "in", output=tmp_path / "out")
    use()
    assert predict("model_folder", tmp_path / "in", output=tmp_path / "out").skipped == 1
    read = use(**changed)
    predict("model_folder", tmp_path / "in", output=tmp_path / "out")
    assert read == ["a.png"]


def test_another_file_of_the_same_name_is_no_skip_and_no_overwriting(tmp_path, use, write_image):
    use()
    write_image(tmp_path / "p1/a.png")
    write_image(tmp_path / "p2/a.png", np.zeros((9, 9, 1), np.uint8))
    predict("model_folder", tmp_path / "p1", output=tmp_path / "out")
    before = (tmp_path / "out/masks/a.png").read_bytes()
    with pytest.raises(UsageError, match="under the name"):
        predict("model_folder", tmp_path / "p2", output=tmp_path / "out")
    assert (tmp_path / "out/masks/a.png").read_bytes() == before
    assert len(table(tmp_path / "out")) == 1


def test_rows_of_other_inputs_stay(tmp_path, use, write_image):
    use()
    write_image(tmp_path / "in/a.png")
    write_image(tmp_path / "in/b.png")
    (tmp_path / "in/b.png").write_bytes(b"broken")
    predict("model_folder", tmp_path / "in/b.png", output=tmp_path / "out")
    predict("model_folder", tmp_path / "in/a.png", output=tmp_path / "out")
    assert {name: row["status"] for name, row in table(tmp_path / "out").items()} == {
        "b.png": "failed",
        "a.png": "ok",
    }


def test_a_failure_leaves_no_result_of_before(tmp_path, use, write_image):
    use()
    path = write_image(tmp_path / "in/a.png")
    predict("model_folder", tmp_path / "in", output=tmp_path / "out")
    path.write_bytes(b"broken")
    predict("model_folder", tmp_path / "in", output=tmp_path / "out", overwrite=True)
    assert files_below(tmp_path / "out") == {"predictions.csv"}


def test_masks_that_are_not_ours_are_not_overwritten(tmp_path, use, write_image):
    use()
    write_image(tmp_path / "data/a.png")
    truth = write_image(tmp_path / "data/masks/a.png", np.full((32, 32, 1), 7, np.uint8))
    before = truth.read_bytes()
    with pytest.raises(UsageError, match="choose another output folder"):
        predict("model_folder", tmp_path / "data/a.png", output=tmp_path / "data")
    assert truth.read_bytes() == before


def test_an_output_inside_the_input_is_not_predicted(tmp_path, use, write_image):
    read = use()
    write_image(tmp_path / "a.png")
    for _ in range(2):
        predict("model_folder", tmp_path, output=tmp_path / "out")
    assert read == ["a.png"]


def test_links_in_the_output_do_not_lead_the_writing_elsewhere(tmp_path, use, write_image):
    use()
    write_image(tmp_path / "in/sub/a.png")
    write_image(tmp_path / "in/b.png")
    predict("model_folder", tmp_path / "in/b.png", output=tmp_path / "out")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "a.png").write_bytes(b"precious")
    (tmp_path / "out/masks/sub").symlink_to(outside)
    summary = predict("model_folder", tmp_path / "in", output=tmp_path / "out")
    assert [name for name, _ in summary.failed] == ["sub/a.png"]
    assert (outside / "a.png").read_bytes() == b"precious"
    (tmp_path / "out/masks/b.png").unlink()
    (tmp_path / "out/masks/b.png").symlink_to(outside / "a.png")
    predict("model_folder", tmp_path / "in/b.png", output=tmp_path / "out", overwrite=True)
    assert (outside / "a.png").read_bytes() == b"precious", "the link was replaced, not followed"


def test_names_that_are_no_text_are_predicted(tmp_path, use, write_image):
    use()
    source = write_image(tmp_path / "in/a.png")
    names = ["new\nline.png", 'quo"te, comma.png', "=1+1.png", os.fsdecode(b"\xff\xfe.png")]
    for name in names:
        (tmp_path / "in" / name).write_bytes(source.read_bytes())
    assert predict("model_folder", tmp_path / "in", output=tmp_path / "out").done == 5
    assert predict("model_folder", tmp_path / "in", output=tmp_path / "out").skipped == 5
    escaped = {"a.png", r"new\nline.png", 'quo"te, comma.png', "./=1+1.png", r"\xff\xfe.png"}
    assert set(table(tmp_path / "out")) == escaped


def test_an_output_that_cannot_be_written_is_told(tmp_path, use, write_image):
    use()
    write_image(tmp_path / "in/a.png")
    (tmp_path / "out").write_text("a file")
    with pytest.raises(DxsegError, match="cannot write"):
        predict("model_folder", tmp_path / "in", output=tmp_path / "out")


def test_a_bad_model_folder_stops_before_anything_is_written(tmp_path, write_image):
    write_image(tmp_path / "in/a.png")
    with pytest.raises(DxsegError, match=r"model\.json"):
        predict(tmp_path / "nothing", tmp_path / "in", output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


KILLED = """
import sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from brightness import Maker
from dxseg.inference.files.predict import predict_files
predictor = Maker()(batch_size=1)
predict_files(predictor, [{source!r}], Path({output!r}), progress=lambda *_call: time.sleep(0.02))
"""


def test_killed_and_started_again_it_ends_as_if_never_killed(tmp_path, use, write_image):
    for index in range(40):
        write_image(tmp_path / f"in/{index:02}.png")
    code = KILLED.format(
        tests=str(Path(__file__).parents[2]),
        source=str(tmp_path / "in"),
        output=str(tmp_path / "out"),
    )
    process = subprocess.Popen([sys.executable, "-c", code])
    path = tmp_path / "out/predictions.csv"
    deadline = time.monotonic() + 60
    while not (path.exists() and path.read_bytes().count(b"\n") > 5):
        assert process.poll() is None, "ended too early"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    finished = [name for name, row in table(tmp_path / "out").items() if row["status"] == "ok"]
    assert 5 <= len(finished) < 40
    read = use()
    summary = predict("model_folder", tmp_path / "in", output=tmp_path / "out")
    assert not set(read) & set(finished)
    assert summary.done + summary.skipped == 40
    masks = [path for path in (tmp_path / "out/masks").iterdir() if path.name[0] != "."]
    assert {pixels(mask).sum() for mask in masks} == {64 * 255}
    assert len(masks) == len(table(tmp_path / "out")) == 40


@pytest.mark.parametrize("suffix", sorted(READERS))
def test_every_readable_format_of_images_is_predicted(tmp_path, use, suffix):
    use()
    bright = np.full((32, 48), 10, np.uint8)
    bright[4:12, 20:36] = 250
    path = tmp_path / "in" / f"a{suffix}"
    path.parent.mkdir()
    if suffix == ".dcm":
        dicom_phantom.save(dicom_phantom.make_image(bright), path)
    else:
        Image.fromarray(bright).save(path)
    summary = predict("model_folder", path, output=tmp_path / "out")
    assert (summary.done, summary.failed) == (1, [])
    mask = pixels(tmp_path / "out/masks/a.png")
    assert mask.shape == bright.shape
    assert (mask[5:11, 21:35] == 255).all()
    assert not mask[16:].any()


def test_an_unforeseen_exception_costs_one_row(tmp_path, use, write_image, monkeypatch):
    use()
    for name in ("a", "b", "c"):
        write_image(tmp_path / f"in/{name}.png")
    write = job_module.write_mask_png

    def fail(path, *args):
        if path.name == "b.png":
            raise KeyError("no field of name db_name")
        write(path, *args)

    monkeypatch.setattr(job_module, "write_mask_png", fail)
    summary = predict("model_folder", tmp_path / "in", output=tmp_path / "out")
    assert summary.done == 2
    [(name, reason)] = summary.failed
    assert name == "b.png"
    assert "KeyError: 'no field of name db_name'" in reason
    rows = table(tmp_path / "out")
    assert [rows[f"{name}.png"]["status"] for name in "abc"] == ["ok", "failed", "ok"]


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_a_mask_fits_its_image_as_viewers_show_it(tmp_path, use, orientation):
    use()
    bright = np.full((32, 48), 10, np.uint8)
    bright[4:12, 4:20] = 250
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(bright).save(tmp_path / "a.png", exif=exif)
    summary = predict("model_folder", tmp_path / "a.png", output=tmp_path / "out")
    with Image.open(tmp_path / "a.png") as opened:
        shown = np.asarray(ImageOps.exif_transpose(opened))
    mask = pixels(tmp_path / "out/masks/a.png")
    assert mask.shape == shown.shape
    assert (mask[shown > 200] == 255).mean() > 0.8
    assert (mask[shown < 200] == 0).mean() > 0.95
    assert pixels(tmp_path / "out/overlays/a.png").shape[:2] == shown.shape
    row = table(tmp_path / "out")["a.png"]
    assert (int(row["height"]), int(row["width"])) == shown.shape
    assert summary.turned == (orientation != 1)
    assert ("as viewers show them" in str(summary)) == (orientation != 1)


def test_what_is_passed_over_is_named_and_counted(tmp_path, use, write_image):
    use()
    write_image(tmp_path / "in/a.png", np.full((20, 20, 1), 10, np.uint8))
    Image.new("L", (20, 20)).save(tmp_path / "in/b.webp")
    for name in ("e.mha", "sub/f.nrrd", "scan.NII.bz2", "notes.txt", ".hidden.mha"):
        (tmp_path / "in" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "in" / name).write_bytes(b"x")
    summary = predict("model_folder", tmp_path / "in", output=tmp_path / "in/out")
    assert summary.done == 2
    assert {Path(name).name for name, _ in summary.failed} == {"e.mha", "f.nrrd"}
    assert set(summary.passed_over) == {"scan.NII.bz2", "notes.txt"}
    assert "Not images: 2" in str(summary)
    again = predict("model_folder", tmp_path / "in", output=tmp_path / "in/out")
    assert (again.done, again.skipped, len(again.failed)) == (0, 2, 2)
    assert set(again.passed_over) == {"scan.NII.bz2", "notes.txt"}

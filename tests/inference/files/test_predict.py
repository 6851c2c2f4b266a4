from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

import dicom_phantom
from dxseg import predict
from dxseg.data.readers.images import READERS
from dxseg.errors import DxsegError, UsageError
from dxseg.inference.files import job as job_module
from predictions import files_below, pixels, table
from progress_calls import on_progress


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


def test_an_image_that_vanishes_after_it_was_read_does_not_end_the_others(
    tmp_path, use, write_image, monkeypatch
):
    use()
    for name in ("a", "b", "c"):
        write_image(tmp_path / f"in/{name}.png")
    write = job_module.write_mask_png

    def vanish(path, *mask):
        write(path, *mask)
        if path.name == "b.png":
            (tmp_path / "in/b.png").unlink()

    monkeypatch.setattr(job_module, "write_mask_png", vanish)
    summary = predict("model_folder", tmp_path / "in", output=tmp_path / "out")
    assert (summary.done, [name for name, _ in summary.failed]) == (2, ["b.png"])
    assert not (tmp_path / "out/masks/b.png").exists()
    statuses = {name: row["status"] for name, row in table(tmp_path / "out").items()}
    assert statuses == {"a.png": "ok", "b.png": "failed", "c.png": "ok"}


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


@pytest.mark.parametrize("step", ["write_mask_png", "image_orientation"])
def test_an_unforeseen_exception_costs_one_row(tmp_path, use, write_image, monkeypatch, step):
    use()
    for name in ("a", "b", "c"):
        write_image(tmp_path / f"in/{name}.png")
    original = getattr(job_module, step)

    def fail(path, *args):
        if path.name == "b.png":
            raise KeyError("no field of name db_name")
        return original(path, *args)

    monkeypatch.setattr(job_module, step, fail)
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

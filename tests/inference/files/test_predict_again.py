"""A later call of `dxseg predict` keeps what is still valid, and predicts the rest."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from dxseg import predict
from dxseg.errors import DxsegError, UsageError
from predictions import files_below, pixels, table
from progress_calls import on_progress


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


def test_an_image_that_was_replaced_is_predicted_again(tmp_path, use, write_image):
    read = use()
    path = write_image(tmp_path / "in/a.png")
    other = write_image(tmp_path / "new/a.png", np.zeros((9, 9, 1), np.uint8))
    os.utime(other, (0, 0))  # moved with its old time, as by rsync or from an archive
    predict("model_folder", tmp_path / "in", output=tmp_path / "out")
    # Clocks of file systems stand still for milliseconds, so the mask is made an older one.
    os.utime(tmp_path / "out/masks/a.png", (time.time() - 10,) * 2)
    read.clear()
    other.replace(path)
    for _ in range(2):
        predict("model_folder", tmp_path / "in", output=tmp_path / "out")
    assert read == ["a.png"]
    assert pixels(tmp_path / "out/masks/a.png").shape == (9, 9)


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

"""Archives without Ray: what the master and a worker do, in one process."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from brightness import bright_square
from cli_results import call
from dxseg import predict
from dxseg.errors import DxsegError, UsageError
from dxseg.inference.files.output_folder import PredictSummary
from dxseg.inference.predictor import Predictor
from extras import need_ray
from progress_calls import on_progress

pytest.importorskip("pyarrow", reason="the extra ray is not installed")

from dxseg.inference.ray import predict as archive
from dxseg.inference.ray import worker
from dxseg.inference.ray.inputs import archive_items
from dxseg.inference.ray.parquet import RESULTS
from dxseg.inference.ray.worker import PartPredictor

need_ray()

Here = Callable[..., None]


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, make_predictor: Callable[..., Predictor]) -> Here:
    """Parts are worked off in this process, by the network that finds bright pixels."""

    def work(parts: Any, worker_kwargs: dict[str, Any], _workers: int) -> Iterator[Any]:
        worker = PartPredictor(**{**worker_kwargs, "threads": 1})
        for part in parts:
            answer = worker({"part": [json.dumps(part)], "size": [len(part)]})
            yield json.loads(answer["failed"][0]), answer["size"][0]

    def install(**options: Any) -> None:
        monkeypatch.setattr(archive, "_run_workers", work)
        predictor = make_predictor(**options)
        monkeypatch.setattr(Predictor, "from_folder", lambda *_args, **_options: predictor)

    return install


@pytest.fixture
def images(tmp_path: Path, write_image: Callable[..., Path]) -> Path:
    """Ten, one of them dark, of two sizes and in two folders."""
    folder = tmp_path / "in"
    for number in range(10):
        side = 32 if number % 2 else 48
        write_image(
            folder / ("a" if number < 5 else "b") / f"{number}.png", bright_square(side, side)
        )
    write_image(folder / "b" / "9.png", np.zeros((32, 32, 1), np.uint8))
    return folder


def results(output: Path) -> pd.DataFrame:
    table = pd.read_parquet(output / RESULTS).sort_values("name", ignore_index=True)
    assert not table["name"].duplicated().any(), "one row an image"
    return table


def mask_of(content: bytes) -> np.ndarray[Any, Any]:
    return np.array(Image.open(io.BytesIO(content)))


@pytest.mark.parametrize("classes", [1, 2])
def test_it_says_of_each_image_what_predict_says(
    here: Here, images: Path, tmp_path: Path, classes: int
) -> None:
    here(classes=classes, channels=3)
    labels = {"a/1.png": "normal"}
    predict("model", images, output=tmp_path / "files", overlays=False, labels=labels)
    summary = predict("model", images, output=tmp_path / "out", labels=labels, engine="ray")
    assert (summary.done, summary.failed, summary.label_prompts) == (10, [], 1)
    table = results(tmp_path / "out")
    with (tmp_path / "files" / "predictions.csv").open(newline="") as stream:
        expected = {row["name"]: row for row in csv.DictReader(stream)}
    assert set(table["name"]) == set(expected)
    for row in table.to_dict("records"):
        said = expected[row["name"]]
        assert set(said) - set(row) == {"status", "error"}
        assert set(row) - set(said) == {"mask"}
        for column in set(said) & set(row):
            value = said[column] if isinstance(row[column], str) else float(said[column])
            assert row[column] == value, column
        with Image.open(tmp_path / "files" / "masks" / row["name"]) as written:
            assert np.array_equal(np.array(written), mask_of(row["mask"]))
    assert table["lesion_area_px"].max() > 0
    assert pd.api.types.is_float_dtype(table["p_bright"])


def test_a_second_call_does_nothing_and_new_images_are_added(
    here: Here, images: Path, tmp_path: Path, write_image: Callable[..., Path]
) -> None:
    here()
    out = tmp_path / "out"
    told: list[tuple[int, int]] = []
    with on_progress(lambda *call: told.append(call)):
        predict("model", images, output=out, workers=1, engine="ray")
    assert told[0] == (0, 10)
    assert told[-1] == (10, 10)
    parts = {path.name: path.read_bytes() for path in (out / RESULTS).iterdir()}
    assert predict("model", images, output=out, engine="ray") == PredictSummary(skipped=10)
    assert {path.name: path.read_bytes() for path in (out / RESULTS).iterdir()} == parts
    write_image(images / "c.png")
    again = predict("model", images, output=out, engine="ray")
    assert (again.done, again.skipped) == (1, 10)
    assert len(results(out)) == 11


def test_what_fails_has_no_row_and_is_tried_again(
    here: Here, images: Path, tmp_path: Path, write_image: Callable[..., Path]
) -> None:
    here()
    out = tmp_path / "out"
    broken = images / "a" / "3.png"
    broken.write_bytes(b"nonsense")
    for _ in range(2):
        summary = predict("model", images, output=out, engine="ray")
        assert [name for name, _ in summary.failed] == ["a/3.png"]
        assert "not an image" in summary.failed[0][1]
        assert "a/3.png" not in set(results(out)["name"])
    write_image(broken)
    assert predict("model", images, output=out, engine="ray").done == 1
    assert len(results(out)) == 10


def test_another_known_label_or_file_replaces_the_row(
    here: Here, images: Path, tmp_path: Path
) -> None:
    here(lesion_free=("normal",))
    out = tmp_path / "out"
    predict("model", images, output=out, labels={"a/1.png": "bright"}, engine="ray")
    summary = predict("model", images, output=out, labels={"a/1.png": "normal"}, engine="ray")
    assert (summary.done, summary.skipped) == (1, 9)
    row = results(out).set_index("name").loc["a/1.png"]
    assert (row["label_prompt"], row["lesion_area_px"]) == ("normal", 0)
    table = tmp_path / "moved.csv"
    table.write_text("case_id,image\na/1.png,in/b/9.png\n")
    assert predict("model", table, output=out, engine="ray").done == 1
    assert results(out).set_index("name").loc["a/1.png", "source"] == str(images / "b" / "9.png")


def test_an_image_that_was_replaced_is_predicted_again(
    here: Here, images: Path, tmp_path: Path, write_image: Callable[..., Path]
) -> None:
    """Also where its part was rewritten in the meantime, for another image."""
    here()
    out = tmp_path / "out"
    predict("model", images / "a", output=out, workers=1, engine="ray")
    for name in ("0.png", "1.png"):  # of one part
        write_image(images / "a" / name, np.zeros((9, 9, 1), np.uint8))
    assert predict("model", images / "a/1.png", output=out, engine="ray").done == 1
    summary = predict("model", images / "a", output=out, engine="ray")
    assert (summary.done, summary.skipped) == (1, 4)
    assert set(results(out).set_index("name").loc[["0.png", "1.png"], "height"]) == {9}


def test_results_of_a_model_without_labels_are_continued(
    here: Here, images: Path, tmp_path: Path
) -> None:
    here(labels=())
    predict("model", images, output=tmp_path / "out", engine="ray")
    again = predict("model", images, output=tmp_path / "out", engine="ray")
    assert again == PredictSummary(skipped=10)


def test_a_result_that_is_there_twice_is_there_once_afterwards(
    here: Here, images: Path, tmp_path: Path
) -> None:
    """As a worker might leave it that outlived a killed master."""
    here()
    out = tmp_path / "out"
    predict("model", images / "a", output=out, workers=1, engine="ray")
    for part in list((out / RESULTS).glob("*.parquet")):
        shutil.copy(part, part.with_name(f"x{part.name}"))
    assert predict("model", images / "a", output=out, engine="ray") == PredictSummary(skipped=5)
    assert len(results(out)) == 5


def test_a_part_that_cannot_be_written_is_told_with_the_reason(
    here: Here, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here()

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(worker, "write_part", full)
        summary = predict("model", images, output=tmp_path / "out", engine="ray")
    assert (summary.done, len(summary.failed)) == (0, 10)
    assert all("No space left" in reason for _, reason in summary.failed)
    assert predict("model", images, output=tmp_path / "out", engine="ray").done == 10


def test_parts_that_were_given_up_are_told(
    here: Here, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here()
    work = archive._run_workers
    monkeypatch.setattr(archive, "_run_workers", lambda parts, *more: work(parts[1:], *more))
    summary = predict("model", images, output=tmp_path / "out", workers=1, engine="ray")
    missing = 10 - summary.done
    assert 0 < missing == len(summary.failed) < 10
    assert all("worker died" in reason for _, reason in summary.failed)


def test_results_of_another_model_are_not_mixed_in(
    here: Here,
    images: Path,
    tmp_path: Path,
    make_predictor: Callable[..., Predictor],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here()
    out = tmp_path / "out"
    predict("model", images, output=out, engine="ray")
    with pytest.raises(UsageError, match="other settings; choose another folder, or overwrite"):
        predict("model", images, output=out, flip=True, engine="ray")
    other = make_predictor(threshold=0.9)
    monkeypatch.setattr(Predictor, "from_folder", lambda *_args, **_options: other)
    with pytest.raises(UsageError, match="other settings"):
        predict("model", images, output=out, engine="ray")
    other = make_predictor()
    other.info = other.info.model_copy(update={"weights_sha256": "f" * 64})
    monkeypatch.setattr(Predictor, "from_folder", lambda *_args, **_options: other)
    with pytest.raises(UsageError, match="another model"):
        predict("model", images, output=out, engine="ray")
    assert predict("model", images, output=out, overwrite=True, engine="ray").done == 10
    assert set(results(out)["model"].str.split("-").str[0]) == {"f" * 12}


def test_a_damaged_part_is_named(here: Here, images: Path, tmp_path: Path) -> None:
    here()
    out = tmp_path / "out"
    predict("model", images, output=out, engine="ray")
    part = next((out / RESULTS).glob("*.parquet"))
    part.write_bytes(part.read_bytes()[:-20])
    with pytest.raises(DxsegError, match=rf"{part.name}: not readable as Parquet.*remove it"):
        predict("model", images, output=out, engine="ray")
    part.unlink()
    predict("model", images, output=out, engine="ray")
    assert len(results(out)) == 10


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet"])
@pytest.mark.parametrize("named", [True, False])
def test_a_table_names_the_images(images: Path, suffix: str, named: bool) -> None:
    table = pd.DataFrame({"image": ["b/7.png", str(images / "a" / "2.png")]})
    if named:
        table.insert(0, "case_id", ["007", "2"])
    path = images / f"list{suffix}"
    if suffix == ".parquet":
        table.to_parquet(path)
    else:
        table.to_csv(path, index=False, sep="\t" if suffix == ".tsv" else ",")
    items = archive_items([path])
    assert [item.source for item in items] == [images / "b" / "7.png", images / "a" / "2.png"]
    assert [item.name for item in items] == (["007", "2"] if named else list(table["image"]))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("picture\na.png\n", "its columns are picture; expected one of image, file, path"),
        ("image\n", "has no row"),
        ("case_id,image\n1,a.png\n2,\n", "row 3: image is empty"),
        ("case_id,image\n1,a.png\n1,b.png\n", "row 3: case_id '1' is in an earlier row too"),
        ("image\nscan.nii.gz\n", r"scan\.nii\.gz: is a volume"),
    ],
)
def test_a_table_that_is_wrong_is_told_where(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "list.csv"
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        archive_items([path])


def test_a_parquet_file_that_is_none_is_told(tmp_path: Path) -> None:
    path = tmp_path / "list.parquet"
    path.write_bytes(b"PAR1 and no more")
    with pytest.raises(DxsegError, match=r"list\.parquet: not readable as Parquet"):
        archive_items([path])
    pd.DataFrame({"image": [None]}).to_parquet(path)
    with pytest.raises(UsageError, match="row 1: image is empty"):
        archive_items([path])


@given(st.integers(1, 20_000), st.integers(1, 64))
def test_parts_are_all_images_once_and_enough_for_all_workers(images: int, workers: int) -> None:
    listed = [[str(number), "", ""] for number in range(images)]
    parts = archive._split_into_parts(listed, workers)
    assert [image for part in parts for image in part] == listed
    assert max(map(len, parts)) <= archive.PART_IMAGES
    assert len({len(part) for part in parts[:-1]}) <= 1
    assert len(parts) >= min(images, workers)


def test_no_workers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="0 workers: expected 1 or more"):
        predict("model", tmp_path, output=tmp_path / "out", workers=0, engine="ray")


def test_without_the_extra_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import dxseg

    monkeypatch.setitem(sys.modules, "ray.data", None)
    with pytest.raises(UsageError, match=r"needs ray.*pip install 'dxseg\[ray\]'"):
        dxseg.predict("model", tmp_path, output=tmp_path / "out", engine="ray")


def test_the_command_line_predicts_an_archive(here: Here, images: Path, tmp_path: Path) -> None:
    here()
    (tmp_path / "run" / "model").mkdir(parents=True)
    (images / "a" / "3.png").write_bytes(b"nonsense")
    words = ["predict", str(tmp_path / "run"), str(images), "--out", str(tmp_path / "out")]
    done = call(*words, "--engine", "ray", "--workers", 2)
    assert done.exit_code == 1
    assert "9 predicted, 0 already done, 1 failed" in " ".join(done.stdout.split())
    assert len(results(tmp_path / "out")) == 9


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--workers", "2"], "--workers requires --engine ray"),
        (["--engine", "ray", "--dicom-seg"], "--dicom-seg is not supported with --engine ray"),
        (["--engine", "ray", "--slice-overlays"], "--slice-overlays is not supported"),
        (["--engine", "ray", "--device", "cuda"], "--device is not supported"),
    ],
)
def test_options_of_the_other_engine_are_refused(
    tmp_path: Path, options: list[str], message: str
) -> None:
    words = ["predict", "model", str(tmp_path), "--out", str(tmp_path / "out")]
    done = call(*words, *options)
    assert done.exit_code == 2
    assert message in " ".join(done.stderr.split())


def test_a_ray_that_was_imported_without_a_token_is_not_started() -> None:
    program = "import ray\nfrom dxseg.inference.ray.cluster import running_ray\n"
    program += "with running_ray(1):\n    pass"
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, env=clean
    )
    assert "UsageError: Ray was imported before dxseg could set its token" in done.stderr

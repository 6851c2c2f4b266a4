"""Known diagnoses from a table: which row speaks of which file, and what becomes of it."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dxseg import predict
from dxseg.errors import DxsegError, UsageError
from dxseg.inference.files.inputs import PredictionInput
from dxseg.inference.label_prompt import join_labels
from dxseg.inference.predictor import Predictor

SETTINGS = {"labels": ("normal", "benign"), "lesion_free": ("normal",)}


@pytest.fixture
def info(make_predictor):
    return make_predictor(**SETTINGS).info


def items(root: Path, *names: str) -> list[PredictionInput]:
    return [PredictionInput(name, root / "in" / name) for name in names]


def table(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("key", ["in/sub/a.png", "sub/a.png", "sub/a", "a.png", "a"])
@pytest.mark.parametrize("column", ["file", "image", "path", "name", "case_id", "volume_id"])
def test_ways_to_name_a_file(tmp_path, info, key, column):
    path = table(tmp_path / "t.csv", f"{column},label", f"{key},benign")
    known = join_labels(path, items(tmp_path, "sub/a.png", "b.png"), info)
    assert (known.by_name, known.unmatched) == ({"sub/a.png": "benign"}, [])


def test_the_full_path_and_a_volume_without_its_double_suffix(tmp_path, info):
    files = items(tmp_path, "sub/v.nii.gz", "w.nii")
    path = table(tmp_path / "t.csv", "file;label", f"{tmp_path}/in/w.nii;normal", "v;benign")
    assert join_labels(path, files, info).by_name == {"w.nii": "normal", "sub/v.nii.gz": "benign"}


def test_the_exact_name_wins_and_an_ambiguous_one_is_refused(tmp_path, info):
    files = items(tmp_path, "a.png", "sub/a.png", "sub/b.png", "other/b.png")
    path = table(tmp_path / "t.csv", "file,label", "a.png,benign")
    assert join_labels(path, files, info).by_name == {"a.png": "benign"}
    path = table(tmp_path / "t.csv", "file,label", "a.png,benign", "b.png,benign")
    with pytest.raises(UsageError, match=r"t.csv: row 3: 'b.png' matches several files \(sub/b"):
        join_labels(path, files, info)


def test_rows_of_other_files_are_told_and_rows_without_label_say_nothing(tmp_path, info):
    path = table(tmp_path / "t.csv", "file,label", "a.png,benign", "z.png,normal", "b.png,", "y,")
    known = join_labels(path, items(tmp_path, "a.png", "b.png"), info)
    assert (known.by_name, known.unmatched) == ({"a.png": "benign"}, ["row 3"])


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        (["file,label", "a.png,cancer"], r"row 2 \(a.png\): label 'cancer' .*: normal, benign"),
        (["file,label", "z.png,cancer"], r"row 2 \(z.png\): label 'cancer'"),
        (["file,diagnosis", "a.png,benign"], "its columns are file, diagnosis; expected label"),
        (["picture,label", "a.png,benign"], "one of file, image, path"),
        (["file,label", "a.png,benign", "a,normal"], "row 2 and row 3 give a.png different"),
        (["file,label", "z.png,benign"], "none of its 1 labels .* row 2 names 'z.png'.*'a.png'"),
    ],
)
def test_wrong_tables_are_refused_with_row_value_and_remedy(tmp_path, info, lines, problem):
    path = table(tmp_path / "t.csv", *lines)
    with pytest.raises(UsageError, match=f"t.csv: .*{problem}"):
        join_labels(path, items(tmp_path, "a.png"), info)


def test_what_is_no_table_is_refused(tmp_path, info):
    (tmp_path / "t.csv").write_bytes(b"\xff\xfe\x00file,label")
    for path in (tmp_path / "t.csv", tmp_path / "absent.csv", tmp_path):
        with pytest.raises(DxsegError, match=str(path)):
            join_labels(path, items(tmp_path, "a.png"), info)


def test_the_same_label_twice_is_no_contradiction(tmp_path, info):
    path = table(tmp_path / "t.csv", "file,label", "a.png,benign", "a,benign")
    assert join_labels(path, items(tmp_path, "a.png"), info).by_name == {"a.png": "benign"}


def test_a_study_s_lesion_says_nothing_of_a_single_image(tmp_path, info):
    lines = ["image,label,label_level", "a.png,benign,study", "b.png,normal,study", "c.png,benign,"]
    path = table(tmp_path / "cases.csv", *lines)
    known = join_labels(path, items(tmp_path, "a.png", "b.png", "c.png"), info)
    assert known.by_name == {"b.png": "normal", "c.png": "benign"}


def test_labels_by_file(tmp_path, info):
    files = items(tmp_path, "a.png", "b.png")
    assert join_labels({"a": "normal", "q": "benign"}, files, info).unmatched == ["'q'"]
    with pytest.raises(UsageError, match=r"labels: 'a' \(a\): label 'x'"):
        join_labels({"a": "x"}, files, info)


def rows(output: Path) -> dict[str, dict[str, str]]:
    with (output / "predictions.csv").open(encoding="utf-8", newline="") as stream:
        return {row["name"]: row for row in csv.DictReader(stream)}


def test_predictions_follow_the_table_and_say_so(
    tmp_path, make_predictor, monkeypatch, write_image
):
    predictor = make_predictor(**SETTINGS)
    monkeypatch.setattr(Predictor, "from_folder", lambda *_args, **_options: predictor)
    for name in "abc":
        write_image(tmp_path / f"in/{name}.png")
    path = table(tmp_path / "t.csv", "file,label", "a,normal", "b,benign", "elsewhere,benign")
    summary = predict("model_folder", tmp_path / "in", output=tmp_path / "out", labels=path)
    assert (summary.done, summary.label_prompts, summary.unmatched_labels) == (3, 2, ["row 4"])
    told = {name: row["label_prompt"] for name, row in rows(tmp_path / "out").items()}
    assert told == {"a.png": "normal", "b.png": "benign", "c.png": ""}
    assert rows(tmp_path / "out")["a.png"]["lesion_area_px"] == "0"
    with Image.open(tmp_path / "out/masks/a.png") as mask:
        assert not np.array(mask).any()
    again = predict("model_folder", tmp_path / "in", output=tmp_path / "out", labels=path)
    assert (again.done, again.skipped) == (0, 3)
    table(path, "file,label", "a,normal", "b,normal")
    changed = predict("model_folder", tmp_path / "in", output=tmp_path / "out", labels=path)
    assert (changed.done, changed.skipped) == (1, 2), "what was predicted under another label"
    without = predict("model_folder", tmp_path / "in", output=tmp_path / "out")
    assert (without.done, without.skipped) == (2, 1)
    assert rows(tmp_path / "out")["a.png"]["lesion_area_px"] != "0"


def test_a_wrong_table_leaves_no_output_behind(tmp_path, make_predictor, monkeypatch, write_image):
    predictor = make_predictor(**SETTINGS)
    monkeypatch.setattr(Predictor, "from_folder", lambda *_args, **_options: predictor)
    write_image(tmp_path / "in/a.png")
    path = table(tmp_path / "t.csv", "file,label", "a,cancer")
    with pytest.raises(UsageError):
        predict("model_folder", tmp_path / "in", output=tmp_path / "out", labels=path)
    assert not (tmp_path / "out").exists()


def test_a_file_whose_label_is_none_has_none(tmp_path, info):
    files = items(tmp_path, "a.png", "b.png")
    joined = join_labels({"a.png": None, "b.png": "benign"}, files, info)
    assert joined.by_name == {"b.png": "benign"}

"""The main line of the command line, from a split to predictions."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from cli_results import assert_fails

Cli = Callable[..., Any]
Tiny = Callable[..., list[str]]


def test_split_writes_the_table_it_counts(cli: Cli, phantoms: Path, tmp_path: Path) -> None:
    path = tmp_path / "sub" / "splits.csv"
    words = ["--masks", "0.5", "--validation-masks", 1, "--folds", 3, "--seed", 4]
    result = cli("split", phantoms, "--out", path, *words)
    assert result.exit_code == 0, result.output
    table = pd.read_csv(path)
    counts = table["split"].value_counts().to_dict()
    assert sum(counts.values()) == 24
    assert all(f"{name} {count}" in result.stdout for name, count in counts.items())
    lesions = pd.read_csv(phantoms / "cases.csv")["label"].ne("normal")
    train, used = table["split"].eq("train") & lesions, table["use_mask"]
    assert (train & used).sum() == round(train.sum() / 2)
    assert (table["split"].eq("validation") & lesions & used).sum() == 1
    assert set(table["fold"].dropna()) == {0, 1, 2}


def test_split_can_let_a_fold_validate(cli: Cli, phantoms: Path, tmp_path: Path) -> None:
    whole, chosen = tmp_path / "splits.csv", tmp_path / "fold.csv"
    assert cli("split", phantoms, "--out", whole, "--folds", 3).exit_code == 0
    result = cli("split", phantoms, "--out", chosen, "--folds", 3, "--fold", 1, "--masks", 2)
    assert result.exit_code == 0, result.stderr
    before, after = pd.read_csv(whole), pd.read_csv(chosen)
    assert before["split"].eq("test").equals(after["split"].eq("test"))
    assert after["split"].eq("validation").equals(before["fold"].eq(1))
    assert_fails(cli("split", phantoms, "--out", chosen, "--folds", 3, "--fold", 7), 2, "fold 7")


def test_train_and_evaluate_leave_the_files_of_a_run(trained: Path) -> None:
    for name in ("config.yaml", "splits.csv", "run.json", "evaluation.json", "per_image.csv"):
        assert (trained / name).is_file(), name
    for name in ("stage1/metrics.csv", "stage2/metrics.csv", "model/model.safetensors"):
        assert (trained / name).is_file(), name
    run = json.loads((trained / "run.json").read_text())
    assert (run["method"], run["seed"], run["cases"]["train_masks"]) == ("sks-evidence", 0, 6)
    evaluation = json.loads((trained / "evaluation.json").read_text())
    assert 0 <= evaluation["dice_lesion"] <= 1
    assert not list(trained.rglob("*.ckpt")), "checkpoints of a finished run are dead weight"


def test_a_finished_run_is_not_trained_again(
    cli: Cli, phantoms: Path, tiny: Tiny, trained: Path
) -> None:
    weights = trained / "model" / "model.safetensors"
    before = weights.stat().st_mtime_ns
    train = ["train", phantoms, "--method", "sks-evidence", "--masks", 6, *tiny()]
    result = cli(*train, "--out", trained)
    assert result.exit_code == 0, result.output
    assert "6 training masks" in result.stdout
    assert f"dxseg evaluate {trained}" in result.stdout
    assert weights.stat().st_mtime_ns == before


def test_a_second_method_shares_stage_1_and_is_compared_and_reported(
    cli: Cli, phantoms: Path, tiny: Tiny, trained: Path, tmp_path: Path
) -> None:
    other = tmp_path / "single"
    splits, size = trained / "splits.csv", ["--stage1", trained]
    words = ["--method", "unet-stage1", "--splits", splits, *size, *tiny()]
    result = cli("train", phantoms, "--out", other, *words)
    assert result.exit_code == 0, result.output
    assert not (other / "stage1").exists()
    assert (other / "splits.csv").read_bytes() == splits.read_bytes()
    assert cli("evaluate", other).exit_code == 0
    assert cli("evaluate", other, "--sliding-window").exit_code == 2
    assert cli("evaluate", other, "--no-sliding-window").exit_code == 2
    windows = tmp_path / "windows"
    assert cli("evaluate", other, "--sliding-window", "--out", windows).exit_code == 0
    for folder, cut in ((other, False), (windows, True)):
        assert json.loads((folder / "evaluation.json").read_text())["sliding_window"] is cut

    compared = cli("compare", trained, other, "--out", tmp_path / "tables")
    assert compared.exit_code == 0, compared.output
    assert "| sks-evidence |" in compared.stdout
    assert "unet-stage1" in compared.stdout
    assert "at least 3 are needed" in compared.stdout
    tables = {path.name for path in (tmp_path / "tables").iterdir()}
    assert {"comparison.json", "comparison.md", "comparison_methods.csv"} <= tables

    reported = cli("report", other, "--with", trained)
    assert reported.exit_code == 0, reported.output
    page = (other / "report.html").read_text()
    assert "phantom" in page
    assert "sks-evidence" in page
    assert "not a medical device" in page


def test_other_splits_do_not_continue_a_run(
    cli: Cli, phantoms: Path, tiny: Tiny, trained: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    (run / "run.json").unlink()
    cli("split", phantoms, "--out", tmp_path / "splits.csv", "--split-seed", 7)
    words = ["--masks", 6, "--splits", tmp_path / "splits.csv", *tiny()]
    result = cli("train", phantoms, "--out", run, "--method", "sks-evidence", *words)
    assert_fails(result, 1, "other splits")


def test_a_stage_1_that_has_seen_the_test_cases_is_refused(
    cli: Cli, phantoms: Path, tiny: Tiny, trained: Path, tmp_path: Path
) -> None:
    words = ["--out", tmp_path / "run", "--masks", 6, "--stage1", trained]
    result = cli("train", phantoms, *words, *tiny("split.split_seed=7"))
    assert_fails(result, 1, "validation or test cases")


def test_predict_writes_skips_and_reports_what_failed(
    cli: Cli, phantoms: Path, trained: Path, tmp_path: Path
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for number in (1, 2):
        shutil.copy(phantoms / "images" / f"phantom_000{number}.png", images / f"{number}.png")
    whole = (images / "1.png").read_bytes()
    (images / "broken.png").write_bytes(whole[: len(whole) // 2])
    words = ["predict", trained, images, "--out", tmp_path / "out"]
    first = cli(*words)
    assert_fails(first, 1, "broken.png")
    assert "2 predicted, 0 already done, 1 failed" in first.stdout
    rows = pd.read_csv(tmp_path / "out" / "predictions.csv").set_index("name")
    assert rows["status"].to_dict() == {"1.png": "ok", "2.png": "ok", "broken.png": "failed"}
    assert np.isclose(rows.loc["1.png", ["p_normal", "p_benign", "p_malignant"]].sum(), 1)
    mask = Image.open(tmp_path / "out" / "masks" / "1.png")
    assert mask.size == Image.open(images / "1.png").size

    (images / "broken.png").write_bytes(whole)
    second = cli("predict", trained / "model", images, "--out", tmp_path / "out")
    assert second.exit_code == 0, second.output
    assert "1 predicted, 2 already done, 0 failed" in second.stdout


def test_known_labels_are_followed_and_rows_of_other_files_are_told(
    cli: Cli, phantoms: Path, trained: Path, tmp_path: Path
) -> None:
    images = [phantoms / "images" / f"phantom_000{number}.png" for number in (1, 2)]
    table = tmp_path / "labels.csv"
    table.write_text("file,label\nphantom_0001,normal\nphantom_0002.png,benign\nother,benign\n")
    words = ["predict", trained, *images, "--out", tmp_path / "out", "--labels", table]
    result = cli(*words)
    assert result.exit_code == 0, result.output
    assert "Label prompts: 2; 1 rows fit no file: row 4." in result.stdout
    rows = pd.read_csv(tmp_path / "out" / "predictions.csv").set_index("name")
    assert rows["label_prompt"].tolist() == ["normal", "benign"]
    assert rows["lesion_area_px"].iloc[0] == 0
    assert rows["lesion_area_px"].iloc[1] > 0
    table.write_text("file,label\nphantom_0001,cancer\n")
    assert_fails(cli(*words), 2, "labels.csv: row 2", "'cancer'", "normal, benign, malignant")


def test_an_evaluation_with_known_labels_stands_beside_the_other(
    cli: Cli, trained: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    before = (run / "evaluation.json").read_bytes()
    result = cli("evaluate", run, "--label-prompts")
    assert result.exit_code == 0, result.output
    assert "label prompts" in result.stdout
    assert "Dice, lesion images" in result.stdout
    assert "patients or groups" in result.stdout
    assert not set("{}[]") & set(result.stdout), "a table, no dictionaries"
    assert (run / "evaluation.json").read_bytes() == before
    known = json.loads((run / "evaluation_label_prompts.json").read_text())
    assert known["false_positive_rate"] == 0
    assert known["sensitivity"] == 1


def test_info_of_a_dataset_a_run_a_model_and_the_installation(
    cli: Cli, phantoms: Path, trained: Path
) -> None:
    for path, expected in (
        (phantoms, "synthetic phantom"),
        (trained, "sks-evidence"),
        (trained / "model", "weights_sha256"),
    ):
        result = cli("info", path)
        assert result.exit_code == 0, result.output
        assert expected in result.stdout
    assert "torch" in cli("info").stdout

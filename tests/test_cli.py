"""The command line as a user meets it: what it prints, what it writes, how it fails."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from dxseg import api
from dxseg.presets import arm_names
from dxseg.terminal import INTERRUPTED

Cli = Callable[..., Any]
Tiny = Callable[..., list[str]]

VERBS = (
    "demo",
    "distill",
    "import",
    "check",
    "split",
    "train",
    "arms",
    "evaluate",
    "predict",
    "compare",
    "report",
    "suggest",
)


def lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip()]


def assert_fails(result: Any, code: int, *expected: str) -> None:
    """One line that names the problem, the exit code, and never a traceback."""
    assert result.exit_code == code, result.output
    assert isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output
    told = [line for line in lines(result.stderr) if line.startswith("error: ")]
    assert len(told) == 1, result.stderr
    for text in expected:
        assert text in told[0]


# Starting up


def test_help_names_every_verb_and_needs_no_heavy_library() -> None:
    script = (
        "import sys\n"
        "from dxseg.cli import main\n"
        "try:\n"
        "    main()\n"
        "except SystemExit as end:\n"
        "    heavy = {'torch', 'pandas', 'lightning', 'monai', 'scipy'} & set(sys.modules)\n"
        "    print('code', end.code, 'heavy', sorted(heavy))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "--help"], capture_output=True, text=True, check=False
    )
    assert done.stdout.endswith("code 0 heavy []\n"), done.stdout + done.stderr
    for verb in VERBS:
        assert re.search(rf"^\W*{verb}\b", done.stdout, re.MULTILINE), verb
    assert "not a medical device" in " ".join(done.stdout.split())


def test_the_installed_command_exits_with_1_and_one_line(tmp_path: Path) -> None:
    command = Path(sys.executable).with_name("dxseg")
    done = subprocess.run(
        [command, "info", tmp_path / "nothing"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert len(lines(done.stderr)) == 1
    assert done.stderr.startswith(f"error: {tmp_path / 'nothing'}: neither a dataset")


@pytest.mark.parametrize("words", [["train"], ["nonsense"], ["split", "somewhere"], ["import"]])
def test_wrong_use_ends_with_2(cli: Cli, words: list[str]) -> None:
    result = cli(*words)
    assert result.exit_code == 2
    assert "Traceback" not in result.output


def test_ctrl_c_says_how_to_go_on(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(api, "evaluate", interrupted)
    result = cli("evaluate", tmp_path)
    assert result.exit_code == INTERRUPTED == 130
    assert "The same command continues" in result.stderr


def test_a_full_disk_is_no_traceback(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device", str(tmp_path / "a[b]c.png"))

    monkeypatch.setattr(api, "evaluate", full)
    assert_fails(cli("evaluate", tmp_path), 1, "a[b]c.png: No space left on device")


def test_arms_lists_the_method_and_its_controls(cli: Cli) -> None:
    result = cli("arms")
    assert result.exit_code == 0
    for name in arm_names():
        assert re.search(rf"\b{name}\b", result.stdout), name


# Mistakes


def test_a_missing_dataset(cli: Cli, tmp_path: Path) -> None:
    for words in (
        ["train", tmp_path / "none", "--out", tmp_path / "run"],
        ["split", tmp_path / "none", "--out", tmp_path / "splits.csv"],
    ):
        assert_fails(cli(*words), 1, "dataset.yaml", "dxseg import")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--arm", "resnet"], ["arm 'resnet'", "sks-evidence"]),
        (["--preset", "gpu"], ["preset 'gpu'", "cpu, paper"]),
        (["--set", "stage2.steps"], ["'stage2.steps'", "SECTION.KEY=VALUE"]),
        (["--set", "stage2.step=5"], ["stage2.step", "Extra inputs"]),
        (["--set", "stage2.steps=0"], ["stage2.steps = 0"]),
        (["--set", "stage2.steps=[1"], ["not valid YAML"]),
        (["--set", "model.skips.feature_share=false"], ["resolution_compensation"]),
        (["--set", "model.backbone=no_such_network"], ["no_such_network", "timm"]),
        (["--masks", "many"], ["--masks 'many'", "35", "0.1"]),
        (["--masks", "0"], ["split.masks"]),
        (["--masks", "500"], ["500 masks for train"]),
        (["--masks", "1.5"], ["1.5", "0 to 1"]),
        (["--masks", "nan"], ["split.masks"]),
    ],
)
def test_wrong_options_of_train(
    cli: Cli, phantoms: Path, tmp_path: Path, options: list[str], expected: list[str]
) -> None:
    run = tmp_path / "run"
    assert_fails(cli("train", phantoms, "--out", run, *options), 2, *expected)
    assert not run.exists(), "a mistake must not claim the folder"


def test_train_leaves_a_folder_of_something_else_alone(
    cli: Cli, phantoms: Path, tmp_path: Path
) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    assert_fails(cli("train", phantoms, "--out", tmp_path), 1, str(tmp_path), "--out")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_train_refuses_another_configuration_in_the_folder_of_a_run(
    cli: Cli, phantoms: Path, tiny: Tiny, trained: Path
) -> None:
    result = cli("train", phantoms, "--out", trained, "--masks", 5, *tiny())
    assert_fails(result, 1, "another configuration", "'masks': 6", "'masks': 5")


@pytest.mark.parametrize("verb", ["evaluate", "report", "compare"])
def test_verbs_on_something_that_is_no_run(cli: Cli, tmp_path: Path, verb: str) -> None:
    assert_fails(cli(verb, tmp_path), 1, "run.json")


def test_evaluate_an_unknown_split(cli: Cli, trained: Path) -> None:
    assert_fails(cli("evaluate", trained, "--split", "exam"), 2, "'exam'", "test, train")


def test_evaluate_on_an_unknown_device(cli: Cli, trained: Path) -> None:
    assert_fails(cli("evaluate", trained, "--device", "abacus"), 2, "'abacus'", "cpu")


def test_compare_with_an_unknown_reference(cli: Cli, trained: Path) -> None:
    assert_fails(cli("compare", trained, "--reference", "unet"), 2, "'unet'", "sks-evidence")


def test_predict_with_a_missing_model(cli: Cli, phantoms: Path, tmp_path: Path) -> None:
    result = cli("predict", tmp_path / "none", phantoms / "images", "--out", tmp_path / "out")
    assert_fails(result, 1, "model.json")
    assert not (tmp_path / "out").exists()


def test_predict_without_images(cli: Cli, trained: Path, tmp_path: Path) -> None:
    result = cli("predict", trained, tmp_path / "*.png", "--out", tmp_path / "out")
    assert_fails(result, 2, "no image there")


# Importing


def picture(path: Path, value: int = 90) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((40, 50), value, np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def region(path: Path, top: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((40, 50), np.uint8)
    pixels[top : top + 8, 5:20] = 255
    Image.fromarray(pixels).save(path)
    return path


def busi_like(root: Path) -> Path:
    for label in ("benign", "malignant", "normal"):
        for number in (1, 2):
            stem = root / label / f"{label} ({number})"
            picture(stem.with_name(f"{stem.name}.png"))
            region(stem.with_name(f"{stem.name}_mask.png"), 5)
    region(root / "benign" / "benign (2)_mask_1.png", 25)
    return root


def table_of(dataset: Path) -> pd.DataFrame:
    return pd.read_csv(dataset / "cases.csv", dtype=str, keep_default_na=False)


def test_import_busi_unites_masks_and_says_so(cli: Cli, tmp_path: Path) -> None:
    result = cli("import", "busi", busi_like(tmp_path / "[raw]"), tmp_path / "busi")
    assert result.exit_code == 0, result.output
    assert "benign (2)" in result.stdout
    assert f"Dataset: {tmp_path / 'busi'}" in result.stdout
    table = table_of(tmp_path / "busi")
    assert table["label"].value_counts().to_dict() == {"benign": 2, "malignant": 2, "normal": 2}
    mask = tmp_path / "busi" / table.loc[table["image"].eq("benign/benign (2).png"), "mask"].item()
    assert np.asarray(Image.open(mask)).astype(bool).sum() == 2 * 8 * 15


def test_import_refuses_a_used_folder_unless_told(cli: Cli, tmp_path: Path) -> None:
    source = busi_like(tmp_path / "raw")
    (tmp_path / "busi").mkdir()
    (tmp_path / "busi" / "notes.txt").write_text("mine")
    assert_fails(cli("import", "busi", source, tmp_path / "busi"), 1, str(tmp_path / "busi"))
    assert cli("import", "busi", source, tmp_path / "new").exit_code == 0
    assert_fails(cli("import", "busi", source, tmp_path / "new"), 1, str(tmp_path / "new"))
    assert cli("import", "busi", source, tmp_path / "new", "--overwrite").exit_code == 0


def test_import_busi_of_another_folder(cli: Cli, tmp_path: Path) -> None:
    result = cli("import", "busi", tmp_path, tmp_path / "busi")
    assert_fails(result, 1, "benign, malignant, normal")


def test_import_folder(cli: Cli, tmp_path: Path) -> None:
    source = tmp_path / "skin"
    picture(source / "naevus" / "a.png")
    picture(source / "melanoma" / "b.png")
    picture(source / "clear" / "c.png")
    region(tmp_path / "outlines" / "melanoma" / "b_segmentation.png", 5)
    options = ["--lesion-free", "clear", "--masks-root", tmp_path / "outlines"]
    options += ["--mask-suffix", "_segmentation", "--name", "skin"]
    result = cli("import", "folder", source, tmp_path / "dataset", *options)
    assert result.exit_code == 0, result.output
    table = table_of(tmp_path / "dataset").set_index("label")
    assert table.loc["melanoma", "mask"] == "outlines/melanoma/b_segmentation.png"
    assert table.loc["naevus", "mask"] == table.loc["clear", "mask"] == ""


def test_import_csv(cli: Cli, tmp_path: Path) -> None:
    picture(tmp_path / "files" / "1.png")
    picture(tmp_path / "files" / "2.png")
    region(tmp_path / "files" / "2_m.png", 5)
    (tmp_path / "list.csv").write_text(
        "file;seg;diagnosis;who\n1.png;;none;A\n2.png;2_m.png;cyst;B\n"
    )
    words = ["import", "csv", tmp_path / "list.csv", tmp_path / "dataset"]
    words += ["--images-root", tmp_path / "files", "--lesion-free", "none"]
    for pair in ("image=file", "mask=seg", "label=diagnosis", "patient_id=who"):
        words += ["--column", pair]
    result = cli(*words)
    assert result.exit_code == 0, result.output
    table = table_of(tmp_path / "dataset")
    assert table[["image", "mask", "label", "patient_id"]].to_numpy().tolist() == [
        ["1.png", "", "none", "A"],
        ["2.png", "2_m.png", "cyst", "B"],
    ]
    described = cli("info", tmp_path / "dataset")
    assert described.exit_code == 0
    assert re.search(r"patients\W+2\b", described.stdout)


@pytest.mark.parametrize(
    ("pair", "code", "expected"),
    [
        ("image", 2, "FIELD=COLUMN"),
        ("image=", 2, "FIELD=COLUMN"),
        ("image=missing", 1, "no column 'missing'"),
        ("picture=file", 1, "unknown: picture"),
    ],
)
def test_import_csv_with_a_wrong_mapping(
    cli: Cli, tmp_path: Path, pair: str, code: int, expected: str
) -> None:
    (tmp_path / "list.csv").write_text("file\n1.png\n")
    result = cli("import", "csv", tmp_path / "list.csv", tmp_path / "dataset", "--column", pair)
    assert_fails(result, code, expected)


def test_a_wrong_table_names_row_column_value_and_remedy(cli: Cli, tmp_path: Path) -> None:
    busi_like(tmp_path / "raw")
    cli("import", "busi", tmp_path / "raw", tmp_path / "busi")
    table = tmp_path / "busi" / "cases.csv"
    table.write_text(table.read_text().replace(",malignant,", ",malignent,", 1))
    result = cli("split", tmp_path / "busi", "--out", tmp_path / "splits.csv")
    assert_fails(result, 1, "cases.csv: 1 wrong value(s)")
    assert "row 4, column label, value 'malignent'" in result.stderr
    assert "add it to labels in dataset.yaml" in result.stderr


# The main line


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
    assert (run["arm"], run["seed"], run["cases"]["train_masks"]) == ("sks-evidence", 0, 6)
    evaluation = json.loads((trained / "evaluation.json").read_text())
    assert 0 <= evaluation["dice_lesion"] <= 1
    assert not list(trained.rglob("*.ckpt")), "checkpoints of a finished run are dead weight"


def test_a_finished_run_is_not_trained_again(
    cli: Cli, phantoms: Path, tiny: Tiny, trained: Path
) -> None:
    weights = trained / "model" / "model.safetensors"
    before = weights.stat().st_mtime_ns
    result = cli("train", phantoms, "--out", trained, "--masks", 6, *tiny())
    assert result.exit_code == 0, result.output
    assert "6 training masks" in result.stdout
    assert f"dxseg evaluate {trained}" in result.stdout
    assert weights.stat().st_mtime_ns == before


def test_a_second_arm_shares_stage_1_and_is_compared_and_reported(
    cli: Cli, phantoms: Path, tiny: Tiny, trained: Path, tmp_path: Path
) -> None:
    other = tmp_path / "single"
    splits, size = trained / "splits.csv", ["--stage1", trained]
    words = ["--arm", "unet-stage1", "--splits", splits, *size, *tiny()]
    result = cli("train", phantoms, "--out", other, *words)
    assert result.exit_code == 0, result.output
    assert not (other / "stage1").exists()
    assert (other / "splits.csv").read_bytes() == splits.read_bytes()
    assert cli("evaluate", other).exit_code == 0

    compared = cli("compare", trained, other, "--out", tmp_path / "tables")
    assert compared.exit_code == 0, compared.output
    assert "| sks-evidence |" in compared.stdout
    assert "unet-stage1" in compared.stdout
    assert "at least 3 are needed" in compared.stdout
    tables = {path.name for path in (tmp_path / "tables").iterdir()}
    assert {"comparison.json", "comparison.md", "comparison_arms.csv"} <= tables

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
    words = ["--out", run, "--masks", 6, "--splits", tmp_path / "splits.csv", *tiny()]
    assert_fails(cli("train", phantoms, *words), 1, "other splits")


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
    assert "Known labels: 2; 1 rows fit no file: row 4." in result.stdout
    rows = pd.read_csv(tmp_path / "out" / "predictions.csv").set_index("name")
    assert rows["known_label"].tolist() == ["normal", "benign"]
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
    result = cli("evaluate", run, "--known-labels")
    assert result.exit_code == 0, result.output
    assert "labels known" in result.stdout
    assert (run / "evaluation.json").read_bytes() == before
    known = json.loads((run / "evaluation_known.json").read_text())
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

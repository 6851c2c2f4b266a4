"""The command line: how it starts, and how it fails."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cli_results import assert_fails, lines
from dxseg.commands.app import INTERRUPTED
from dxseg.config import DEFAULT_METHOD
from dxseg.config.presets import method_names

Cli = Callable[..., Any]
Tiny = Callable[..., list[str]]

COMMANDS = (
    "demo",
    "distill",
    "import",
    "check",
    "split",
    "info",
    "train",
    "methods",
    "evaluate",
    "predict",
    "compare",
    "experiment",
    "report",
    "reproduce",
    "suggest",
    "export",
    "serve",
)


# Starting up


def test_help_names_every_command_and_needs_no_heavy_library() -> None:
    script = (
        "import sys\n"
        "from dxseg.commands.app import main\n"
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
    for command in COMMANDS:
        assert re.search(rf"^\W*{command}\b", done.stdout, re.MULTILINE), command
    assert "not a medical device" in " ".join(done.stdout.split())


def test_the_installed_command_exits_with_1_and_one_line(tmp_path: Path) -> None:
    command = Path(sys.executable).with_name("dxseg")
    done = subprocess.run(
        [command, "info", tmp_path / "nothing"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert len(lines(done.stderr)) == 1
    assert done.stderr.startswith(f"error: {tmp_path / 'nothing'}: not a dataset")


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

    monkeypatch.setattr("dxseg.evaluation.evaluate.open_run", interrupted)
    result = cli("evaluate", tmp_path)
    assert result.exit_code == INTERRUPTED == 130
    assert "Repeat the same command to continue" in result.stderr


def test_a_full_disk_is_no_traceback(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device", str(tmp_path / "a[b]c.png"))

    monkeypatch.setattr("dxseg.evaluation.evaluate.open_run", full)
    assert_fails(cli("evaluate", tmp_path), 1, "a[b]c.png: No space left on device")


def test_methods_lists_the_method_and_its_controls(cli: Cli) -> None:
    result = cli("methods")
    assert result.exit_code == 0
    for name in method_names():
        assert re.search(rf"\b{name}\b", result.stdout), name
    assert max(map(len, result.stdout.splitlines())) <= 80
    lines = [line for line in result.stdout.splitlines() if re.search(r" (yes|no)\b", line)]
    rows = {line.split()[0]: line for line in lines}
    assert list(rows) == method_names()
    assert [name for name, line in rows.items() if "(default)" in line] == [DEFAULT_METHOD]
    uses_labels = {name: re.search(r" (yes|no)\b", line)[1] for name, line in rows.items()}
    assert uses_labels["unet-selftrained"] == uses_labels["unet-student"] == "yes"
    assert uses_labels["unet"] == uses_labels["unet-bcp"] == "no"


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
        (["--method", "resnet"], ["method 'resnet'", "sks-evidence"]),
        (["--preset", "gpu"], ['"gpu"', "--preset", '"cpu", "cpu-thorough"']),
        (["--set", "stage2.steps"], ["'stage2.steps'", "SECTION.KEY=VALUE"]),
        (["--set", "stage2.step=5"], ["stage2.step", "unexpected key; did you mean steps?"]),
        (["--set", "stage2.steps=0"], ["stage2.steps = 0"]),
        (["--set", "stage2.steps=[1"], ["not valid YAML"]),
        (["--set", "model.skips.feature_share=false"], ["resolution_compensation"]),
        (["--set", "model.backbone=no_such_network"], ["no_such_network", "timm"]),
        (["--masks", "many"], ["masks 'many'", "35", "0.1"]),
        (["--masks", "0"], ["masks '0'", "35", "0.1", "split.masks"]),
        (["--masks", "-1"], ["masks '-1'", "35", "0.1", "split.masks"]),
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
    train = ["train", phantoms, "--method", "sks-evidence"]
    result = cli(*train, "--out", trained, "--masks", 5, *tiny())
    assert_fails(result, 1, "another configuration", "'masks': 6", "'masks': 5")


@pytest.mark.parametrize("command", ["evaluate", "report", "compare"])
def test_commands_on_something_that_is_no_run(cli: Cli, tmp_path: Path, command: str) -> None:
    assert_fails(cli(command, tmp_path), 1, "run.json")


def test_evaluate_an_unknown_split(cli: Cli, trained: Path) -> None:
    assert_fails(cli("evaluate", trained, "--split", "exam"), 2, '"exam"', '"test"', '"train"')


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

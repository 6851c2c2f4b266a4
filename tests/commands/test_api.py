"""The commands in Python: imported when first used, the same as on the command line."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import dxseg
from dxseg.errors import DxsegError, UsageError

Cli = Callable[..., Any]


def test_importing_dxseg_loads_nothing_heavy() -> None:
    script = (
        "import sys, dxseg\n"
        "names = dir(dxseg)\n"
        "print(sorted({'torch', 'numpy', 'pandas', 'rich'} & set(sys.modules)), len(names))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"[] {len(dxseg.__all__)}\n"


def test_every_public_name_is_there_and_documented() -> None:
    for name in dxseg.__all__:
        if name != "__version__":
            public = getattr(dxseg, name)
            assert callable(public)
            assert public.__doc__, name


def test_no_command_has_the_name_of_a_module() -> None:
    """Importing such a module would put it in the place of the function."""
    for name in dxseg.__all__:
        assert importlib.util.find_spec(f"dxseg.{name}") is None, name


def test_other_names_are_errors() -> None:
    with pytest.raises(AttributeError, match="trian"):
        _ = dxseg.trian  # type: ignore[attr-defined]  # an error of mypy too, see below
    assert not hasattr(dxseg, "run")


def test_split_gives_what_the_command_writes(cli: Cli, phantoms: Path, tmp_path: Path) -> None:
    path = tmp_path / "python.csv"
    table = dxseg.split(phantoms, output=path, masks=4, validation_masks=1, seed=3).table
    words = ["--masks", 4, "--validation-masks", 1, "--seed", 3, "--out", tmp_path / "cli.csv"]
    assert cli("split", phantoms, *words).exit_code == 0
    assert (tmp_path / "python.csv").read_bytes() == (tmp_path / "cli.csv").read_bytes()
    assert pd.read_csv(tmp_path / "cli.csv")["use_mask"].tolist() == table["use_mask"].tolist()


def test_training_and_evaluating_do_the_same_as_the_command(
    phantoms: Path, trained: Path, tiny_overrides: dict[str, Any], tmp_path: Path
) -> None:
    run = dxseg.train(
        phantoms, output=tmp_path / "run", method="sks-evidence", masks=6, overrides=tiny_overrides
    )
    theirs = json.loads((trained / "run.json").read_text())
    assert run == json.loads((tmp_path / "run" / "run.json").read_text())
    same = ("method", "seed", "cases", "parameters", "dataset_digest", "splits_sha256", "versions")
    assert {key: run[key] for key in same} == {key: theirs[key] for key in same}
    for name in ("config.yaml", "splits.csv"):
        assert (tmp_path / "run" / name).read_bytes() == (trained / name).read_bytes(), name
    # Weights are equal to the bit between fresh processes (test_resume.py). Two trainings in one
    # process may round apart, and a few steps from random weights magnify that: no figures here.
    for name in ("stage1/metrics.csv", "stage2/metrics.csv"):
        mine, other = (pd.read_csv(folder / name) for folder in (tmp_path / "run", trained))
        assert mine.columns.tolist() == other.columns.tolist()
        assert mine[["epoch", "step"]].equals(other[["epoch", "step"]])

    summary = dxseg.evaluate(tmp_path / "run")
    evaluated = json.loads((trained / "evaluation.json").read_text())
    assert summary == json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert summary.keys() == evaluated.keys()
    assert summary["counts"]["images"] == evaluated["counts"]["images"]


def test_overrides_win_over_single_arguments(
    phantoms: Path, tiny_overrides: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="500 masks"):
        dxseg.train(phantoms, output=tmp_path / "run", masks=6, overrides={"split": {"masks": 500}})
    assert not (tmp_path / "run").exists()


def test_predict_takes_a_run_or_its_model(phantoms: Path, trained: Path, tmp_path: Path) -> None:
    image = phantoms / "images" / "phantom_0003.png"
    first = dxseg.predict(trained, image, output=tmp_path / "out")
    again = dxseg.predict(trained / "model", [image], output=tmp_path / "out")
    assert (first.done, first.skipped, first.failed) == (1, 0, [])
    assert (again.done, again.skipped, again.failed) == (0, 1, [])
    assert (tmp_path / "out" / "masks" / "phantom_0003.png").is_file()


def test_compare_one_run_with_itself_is_a_table_of_one_method(trained: Path) -> None:
    comparison = dxseg.compare([trained])
    evaluation = json.loads((trained / "evaluation.json").read_text())
    assert comparison.methods["method"].tolist() == ["sks-evidence"]
    assert comparison.methods["dice_lesion"].item() == pytest.approx(evaluation["dice_lesion"])
    assert comparison.differences.empty


def test_info(phantoms: Path, trained: Path, tmp_path: Path) -> None:
    dataset = dxseg.info(phantoms)
    assert dataset["cases"] == dataset["patients"] == 24
    assert dataset["labels"] == {"benign": 9, "malignant": 9, "normal": 6}
    assert dataset["masks"] == 18
    assert dxseg.info(trained)["dataset_digest"] == dataset["digest"]
    assert dxseg.info(trained / "model")["labels"] == ["normal", "benign", "malignant"]
    with pytest.raises(DxsegError, match=r"dataset\.yaml"):
        dxseg.info(tmp_path)

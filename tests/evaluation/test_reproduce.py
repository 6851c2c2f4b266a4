"""A run trained again comes out the same, and where it does not, that is said."""

from __future__ import annotations

import json
import multiprocessing
import shutil
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

import dxseg
from dxseg import reproduce
from dxseg.errors import DxsegError
from dxseg.evaluation.reproduce import RESULT_FILE
from dxseg.phantoms.ultrasound import make_phantoms

pytestmark = pytest.mark.slow  # three trainings

Cli = Callable[..., Any]


def fresh(work: Callable[..., Any], *arguments: Any) -> None:
    """Call a function in a process of its own: two trainings in one may round apart."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["dxseg.evaluation.reproduce", "monai.losses.dice", "timm"])
    process = context.Process(target=work, args=arguments)
    process.start()
    process.join()
    assert process.exitcode == 0


def train(dataset: Path, run: Path, overrides: dict[str, Any]) -> None:
    dxseg.train(
        dataset,
        output=run,
        method="sks-evidence-selftrained",
        masks=6,
        overrides=overrides,
    )
    dxseg.evaluate(run, split="validation")


def repeat(run: Path, output: Path) -> None:
    reproduce(run, output=output)


@pytest.fixture(scope="module")
def first(
    phantoms: Path, tiny_overrides: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A deterministic run that trains itself, batches made by a worker; measured on validation."""
    stage = {"steps": 2, "steps_per_epoch": 1, "warmup_steps": 1}
    shorter = dict.fromkeys(("stage1", "stage2", "self_training"), stage)
    overrides = tiny_overrides | shorter | {"device": {"deterministic": True}}
    overrides["data"] = tiny_overrides["data"] | {"workers": 1}
    run = tmp_path_factory.mktemp("reproduction") / "run"
    fresh(train, phantoms, run, overrides)
    return run


def described(run: Path, folder: Path) -> Path:
    """What is needed of a run, and no more."""
    folder.mkdir()
    for name in ("run.json", "config.yaml", "evaluation_validation.json"):
        shutil.copy(run / name, folder / name)
    return folder


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.fixture(scope="module")
def again(first: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The second run, from the description of the first."""
    folder = tmp_path_factory.mktemp("again")
    fresh(repeat, described(first, folder / "described"), folder / "again")
    return folder / "again"


def test_the_description_is_enough_for_the_same_bits(first: Path, again: Path) -> None:
    told = json.loads((again / RESULT_FILE).read_text())
    assert told["environment_differences"] == told["differences"] == []
    assert told["exact"]
    assert told["same_weights"]
    for name in ("model/model.safetensors", "stage1/coarse.safetensors", "splits.csv"):
        assert (again / name).read_bytes() == (first / name).read_bytes(), name


def test_what_differs_is_said_and_makes_the_exit_code_1(
    cli: Cli, first: Path, again: Path, tmp_path: Path
) -> None:
    """The second run is finished, and so only compared."""
    changed = described(first, tmp_path / "changed")
    stage2 = json.loads((changed / "run.json").read_text())["stage2"]
    change(changed / "run.json", stage2=stage2 | {"val_loss": stage2["val_loss"] + 1e-7})
    result = cli("reproduce", changed, "--out", again)
    assert result.exit_code == 1
    assert "error: stage2.val_loss: " in result.output
    assert "Not reproduced" in result.output


def test_on_another_machine_figures_may_differ_a_little(
    cli: Cli, first: Path, again: Path, tmp_path: Path
) -> None:
    changed = described(first, tmp_path / "changed")
    record = json.loads((changed / "run.json").read_text())
    stage2 = record["stage2"] | {"val_loss": record["stage2"]["val_loss"] + 0.01}
    versions = record["versions"] | {"torch": "1.0"}
    change(changed / "run.json", stage2=stage2, versions=versions, weights_sha256="0" * 64)
    result = cli("reproduce", changed, "--out", again)
    assert result.exit_code == 0, result.output
    assert f"differs: torch: 1.0 there, {version('torch')} here" in result.output
    assert "figures within 0.02" in result.output
    assert cli("reproduce", changed, "--out", again, "--tolerance", 0.001).exit_code == 1


def test_weights_that_differ_are_no_reproduction(first: Path, again: Path, tmp_path: Path) -> None:
    changed = described(first, tmp_path / "changed")
    change(changed / "run.json", weights_sha256="0" * 64)
    result = reproduce(changed, output=again)
    assert result.differences == ["weights: not bit-exact"]


def test_another_dataset_is_refused_before_training(first: Path, tmp_path: Path) -> None:
    other = make_phantoms(tmp_path / "other", images=20, size=64).root
    with pytest.raises(DxsegError, match="not the dataset that"):
        reproduce(first, output=tmp_path / "again", dataset=other)
    assert not (tmp_path / "again").exists()


def test_other_pixels_are_told(first: Path, again: Path, tmp_path: Path) -> None:
    changed = described(first, tmp_path / "changed")
    change(changed / "run.json", pixels_sha256="0" * 64)
    [difference] = reproduce(changed, output=again).differences
    assert difference.startswith(f"pixels_sha256: {'0' * 64} there")


def test_a_run_that_it_went_on_from_must_be_there(first: Path, tmp_path: Path) -> None:
    changed = described(first, tmp_path / "changed")
    change(changed / "run.json", stage1_from=str(tmp_path / "gone"))
    with pytest.raises(DxsegError, match=r"started from the run .*missing"):
        reproduce(changed, output=tmp_path / "again")

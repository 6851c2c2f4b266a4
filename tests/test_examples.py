"""The numbered examples run, with small settings, and do what they say."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import dxseg
from dxseg.models import weights
from following import ROOT
from plain_backbone import plain_convolutions

pytestmark = pytest.mark.slow  # trainings in other processes

EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
SMALL: dict[str, Any] = {"images": 24, "size": 64, "masks": 6}


def example(name: str) -> ModuleType:
    path = ROOT / "examples" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"example_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_they_are_numbered_told_and_tested() -> None:
    assert [path.name[:2] for path in EXAMPLES] == [f"{n:02}" for n in range(1, len(EXAMPLES) + 1)]
    told = (ROOT / "examples" / "README.md").read_text(encoding="utf-8")
    tested = Path(__file__).read_text(encoding="utf-8")
    for path in EXAMPLES:
        assert path.name in told
        assert f'example("{path.stem}")' in tested


def test_training(tmp_path: Path, tiny_overrides: dict[str, Any]) -> None:
    stages = tiny_overrides | {"student": tiny_overrides["stage2"]}
    figures = example("01_train_on_phantoms").main(tmp_path, **SMALL, overrides=stages)
    assert 0 <= figures["dice_lesion"] <= 1
    assert (tmp_path / "method" / "model" / "model.json").is_file()


@pytest.mark.slow
def test_comparing(tmp_path: Path, tiny_overrides: dict[str, Any]) -> None:
    table = example("02_compare_methods").main(tmp_path, **SMALL, overrides=tiny_overrides)
    for method in ("sks", "unet-stage1", "unet"):
        assert method in table
    assert (tmp_path / "comparison" / "comparison.json").is_file()
    shared = dxseg.info(tmp_path / "compared" / "unet-stage1")["stage1_from"]
    assert shared.endswith("sks")


def test_predicting(trained: Path) -> None:
    lines = list(example("03_predict_in_memory").main(trained / "model", size=64))
    assert [line.split(":")[0] for line in lines] == ["normal", "benign", "malignant"]
    assert " 0 are lesion" in lines[0]
    assert " 0 are lesion" not in lines[1]


def test_writing_a_dataset(tmp_path: Path) -> None:
    dataset = example("04_write_a_dataset").main(tmp_path / "own", images=12, size=64)
    told = dxseg.info(dataset.root)
    assert (told["cases"], told["masks"], told["patients"]) == (12, 3, 7)
    assert told["labels"] == {"benign": 5, "malignant": 4, "normal": 3}


def test_a_loop_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "load_pretrained", lambda _: False)
    small: dict[str, Any] = {"images": 24, "masks": 8, "size": 64, "steps": 2}
    small["backbone"] = plain_convolutions.__name__  # torch.export takes its time for every layer
    dice = example("05_own_training_loop").main(tmp_path, **small)
    assert 0 <= dice <= 1
    assert (tmp_path / "sks.pt2").is_file()

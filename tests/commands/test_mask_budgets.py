"""A wrong budget of masks gets one answer, wherever it is given."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import dxseg
from cli_results import call
from dxseg.config.mask_budget import parse_mask_budget
from dxseg.errors import UsageError

Entry = Callable[[Any], str]


@pytest.fixture
def entries(phantoms: Path, tmp_path: Path) -> dict[str, Entry]:
    """The answer of each entry to a budget."""
    out = tmp_path / "out"

    def command(*words: object) -> str:
        ended = call(*words)
        assert ended.exit_code == 2, ended.output
        return ended.stderr

    def python(function: Any) -> str:
        with pytest.raises(UsageError) as caught:
            function()
        return str(caught.value)

    def experiment(masks: Any) -> str:
        content = {
            "name": "budgets",
            "dataset": str(phantoms),
            "masks": [masks],
            "folds": 2,
            "methods": ["unet"],
            "reference": "unet",
        }
        (tmp_path / "experiment.yaml").write_text(yaml.safe_dump(content))
        return command("experiment", tmp_path / "experiment.yaml", "--out", out)

    return {
        "train": lambda masks: command("train", phantoms, "--out", out, "--masks", masks),
        "set": lambda m: command("train", phantoms, "--out", out, "--set", f"split.masks={m}"),
        "split": lambda masks: command("split", phantoms, "--out", out, "--masks", masks),
        "experiment": experiment,
        "dxseg.train": lambda m: python(lambda: dxseg.train(phantoms, output=out, masks=m)),
        "dxseg.split": lambda m: python(lambda: dxseg.split(phantoms, output=out, masks=m)),
    }


@pytest.mark.parametrize("masks", [0, -1, "abc"])
def test_what_is_no_budget(entries: dict[str, Entry], masks: Any, tmp_path: Path) -> None:
    for name, answer in entries.items():
        told = answer(masks)
        assert "expected a count such as 35, or a fraction in 0 to 1 such as 0.1" in told, name
        assert str(masks) in told, name
    assert not (tmp_path / "out").exists()


def test_more_masks_than_there_are(entries: dict[str, Entry], tmp_path: Path) -> None:
    for name, answer in entries.items():
        told = answer(9999)
        assert "9999 masks for train: expected 0 to " in told, name
        assert "the lesion masks" in told, name
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("text", "budget"), [("35", 35), ("0.1", 0.1), ("1", 1), ("1.0", 1.0)])
def test_counts_and_fractions(text: str, budget: int | float) -> None:
    for value in (text, budget):
        read = parse_mask_budget(value)
        assert read == budget
        assert type(read) is type(budget)


@pytest.mark.parametrize("value", [True, None, 1.5, float("nan"), "nan", "1.5", "", "10 %"])
def test_other_values_are_refused(value: object) -> None:
    with pytest.raises(UsageError, match=r"masks .*: expected a count"):
        parse_mask_budget(value)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--label-unit", "volume"),
        ("--budget-unit", "slice"),
        ("--set", "split.validation_masks=3"),
        ("--set", "split.split_seed=1"),
    ],
)
def test_options_without_effect_on_given_splits(
    option: str, value: str, phantoms: Path, tmp_path: Path
) -> None:
    """A file that chooses the masks is used as it is."""
    splits, out = tmp_path / "splits.csv", tmp_path / "out"
    dxseg.split(phantoms, output=splits, masks=4)
    ended = call("train", phantoms, "--out", out, "--splits", splits, option, value)
    assert ended.exit_code == 2, ended.output
    assert "would have no effect" in ended.stderr
    assert not out.exists()

"""The experiment file: which keys and values are valid, and what errors report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dxseg.errors import UsageError
from dxseg.experiments.experiment import Experiment, parse_experiment, read_experiment_text
from dxseg.experiments.plan import plan

Make = Callable[..., Experiment]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": ["unet"]}, "method: unknown key"),
        ({"folds": None}, "either folds .* or seeds"),
        ({"seeds": [0]}, "either folds .* or seeds"),
        ({"masks": [15, 15]}, "masks: duplicate in"),
        ({"masks": [True]}, "masks"),
        ({"masks": ["some"]}, "masks"),
        ({"masks": []}, "masks"),
        ({"methods": ["unet", "unet"]}, "methods: duplicate in"),
        ({"methods": ["unet", {"name": "../x", "base_method": "unet"}]}, "a name starts with"),
        ({"methods": ["unet", {"name": "Stage1", "base_method": "unet"}]}, "choose another name"),
        ({"methods": ["unet", {"name": "sks", "folds": [3]}]}, r"'sks': folds \[3\] are none"),
        ({"methods": ["unet", {"name": "sks", "masks": [7]}]}, r"'sks': masks \[7\] are none"),
        ({"methods": ["unet", {"name": "sks", "seeds": [1]}]}, r"'sks': seeds \[1\] are none"),
        ({"reference": "c1"}, "reference: 'c1' is none of the methods"),
        ({"primary": "c1"}, "primary: 'c1' is none of the methods"),
        ({"hypotheses": [{"method": "unet", "against": "c1"}]}, "hypotheses: 'c1'"),
        ({"hypotheses": [{"method": "unet", "against": "unet", "metric": "d"}]}, "expected one of"),
        ({"hypotheses": [{"method": "unet", "against": "unet", "masks": 7}]}, "7 is none of masks"),
    ],
)
def test_a_wrong_experiment_file_is_reported(
    make_experiment: Make, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message) as raised:
        make_experiment(**changes)
    assert str(raised.value).startswith("experiment.yaml: ")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"set": {"seed": 3}}, "set contains seed"),
        ({"set": {"split": {"masks": 3}}}, "set contains split.masks"),
        ({"set": {"stage2": {"stepps": 3}}}, "stage2.stepps"),
        (
            {"methods": ["unet", {"name": "new", "base_method": "nothing"}]},
            "'new': .*'nothing' is unknown",
        ),
    ],
)
def test_a_wrong_configuration_is_reported_before_anything_runs(
    make_experiment: Make, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        plan(make_experiment(**changes))


@pytest.mark.parametrize("text", ["", "3", "a: [", "x: 2020-99-99", "- " * 5000 + "a"])
def test_text_that_is_no_experiment_is_reported(text: str) -> None:
    with pytest.raises(UsageError, match=r"experiment\.yaml"):
        parse_experiment(text, "experiment.yaml")


def test_a_file_that_is_none_is_reported(tmp_path: Path) -> None:
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "absent.yaml", tmp_path, tmp_path / "bytes.yaml"):
        with pytest.raises(UsageError, match=r"expected an experiment file"):
            read_experiment_text(path)

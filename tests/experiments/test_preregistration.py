"""A registered experiment file may be extended, not changed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from dxseg.data.table.dataset import Dataset
from dxseg.errors import DxsegError
from dxseg.experiments.experiment import Experiment, parse_experiment
from dxseg.experiments.preregistration import register

Make = Callable[..., Experiment]


def file_of(experiment: dict[str, Any]) -> tuple[Experiment, str]:
    text = yaml.safe_dump(experiment)
    return parse_experiment(text, "experiment.yaml"), text


BASE: dict[str, Any] = {
    "name": "trial",
    "dataset": "data",
    "masks": [4],
    "folds": 2,
    "methods": ["unet", {"name": "sks", "folds": [0]}],
    "reference": "unet",
}


@pytest.mark.parametrize(
    ("changes", "added"),
    [
        ({"masks": [4, 6]}, ["unet/6-masks/fold-0", "sks/6-masks/fold-0", "unet/6-masks/fold-1"]),
        (
            {"methods": [*BASE["methods"], "unet-stage1"]},
            ["unet-stage1/4-masks/fold-0", "unet-stage1/4-masks/fold-1"],
        ),
        ({"methods": ["unet", "sks"]}, ["sks/4-masks/fold-1"]),
        ({"methods": BASE["methods"][::-1]}, []),
    ],
)
def test_additions_are_accepted_and_recorded(
    changes: dict[str, Any], added: list[str], phantoms: Path, tmp_path: Path
) -> None:
    dataset = Dataset.load(phantoms)
    one = register(*file_of(BASE), dataset, tmp_path / "out")
    two = register(*file_of(BASE | changes), dataset, tmp_path / "out")
    assert two.added == set(added)
    assert two.sha256 == one.sha256
    assert (tmp_path / "out" / "experiment.yaml").read_text() == file_of(BASE | changes)[1]
    if added:
        with pytest.raises(DxsegError, match="no longer there"):
            register(*file_of(BASE), dataset, tmp_path / "out")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reference": "sks"}, "reference"),
        ({"primary": "sks"}, "primary"),
        ({"hypotheses": [{"method": "sks", "against": "unet"}]}, "hypotheses"),
        ({"set": {"stage2": {"steps": 5}}}, "another configuration"),
        ({"masks": [6, 4]}, "the first"),
        ({"masks": [6]}, "no longer there"),
        ({"methods": ["unet"]}, "no longer there"),
        ({"folds": 3}, "folds"),
        ({"seed": 7}, "seed"),
        ({"split_seed": 7}, "split_seed"),
        ({"resamples": 100}, "resamples"),
    ],
)
def test_every_other_change_is_refused(
    changes: dict[str, Any], message: str, phantoms: Path, tmp_path: Path
) -> None:
    dataset = Dataset.load(phantoms)
    register(*file_of(BASE), dataset, tmp_path / "out")
    before = (tmp_path / "out" / "registration.json").read_bytes()
    with pytest.raises(DxsegError, match=f"has changed since it was registered: .*{message}"):
        register(*file_of(BASE | changes), dataset, tmp_path / "out")
    assert (tmp_path / "out" / "registration.json").read_bytes() == before


def test_another_folder_or_dataset_is_refused(phantoms: Path, tmp_path: Path) -> None:
    dataset = Dataset.load(phantoms)
    register(*file_of(BASE), dataset, tmp_path / "out")
    changed = Dataset(dataset.root, dataset.spec, dataset.cases.iloc[1:])
    with pytest.raises(DxsegError, match="has changed since the experiment was registered"):
        register(*file_of(BASE), changed, tmp_path / "out")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    with pytest.raises(DxsegError, match="not empty and not an experiment"):
        register(*file_of(BASE), dataset, tmp_path / "full")
    for damage in ("", "{}", '{"versions": [], "dataset_digest": ""}'):
        (tmp_path / "out" / "registration.json").write_text(damage)
        with pytest.raises(DxsegError, match=r"cannot be read as a registration"):
            register(*file_of(BASE), dataset, tmp_path / "out")


def test_a_plain_method_may_be_added_that_a_self_trained_one_then_goes_on_from(
    phantoms: Path, tmp_path: Path
) -> None:
    dataset = Dataset.load(phantoms)
    before = BASE | {"methods": ["unet", "sks-evidence-selftrained"]}
    after = BASE | {"methods": [*before["methods"], "sks-evidence"]}
    register(*file_of(before), dataset, tmp_path / "out")
    added = register(*file_of(after), dataset, tmp_path / "out").added
    assert added == {f"sks-evidence/4-masks/fold-{fold}" for fold in (0, 1)}

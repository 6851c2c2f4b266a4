"""Too little to train on is told before anything is trained, in one message, without a folder."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dxseg.data.table.dataset import Dataset
from dxseg.errors import DxsegError


def change(root: Path, **columns: Any) -> Path:
    dataset = Dataset.load(root)
    cases = dataset.cases.copy()
    for column, values in columns.items():
        cases[column] = values
    Dataset(root, dataset.spec, cases).save()
    return root


def refuse(train: Callable[..., Path], output: Path, *arguments: Any, **options: Any) -> str:
    with pytest.raises(DxsegError) as caught:
        train(*arguments, **options)
    assert not output.exists()
    return str(caught.value)


@pytest.mark.parametrize("method", ["sks", "unet-multitask", "unet-stage1-selftrained"])
def test_one_label_names_the_methods_that_work(
    method: str, train: Callable[..., Path], copied: Path, tmp_path: Path
) -> None:
    cases = Dataset.load(copied).cases
    label = cases["label"].where(cases["split"].ne("train"), "dark")
    masks = cases["mask"].where(cases["label"].ne("none"), "")
    message = refuse(
        train, tmp_path / "run", method, dataset=change(copied, label=label, mask=masks)
    )
    assert "all labeled training cases have the label 'dark'" in message
    named = message.rpartition("--method NAME: ")[2].rstrip(")").split(", ")
    assert {"unet", "unet-scratch", "sks-no-labels", "unet-selftrained"} <= set(named)
    assert not {"sks", "sks-selftrained", "unet-stage1", "unet-multitask"} & set(named)


@pytest.mark.parametrize("method", ["unet-stage1-student", "unet-multitask"])
def test_label_heads_need_labels_of_images(
    method: str, train: Callable[..., Path], copied: Path, tmp_path: Path
) -> None:
    """Lesion labels of studies name no image: a head would learn "none" for all."""
    message = refuse(train, tmp_path / "run", method, dataset=change(copied, label_level="study"))
    assert "it would learn 'none' for all" in message
    named = re.findall(r"--method NAME: (.*?)\)", message)[0].split(", ")
    assert {"sks", "unet-stage1", "unet-classifier", "unet-stage1-selftrained"} <= set(named)
    assert not {"unet-stage1-student", "sks-student", "unet-multitask", "unet"} & set(named)


def test_a_method_without_labels_trains_on_one_label(
    train: Callable[..., Path], copied: Path
) -> None:
    cases = Dataset.load(copied).cases
    keep = cases["label"].ne("none")
    dataset = change(copied, label=cases["label"].where(~keep, "dark").where(keep, ""))
    assert (train("unet-scratch", dataset=dataset) / "run.json").is_file()


def test_all_that_is_missing_is_told_in_one_message(
    train: Callable[..., Path], copied: Path, tmp_path: Path
) -> None:
    for mask in (copied / "masks").iterdir():
        Image.fromarray(np.zeros((64, 64), np.uint8)).save(mask)
    label = Dataset.load(copied).cases["label"].map({"none": "", "bright": "dark", "dark": "dark"})
    dataset = change(copied, patient_id="P1", split="", label=label)
    message = refuse(train, tmp_path / "run", "sks", dataset=dataset)
    assert "all 39 cases are of one patient" in message
    assert "have the label 'dark'" in message
    assert "none of the 26 training masks shows a lesion" in message


@pytest.mark.parametrize(
    ("patients", "words"),
    [
        (["P1"] * 20 + ["P2"] * 19, r"no (validation|test) case: 2 patients or groups are too few"),
        (["P1"] * 39, "of one patient"),
    ],
)
def test_no_validation_or_test_case(
    patients: list[str], words: str, train: Callable[..., Path], copied: Path, tmp_path: Path
) -> None:
    dataset = change(copied, patient_id=patients, split="")
    message = refuse(train, tmp_path / "run", "unet-scratch", dataset=dataset)
    assert re.search(words, message)


def test_parts_that_nobody_asked_for_may_be_empty(train: Callable[..., Path], copied: Path) -> None:
    dataset = change(copied, split="")
    run = train("unet-scratch", dataset=dataset, split={"fractions": (1.0, 0.0, 0.0)})
    assert (run / "run.json").is_file()

"""`dxseg export onnx`, from the command line to the figures that an export must not change."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

import dxseg
from dxseg import export_onnx
from dxseg.data.splits.split_table import read_splits
from dxseg.data.table.dataset import Dataset
from dxseg.errors import DxsegError, UsageError
from dxseg.export import quantize as quantizing
from dxseg.export.calibration_data import IMAGES, CalibrationCase, calibration_cases
from dxseg.export.quantize import ENOUGH_MASKS
from dxseg.inference.onnx_file import read_onnx
from dxseg.inference.sources import SpacedImage
from onnx_models import make_model_folder

Cli = Callable[..., Any]


@pytest.fixture(scope="module")
def file(cli: Cli, trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("export") / "model.onnx"
    result = cli("export", "onnx", trained, "--out", path)
    assert result.exit_code == 0, result.output
    assert "float32" in result.stdout
    return path


def test_predictions_are_those_of_the_run(cli, trained, phantoms, file, tmp_path):
    images = phantoms / "images"
    for model, name in ((trained, "torch"), (file, "onnx")):
        words = ["predict", model, images, "--out", tmp_path / name, "--no-overlays"]
        result = cli(*words)
        assert result.exit_code == 0, result.output
        assert not (tmp_path / name / "overlays").exists()
    one, other = (pd.read_csv(tmp_path / name / "predictions.csv") for name in ("torch", "onnx"))
    figures = [c for c in one if c.startswith("p_") or c == "confidence"]
    np.testing.assert_allclose(one[figures], other[figures], atol=1e-3)
    assert one["model"].iloc[0] != other["model"].iloc[0], "another file, other rows"
    again = cli("predict", file, images, "--out", tmp_path / "onnx", "--no-overlays")
    assert f"{len(one)} already done" in again.stdout
    with_overlays = cli("predict", file, images, "--out", tmp_path / "onnx")
    assert f"{len(one)} predicted" in with_overlays.stdout


def test_the_exported_model_is_evaluated_beside_the_run(cli, trained, file, tmp_path):
    own = json.loads((trained / "evaluation.json").read_text())
    words = ["evaluate", trained, "--model", file]
    assert cli(*words).exit_code == 2
    assert cli(*words, "--out", trained).exit_code == 2
    result = cli(*words, "--out", tmp_path, "--backend", "openvino")
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "evaluation.json").read_text())
    for figure in ("dice_all", "auroc_label", "ece_pixel"):
        assert found[figure] == pytest.approx(own[figure], abs=5e-3)
    assert json.loads((trained / "evaluation.json").read_text()) == own


def test_info_reads_the_file(file, trained):
    told = dxseg.info(file)
    assert told["labels"] == dxseg.info(trained / "model")["labels"]
    assert told["number_format"] == "float32"


def test_a_run_is_converted_for_a_backend(cli, trained, phantoms, tmp_path):
    image = next((phantoms / "images").iterdir())
    words = ["predict", trained, image, "--out", tmp_path, "--backend", "onnxruntime"]
    assert cli(*words, "--flip", "--sliding-window").exit_code == 0


@pytest.mark.slow
def test_int8_reports_what_it_costs_and_predicts(cli, phantoms, tmp_path):
    path = tmp_path / "int8.onnx"
    model_folder = make_model_folder(tmp_path / "model_folder", "sks-evidence")
    words = ["export", "onnx", model_folder, "--out", path, "--int8", "--calibration", phantoms]
    result = cli(*words, "--max-dice-loss", 1)
    assert result.exit_code == 0, result.output
    assert "agreement" in result.stdout
    assert read_onnx(path).number_format == "int8"
    for backend in ("onnxruntime", "openvino"):
        out = tmp_path / backend
        result = cli("predict", path, phantoms / "images", "--out", out, "--backend", backend)
        assert result.exit_code == 0, result.output
        assert (pd.read_csv(out / "predictions.csv")["status"] == "ok").all()


@pytest.mark.parametrize(
    "words",
    [
        ["--out", "model.pt"],
        ["--out", "model.onnx", "--int8"],
        ["--out", "model.onnx", "--calibration", "data"],
        ["--out", "m.onnx", "--int8", "--calibration", "data", "--max-dice-loss", "-0.1"],
    ],
)
def test_requests_that_make_no_sense(cli, trained, words):
    result = cli("export", "onnx", trained, *words)
    assert result.exit_code == 2, result.output


def test_int8_is_smaller(tmp_path, phantoms):
    model_folder = make_model_folder(tmp_path / "model_folder", "unet")
    plain = export_onnx(model_folder, output=tmp_path / "a.onnx")
    small = export_onnx(
        model_folder, output=tmp_path / "b.onnx", int8=True, calibration=[phantoms], max_dice_loss=1
    )
    assert small.size < plain.size
    assert small.quantization.images == small.quantization.masks == 24


def test_a_model_that_lost_too_much_is_not_written(tmp_path, phantoms, monkeypatch):
    model_folder = make_model_folder(tmp_path / "model_folder", "unet")
    # Random masks hardly lose against true ones; so they are compared with each other.
    monkeypatch.setattr(quantizing, "ENOUGH_MASKS", 1000)
    with pytest.raises(DxsegError, match="nothing was written"):
        export_onnx(
            model_folder,
            output=tmp_path / "a.onnx",
            int8=True,
            calibration=[phantoms],
            max_dice_loss=0.0,
        )
    assert list(tmp_path.glob("*.onnx")) == []


class Says:
    """A predictor that gives the masks that it is told."""

    def __init__(self, masks: list[np.ndarray]) -> None:
        self.masks = masks

    def stream(self, items):
        for (name, _), mask in zip(items, self.masks, strict=True):
            yield name, SimpleNamespace(mask=mask)


def strip(start: int, stop: int) -> np.ndarray:
    mask = np.zeros((4, 16), np.uint8)
    mask[:, start:stop] = 1
    return mask


def compared(first: list, second: list, cases: list) -> quantizing.QuantizationReport:
    return quantizing._compare(Says(first), Says(second), cases, lambda _: None)


def test_the_loss_is_what_dice_says(monkeypatch):
    empty = strip(0, 0)
    unknown = CalibrationCase(SpacedImage(Path("a.png"), None), None, lesion_free=False, classes=1)
    free = CalibrationCase(SpacedImage(Path("b.png"), None), None, lesion_free=True, classes=1)
    # Dice of 0..4 and 2..6 is 1/2; both empty is no agreement on anything.
    cost = compared([strip(0, 4), empty], [strip(2, 6), empty], [unknown, unknown])
    assert (cost.agreement, cost.dice_loss) == (0.5, 0.5)
    assert (cost.images, cost.masks, cost.dice_float32) == (2, 0, None)
    # Lesion-free images have a true mask: from enough of them on, it decides.
    lots = ENOUGH_MASKS
    found = [*[empty] * (lots - 1), strip(0, 4)]
    cost = compared([empty] * lots, found, [free] * lots)
    assert cost.masks == lots
    assert (cost.dice_float32, cost.dice_int8) == (1.0, pytest.approx(1 - 1 / lots))
    assert cost.dice_loss == pytest.approx(1 / lots)
    assert compared([empty] * 2, [empty, strip(0, 4)], [free] * 2).dice_loss == 1.0


def test_absent_classes_do_not_hide_a_loss():
    unknown = CalibrationCase(SpacedImage(Path("a.png"), None), None, lesion_free=False, classes=4)
    assert compared([strip(0, 4)], [strip(2, 6)], [unknown]).dice_loss == 0.5


def test_a_check_that_would_say_nothing_is_refused():
    free = CalibrationCase(SpacedImage(Path("b.png"), None), None, lesion_free=True, classes=1)
    with pytest.raises(DxsegError, match="nothing can be compared"):
        compared([strip(0, 0)], [strip(0, 0)], [free])


def test_test_images_and_hidden_masks_are_left_out(trained, phantoms):
    data = Dataset.load(phantoms)
    splits = read_splits(trained / "splits.csv", data)
    of_split = {
        data.image_path(row): (split, use)
        for row, split, use in zip(
            data.cases.itertuples(), splits["split"], splits["use_mask"], strict=True
        )
    }
    cases = calibration_cases([phantoms], trained)
    assert {of_split[case.image.image][0] for case in cases} == {"train", "validation"}
    assert all(of_split[case.image.image][1] for case in cases if case.mask is not None)
    assert 0 < sum(case.mask is not None for case in cases) < len(cases)
    assert calibration_cases([phantoms], trained / "model") == cases, "the model of the run"
    everything = calibration_cases([phantoms])
    assert len(everything) == len(data) <= IMAGES


def test_masks_that_were_drawn_since_open_no_test_image(trained, phantoms, tmp_path):
    shutil.copytree(phantoms, tmp_path / "data")
    data = Dataset.load(tmp_path / "data")
    data.cases.loc[data.cases["mask"].ne("").to_numpy().argmax(), "mask"] = ""
    data.save()
    splits = read_splits(trained / "splits.csv", data)
    test = {data.image_path(row) for row in data.cases[splits["split"].eq("test")].itertuples()}
    assert not test & {case.image.image for case in calibration_cases([data.root], trained)}


def test_calibration_needs_images(tmp_path, trained):
    with pytest.raises(UsageError, match="--calibration"):
        calibration_cases([], trained)

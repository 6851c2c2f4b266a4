"""Several models as one: the mean of their probabilities, through the path of a single model."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dxseg import predict
from dxseg.config.network import ModelConfig
from dxseg.data.preprocessing import Preprocessing
from dxseg.data.readers.slicing import Slicing
from dxseg.errors import UsageError
from dxseg.inference.components import ComponentFilter
from dxseg.inference.ensemble import ensemble_info
from dxseg.inference.model_folder import save_model_folder
from dxseg.inference.model_info import ModelInfo
from dxseg.inference.predictor import Predictor
from dxseg.models.factory import Task, build_model

MODEL = ModelConfig(backbone="test_efficientnet", decoder_channels=(8, 8, 4, 4, 4))
RNG = np.random.default_rng(0)
IMAGES = [RNG.integers(0, 256, shape, dtype=np.uint8) for shape in ((64, 48, 1), (100, 90, 1))]


def info(**changes: Any) -> ModelInfo:
    fields: dict[str, Any] = {
        "model": MODEL,
        "preprocessing": Preprocessing(image_size=64, channels=1, mean=(0.5,), std=(0.25,)),
        "labels": ["normal", "lesion"],
        "lesion_free": ["normal"],
        "weights_sha256": "0" * 64,
    }
    return ModelInfo(**{**fields, **changes})


def save(folder: Path, seed: int, **changes: Any) -> Path:
    torch.manual_seed(seed)
    network = build_model(MODEL, Task(1, 1, 2, lesion_free=(0,)), pretrained=False)
    save_model_folder(folder, network, info(**changes))
    return folder


@pytest.fixture
def models(tmp_path: Path) -> list[Path]:
    """Three models that differ in weights, temperatures and standardization."""
    other = Preprocessing(image_size=64, channels=1, mean=(0.3,), std=(0.4,))
    return [
        save(tmp_path / "a", 1, mask_temperature=2.0, label_temperature=0.5),
        save(tmp_path / "b", 2, preprocessing=other),
        save(tmp_path / "c", 3, mask_temperature=0.5),
    ]


@pytest.mark.parametrize("options", [{}, {"flip": True}, {"batch_size": 1}])
def test_probabilities_are_the_means_of_those_of_the_models(
    models: list[Path], options: dict[str, Any]
) -> None:
    singles = [Predictor.from_folder(model, **options).predict(IMAGES) for model in models]
    together = Predictor.from_folder(models, **options).predict(IMAGES)
    for number, found in enumerate(together):
        members = [single[number] for single in singles]
        small = found.probabilities.shape[1:] == (64, 48)
        # Before resizing and after it temperatures are not quite the same.
        mean = np.mean([one.probabilities for one in members], axis=0)
        np.testing.assert_allclose(found.probabilities, mean, atol=1e-5 if small else 0.02)
        labels = [list((one.label_probabilities or {}).values()) for one in members]
        assert found.label_probabilities is not None
        np.testing.assert_allclose(
            list(found.label_probabilities.values()), np.mean(labels, axis=0), atol=1e-5
        )
        assert found.evidence is not None
        evidence = np.mean([one.evidence for one in members], axis=0)
        np.testing.assert_allclose(found.evidence, evidence, atol=1e-5)
        np.testing.assert_array_equal(found.mask > 0, found.probabilities[0] >= 0.5)


def test_label_prompts_reach_every_model(models: list[Path]) -> None:
    predictor = Predictor.from_folder(models)
    [free, known] = predictor.predict(IMAGES[:1] * 2, ["normal", "lesion"])
    assert not free.mask.any()
    singles = [Predictor.from_folder(m).predict(IMAGES[:1], ["lesion"])[0] for m in models]
    mean = np.mean([one.probabilities for one in singles], axis=0)
    np.testing.assert_allclose(known.probabilities, mean, atol=1e-5)


def test_ranges_of_sixteen_bit_are_those_of_each_model(tmp_path: Path) -> None:
    deep = {"image_size": 64, "channels": 1, "dtype": "uint16", "mean": (0.5,), "std": (0.25,)}
    ranges = [(100.0, 2000.0), (0.0, 1500.0)]
    folders = [
        save(tmp_path / str(seed), seed, preprocessing=Preprocessing(**deep, low=low, high=high))
        for seed, (low, high) in enumerate(ranges)
    ]
    image = np.random.default_rng(1).integers(0, 3000, (64, 64, 1)).astype(np.uint16)
    singles = [Predictor.from_folder(folder).predict([image])[0] for folder in folders]
    [found] = Predictor.from_folder(folders).predict([image])
    mean = np.mean([one.probabilities for one in singles], axis=0)
    np.testing.assert_allclose(found.probabilities, mean, atol=1e-4)


def test_thresholds_of_an_ensemble() -> None:
    filters = [
        ComponentFilter(min_area=8, min_volume_mm3=3, largest_only=True),
        ComponentFilter(min_area=4, min_volume_mm3=5),
    ]
    one, other = (
        info(threshold=t, rule_out_threshold=r, components=c, weights_sha256=w * 64)
        for t, r, c, w in zip((0.4, 0.6), (0.1, 0.3), filters, "12", strict=True)
    )
    found = ensemble_info([one, other], ["a", "b"])
    assert (found.threshold, found.rule_out_threshold) == (pytest.approx(0.5), pytest.approx(0.2))
    assert found.components == ComponentFilter(min_area=4, min_volume_mm3=3)
    assert (found.mask_temperature, found.label_temperature) == (1, 1)
    assert found.weights_sha256 not in (one.weights_sha256, other.weights_sha256)
    off = info(weights_sha256="3" * 64)
    found = ensemble_info([one, off], ["a", "b"])
    assert (found.rule_out_threshold, found.rule_in_threshold, found.components) == (None,) * 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": ["normal", "tumor"]}, r"labels \['normal', 'tumor'\], but a has"),
        ({"mask_classes": ["cyst"]}, r"mask classes \['cyst'\], but a has \['lesion'\]"),
        (
            {"preprocessing": Preprocessing(image_size=96, channels=1, mean=(0,), std=(1,))},
            "image size 96, but a has 64",
        ),
        ({"sliding_window": True}, "sliding window True, but a has False"),
        ({"slicing": Slicing()}, "slicing axis='through-plane'"),
        ({}, "a model is given twice"),
    ],
)
def test_models_that_do_not_fit_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ensemble_info([info(), info(**changes)], ["a", "b"])


def test_the_command(models: list[Path], tmp_path: Path, cli: Callable[..., Any]) -> None:
    Image.fromarray(IMAGES[0][:, :, 0]).save(tmp_path / "x.png")
    result = cli("predict", *models, tmp_path / "x.png", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    with (tmp_path / "out/predictions.csv").open(encoding="utf-8", newline="") as stream:
        [row] = csv.DictReader(stream)
    [expected] = Predictor.from_folder(models).predict(IMAGES[:1])
    assert expected.label_probabilities is not None
    assert float(row["p_lesion"]) == pytest.approx(expected.label_probabilities["lesion"], abs=1e-5)
    assert predict(models, tmp_path / "x.png", output=tmp_path / "out").skipped == 1
    # One model alone has results of its own.
    assert predict(models[0], tmp_path / "x.png", output=tmp_path / "out").done == 1
    for words, message in (
        ((*models, tmp_path / "x.png", models[0]), "a model after an input"),
        (models, "give images or volumes"),
        ((tmp_path / "x.png", models[0]), "give the model first"),
        ((models[0], models[0], tmp_path / "x.png"), "given twice"),
        ((*models, tmp_path / "x.png", "--engine", "ray"), "several models are not supported"),
    ):
        wrong = cli("predict", *words, "--out", tmp_path / "wrong")
        assert wrong.exit_code == 2, wrong.output
        assert message in " ".join(wrong.output.split())

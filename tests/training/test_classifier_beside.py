"""Equal rules: what starts from stage 1 keeps its classifier, and C1 can have it too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import dxseg
from dxseg.config.schema import RunConfig
from dxseg.data.readers.images import read_image
from dxseg.data.table.dataset import Dataset
from dxseg.evaluation.evaluate import evaluate_run, open_run
from dxseg.inference.model_folder import load_model_folder, read_info
from dxseg.inference.predictor import Predictor
from dxseg.metrics.calibration import temper_labels
from dxseg.models.encoder import pad_to_multiple
from dxseg.models.segmenter_with_classifier import SegmenterWithClassifier
from dxseg.training.run import train_run
from dxseg.training.stage1_folder import load_stage1
from dxseg.training.thresholds import validation_thresholds
from trained_runs import weights_of

METHODS = ("unet-classifier", "unet-stage1-selftrained")


@pytest.fixture(scope="module", params=METHODS)
def run(
    request: pytest.FixtureRequest,
    disks: Path,
    configure: Callable[..., RunConfig],
    finished: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """C1 with the classifier, and C5; both with the stage 1 of the dual-branch run."""
    folder = tmp_path_factory.mktemp("beside") / "run"
    train_run(disks, folder, configure(request.param), stage1_run=finished)
    return folder


def stage1_probabilities(run: Path, stage1: Path, disks: Path, split: str) -> np.ndarray:
    """By the classifier in the folder of stage 1, as it is."""
    coarse, _ = load_stage1(stage1 / "stage1")
    info = read_info(run / "model")
    pixels = [info.preprocessing.fit(image)[0] for image in images_of(disks, split)]
    batch = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2)
    with torch.inference_mode():
        normalized = pad_to_multiple(info.preprocessing.normalize(batch), 32)
        return coarse.eval()(normalized).label_logits.double().softmax(1).numpy()


def images_of(disks: Path, split: str) -> list[np.ndarray]:
    data = Dataset.load(disks)
    rows = data.cases[data.cases["split"].eq(split)]
    return [read_image(data.image_path(row)) for row in rows.itertuples()]


def test_the_model_folder_has_the_classifier_of_stage_one_to_the_bit(
    run: Path, finished: Path
) -> None:
    stage1, model = load_file(finished / "stage1" / "coarse.safetensors"), weights_of(run)
    assert all(torch.equal(model[f"coarse.{name}"], stage1[name]) for name in stage1)
    network, info = load_model_folder(run / "model")
    assert isinstance(network, SegmenterWithClassifier)
    assert info.model.classifier


def test_thresholds_are_those_of_the_dual_branch_on_the_same_images(
    run: Path, finished: Path, disks: Path
) -> None:
    """One function, the same validation images, the same classifier: the same thresholds."""
    own, dual = read_info(run / "model"), read_info(finished / "model")
    data = Dataset.load(disks)
    labels = data.cases.loc[data.cases["split"].eq("validation"), "label"]
    positions = np.array([own.labels.index(label) for label in labels])
    probabilities = stage1_probabilities(run, finished, disks, "validation")
    tempered = temper_labels(probabilities, own.label_temperature, multi_label=False)
    expected = validation_thresholds(tempered, positions, own, sensitivity=0.98, specificity=0.95)
    assert (own.rule_out_threshold, own.rule_in_threshold) == pytest.approx(expected, abs=1e-5)
    for name in ("label_temperature", "rule_out_threshold", "rule_in_threshold"):
        assert getattr(own, name) == pytest.approx(getattr(dual, name), abs=1e-6)


def test_validation_prediction_and_export_have_the_same_labels_and_masks(
    run: Path, finished: Path, disks: Path, tmp_path: Path
) -> None:
    pytest.importorskip("onnxruntime")
    expected = stage1_probabilities(run, finished, disks, "validation")
    predictor = Predictor.from_folder(run / "model")
    tempered = temper_labels(expected, predictor.info.label_temperature, multi_label=False)
    dxseg.export_onnx(run, output=tmp_path / "model.onnx")
    exported = Predictor.from_folder(tmp_path / "model.onnx")
    images = images_of(disks, "validation")
    folder, file = predictor.predict(images), exported.predict(images)
    table = evaluate_run(run, *open_run(run), split="validation", resamples=100).per_image
    free = [predictor.info.labels.index(name) for name in predictor.info.lesion_free]
    for row, (one, other) in enumerate(zip(folder, file, strict=True)):
        assert one.label_probabilities is not None
        found = list(one.label_probabilities.values())
        assert found == pytest.approx(tempered[row].tolist(), abs=1e-5)
        assert other.label_probabilities == pytest.approx(one.label_probabilities, abs=1e-4)
        np.testing.assert_allclose(other.probabilities, one.probabilities, atol=1e-4)
        assert (other.mask != one.mask).mean() <= 0.001
        assert table["lesion_probability"][row] == pytest.approx(
            1 - tempered[row][free].sum(), abs=1e-5
        )
        assert table["predicted_area"][row] == (one.mask > 0).sum()


def test_files_are_predicted_with_the_classifier(run: Path, disks: Path, tmp_path: Path) -> None:
    predictor = Predictor.from_folder(run / "model")
    dxseg.predict(run, disks / "images", output=tmp_path / "out", overlays=False)
    text = (tmp_path / "out" / "predictions.csv").read_text("utf-8")
    header, first = (line.split(",") for line in text.splitlines()[:2])
    row = dict(zip(header, first, strict=True))
    [image] = [read_image(path) for path in (disks / "images").glob(row["name"])]
    [wanted] = predictor.predict([image])
    assert wanted.label_probabilities is not None
    for name, probability in wanted.label_probabilities.items():
        assert float(row[f"p_{name}"]) == pytest.approx(probability, abs=1e-4)


def test_self_training_that_goes_on_from_c2_keeps_its_classifier(
    train: Callable[..., Path],
    configure: Callable[..., RunConfig],
    finished: Path,
    disks: Path,
    tmp_path: Path,
) -> None:
    changes = {"split": {"masks": 4}}
    c2 = train("unet-stage1", name="c2", stage1_run=finished, **changes)
    own = train("unet-stage1-selftrained", name="own", stage1_run=finished, **changes)
    config = configure("unet-stage1-selftrained", **changes)
    train_run(disks, tmp_path / "taken", config, stage2_run=c2)
    mine, theirs = weights_of(tmp_path / "taken"), weights_of(own)
    assert [name for name in theirs if not torch.equal(mine[name], theirs[name])] == []
    assert any(name.startswith("coarse.") for name in mine)


def test_masks_do_not_depend_on_the_classifier_beside(
    train: Callable[..., Path], finished: Path
) -> None:
    """The same training: only what decides about the whole image is added."""
    plain = train("unet", name="plain")
    beside = train("unet-classifier", name="beside", stage1_run=finished)
    one, other = weights_of(plain), weights_of(beside)
    assert all(torch.equal(other[f"segmenter.{name}"], one[name]) for name in one)
    assert len(one) < len(other)

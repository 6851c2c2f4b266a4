"""Temperatures and gate of a run, on networks whose true logits are known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import expit, softmax

from dxseg.config.network import ModelConfig
from dxseg.config.presets import load_config
from dxseg.data.batches.batches import CaseDataset
from dxseg.data.preprocessing import Preprocessing
from dxseg.inference.model_info import ModelInfo
from dxseg.inference.postprocess import MAX_RULE_OUT, RELATIVE_THRESHOLD, is_ruled_in, is_ruled_out
from dxseg.inference.predictor import Predictor
from dxseg.metrics.image_level import lesion_probability
from dxseg.models.factory import Task
from dxseg.models.segmentation_model import SegmentationModel, SegmenterOutput
from dxseg.training import calibration
from dxseg.training.calibration import MIN_IMAGES, MIN_LESIONS
from dxseg.training.datamodule.training_data import TrainingData

SIZE, LABELS = 32, ["normal", "benign", "malignant"]
PIXEL, LABEL = 6.0, 5.0
"""What the intensities, -0.5 to 0.5, are multiplied by to give the true logits."""


class Overconfident(SegmentationModel):
    """Gives the true logits of pixels and, in the first of them, of labels; times a factor."""

    def __init__(self, pixels: float, labels: float) -> None:
        super().__init__()
        self.pixels, self.labels = pixels, labels

    def _forward_padded(self, x: torch.Tensor, known: Any, _whole: Any) -> SegmenterOutput:  # noqa: ARG002
        return SegmenterOutput(PIXEL * self.pixels * x, LABEL * self.labels * x[:, 0, 0, :3])


def made(count: int, *, multi_label: bool = False, seed: int = 0) -> tuple[CaseDataset, Task]:
    """Images of noise; masks and labels happen as likely as the true logits say."""
    generator = np.random.default_rng(seed)
    images = generator.integers(0, 256, (count, SIZE, SIZE, 1), dtype=np.uint8)
    scaled = images[..., 0] / 255 - 0.5
    masks = (generator.random(scaled.shape) < expit(PIXEL * scaled)).astype(np.uint8)
    logits = LABEL * scaled[:, 0, :3]
    labels: np.ndarray[Any, Any]
    if multi_label:
        labels = (generator.random(logits.shape) < expit(logits)).astype(np.float32)
    else:
        labels = np.array([generator.choice(3, p=p) for p in softmax(logits, axis=1)])
    rows = np.arange(count)
    return CaseDataset(images, rows, masks, rows, labels, 1), Task(1, 1, 3, multi_label, (0,))


def calibrate(
    segmenter: SegmentationModel,
    model_folder: ModelInfo,
    given: TrainingData,
    sensitivity: float | None,
    specificity: float | None = None,
) -> tuple[ModelInfo, dict[str, Any]]:
    found, records = calibration.calibrate(
        segmenter, model_folder, given, sensitivity=sensitivity, specificity=specificity
    )
    return found, records["calibration"]


def data_of(arrays: CaseDataset, task: Task) -> TrainingData:
    preprocessing = Preprocessing(image_size=SIZE, channels=1, mean=(0.5,), std=(1.0,))
    free = np.zeros(len(arrays), bool)
    return TrainingData(
        task, preprocessing, arrays, arrays, arrays, arrays, free, free, arrays.images, "", ""
    )


def info(given: TrainingData, model: ModelConfig | None = None) -> ModelInfo:
    return ModelInfo(
        model=model or ModelConfig(),
        preprocessing=given.preprocessing,
        labels=LABELS,
        lesion_free=["normal"],
        multi_label=given.task.multi_label,
    )


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("factor", [3.0, 0.5])
def test_a_known_temperature_is_recovered_and_the_error_falls(multi_label, factor):
    given = data_of(*made(400, multi_label=multi_label))
    segmenter = Overconfident(factor, 2 * factor)
    found, record = calibrate(segmenter, info(given), given, None)
    assert found.mask_temperature == pytest.approx(factor, rel=0.03)
    assert found.label_temperature == pytest.approx(2 * factor, rel=0.2)
    for kind, wrong in (("masks", factor != 1), ("labels", 2 * factor != 1)):
        told = record[kind]
        assert told["images"] == 400
        assert "note" not in told
        if wrong:
            assert told["ece_after"] < told["ece_before"]
    assert record["masks"]["ece_after"] < 0.01


def test_masks_are_the_same_and_probabilities_are_the_true_ones():
    given = data_of(*made(60))
    segmenter = Overconfident(3.0, 3.0)
    plain = info(given)
    found, _ = calibrate(segmenter, plain, given, None)
    images = [given.label_validation.image(row) for row in range(20)]
    images.append(np.repeat(np.repeat(images[0], 3, axis=0), 2, axis=1))  # resized both ways
    before = Predictor(segmenter, plain).predict(images)
    after = Predictor(segmenter, found).predict(images)
    for image, one, other in zip(images, before, after, strict=True):
        assert np.array_equal(one.mask, other.mask)
        assert 0 < one.mask.mean() < 1
        if image.shape[0] == SIZE:
            true = expit(PIXEL * (image[..., 0] / 255 - 0.5))
            assert np.abs(other.probabilities[0] - true).max() < 0.05
            assert np.abs(one.probabilities[0] - true).max() > 0.2


@pytest.mark.parametrize("multi_label", [False, True])
def test_the_gate_is_chosen_after_the_temperature_and_lets_enough_lesions_through(multi_label):
    given = data_of(*made(300, multi_label=multi_label))
    segmenter = Overconfident(1.0, 4.0)
    found, _ = calibrate(segmenter, info(given), given, 0.9)
    assert found.label_temperature == pytest.approx(4, rel=0.2)
    arrays = given.label_validation
    labels = arrays.labels
    lesion = (labels[:, 0] == 0) & labels.any(axis=1) if multi_label else labels > 0
    predicted = Predictor(segmenter, found).predict([arrays.image(r) for r in range(300)])
    chances = np.array(
        [lesion_probability(p.label_probabilities, ["normal"], multi_label) for p in predicted]
    )
    shut = np.array([is_ruled_out(found.rule_out_threshold, chance) for chance in chances])
    assert shut[lesion].sum() == int(0.1 * lesion.sum()), "a tenth of the lesions may be lost"
    assert shut[~lesion].mean() > 2 * shut[lesion].mean()
    assert not any(p.mask.any() for p, closed in zip(predicted, shut, strict=True) if closed)
    unscaled, _ = calibrate(
        segmenter, info(given), replace(given, label_validation=few(arrays, MIN_IMAGES - 1)), 0.9
    )
    assert unscaled.label_temperature == 1
    assert unscaled.rule_out_threshold != pytest.approx(found.rule_out_threshold, rel=0.05)


@pytest.mark.parametrize("multi_label", [False, True])
def test_few_enough_lesion_free_images_are_ruled_in_and_their_masks_have_to_find_something(
    multi_label,
):
    given = data_of(*made(300, multi_label=multi_label))
    segmenter = Overconfident(1.0, 1.0)
    found, _ = calibrate(segmenter, info(given), given, None, 0.9)
    arrays = given.label_validation
    labels = arrays.labels
    free = labels[:, 0] > 0 if multi_label else labels == 0
    if multi_label:
        free &= ~labels[:, 1:].any(axis=1)
    predicted = Predictor(segmenter, found).predict([arrays.image(r) for r in range(300)])
    chances = np.array(
        [lesion_probability(p.label_probabilities, ["normal"], multi_label) for p in predicted]
    )
    ruled = np.array([is_ruled_in(found.rule_in_threshold, chance) for chance in chances])
    assert found.rule_in_threshold > MAX_RULE_OUT
    assert ruled[free].sum() == int(0.1 * free.sum()), "a tenth of them may be taken for lesions"
    assert ruled[~free].mean() > 1.5 * ruled[free].mean()
    for prediction, sure in zip(predicted, ruled, strict=True):
        peak = prediction.probabilities.max()
        limit = min(0.5, RELATIVE_THRESHOLD * peak) if sure else 0.5
        assert np.array_equal(prediction.mask > 0, prediction.probabilities[0] >= limit)


def few(arrays: CaseDataset, count: int) -> CaseDataset:
    rows = np.arange(count)
    return replace(arrays, image_rows=rows, mask_rows=rows, labels=arrays.labels[:count])


def test_of_several_labels_all_must_say_the_same_to_choose_a_threshold():
    """Lesion-free by its label or by having none of them; without a label nothing follows."""
    arrays, task = made(40, multi_label=True)
    arrays.labels[:10] = [0, 1, 0]
    arrays.labels[10:20] = [1, 0, 0]
    arrays.labels[20:30] = 0
    arrays.labels[30:] = np.nan
    given = data_of(arrays, task)
    segmenter = Overconfident(1.0, 1.0)
    found, record = calibrate(segmenter, info(given), given, 1.0, 1.0)
    images = [arrays.image(row) for row in range(30)]
    predicted = Predictor(segmenter, found).predict(images)
    lesions, others = predicted[:10], predicted[10:]
    chances = [lesion_probability(p.label_probabilities, ["normal"], True) for p in lesions]
    assert record["labels"]["images"] == 30
    assert found.rule_out_threshold == pytest.approx(min(0.5, *chances), abs=1e-5)
    assert not any(is_ruled_out(found.rule_out_threshold, chance) for chance in chances)
    chances = [lesion_probability(p.label_probabilities, ["normal"], True) for p in others]
    assert found.rule_in_threshold == pytest.approx(max(0.5, *chances), abs=1e-5)
    assert not any(is_ruled_in(found.rule_in_threshold, chance) for chance in chances)


def test_too_little_validation_leaves_everything_as_it_is():
    arrays, task = made(60)
    given = data_of(arrays, task)
    little = few(arrays, MIN_IMAGES - 1)
    masks = np.where(np.arange(len(little)) < MIN_LESIONS - 1, little.mask_rows, -1)
    given = replace(given, label_validation=replace(little, mask_rows=masks))
    found, record = calibrate(Overconfident(3.0, 3.0), info(given), given, None)
    assert (found.mask_temperature, found.label_temperature) == (1, 1)
    assert "fewer than" in record["labels"]["note"]
    assert "fewer than" in record["masks"]["note"]
    nothing = replace(given, label_validation=None)
    found, record = calibrate(Overconfident(3.0, 3.0), info(given), nothing, 0.98, 0.98)
    assert (found.mask_temperature, found.label_temperature) == (1, 1)
    assert (found.rule_out_threshold, found.rule_in_threshold) == (None, None)
    assert record["masks"]["images"] == record["labels"]["images"] == 0


def test_a_classifier_without_a_mistake_determines_no_temperature():
    arrays, task = made(60)
    given = data_of(replace(arrays, labels=(arrays.images[:, 0, :3, 0]).argmax(axis=1)), task)
    found, record = calibrate(Overconfident(1.0, 1.0), info(given), given, None)
    assert found.label_temperature == 1
    assert "does not determine" in record["labels"]["note"]


def test_a_network_that_learnt_no_labels_has_no_gate_and_its_pixels_are_calibrated():
    given = data_of(*made(60))
    model = load_config("cpu", "unet").model
    found, record = calibrate(Overconfident(3.0, 3.0), info(given, model), given, 0.98, 0.98)
    assert (found.rule_out_threshold, found.rule_in_threshold, found.label_temperature) == (
        None,
        None,
        1,
    )
    assert "learned no labels" in record["labels"]["note"]
    assert found.mask_temperature == pytest.approx(3, rel=0.05)


def test_pixels_of_ruled_out_images_count_like_those_of_others():
    """So that networks with and without a classifier are calibrated on the same images."""
    arrays, task = made(60)
    given = data_of(arrays, task)
    every, _ = calibrate(Overconfident(3.0, 1.0), info(given), given, None)
    found, record = calibrate(Overconfident(3.0, 1.0), info(given), given, 0.5)
    assert found.rule_out_threshold is not None
    assert record["masks"]["images"] == 60
    assert found.mask_temperature == every.mask_temperature == pytest.approx(3, rel=0.05)

from __future__ import annotations

import json

import numpy as np
import pytest

from dxseg.data.readers.images import read_image
from dxseg.data.table.dataset import Dataset
from dxseg.inference.model_folder import load_model_folder, read_info
from dxseg.inference.predictor import Predictor
from dxseg.metrics.image_level import lesion_probability


def lesion_probabilities(run, dataset_path, split):
    """By case of a split, from the run's model as a user loads it."""
    dataset, predictor = Dataset.load(dataset_path), Predictor.from_folder(run / "model")
    cases = dataset.cases[dataset.cases["split"].eq(split)]
    images = [read_image(dataset.image_path(row)) for row in cases.itertuples()]
    return cases["label"].to_numpy(), np.array(
        [
            lesion_probability(one.label_probabilities, predictor.info.lesion_free, False)
            for one in predictor.predict(images)
        ]
    )


def test_the_gate_is_the_least_sure_lesion_of_validation(finished, disks):
    gate = read_info(finished / "model").rule_out_threshold
    labels, probabilities = lesion_probabilities(finished, disks, "validation")
    # Six lesions: 98 % of them are all six.
    assert gate == pytest.approx(min(0.5, probabilities[labels != "none"].min()), abs=1e-6)
    assert json.loads((finished / "run.json").read_text())["rule_out_threshold"] == gate


def test_a_lesion_is_ruled_in_above_the_most_suspect_lesion_free_image(finished, disks):
    rule_in = read_info(finished / "model").rule_in_threshold
    labels, probabilities = lesion_probabilities(finished, disks, "validation")
    assert rule_in == pytest.approx(max(0.5, probabilities[labels == "none"].max()), abs=1e-5)
    assert json.loads((finished / "run.json").read_text())["rule_in_threshold"] == rule_in


@pytest.mark.parametrize(
    "change",
    [
        {"method": "unet"},
        {"method": "sks-no-labels"},
        {"rule_out_sensitivity": None, "rule_in_specificity": None},
    ],
)
def test_no_threshold_without_learnt_labels_or_where_it_is_off(disks, configure, tmp_path, change):
    from dxseg.training.run import train_run

    train_run(disks, tmp_path / "run", configure(**change))
    info = load_model_folder(tmp_path / "run/model")[1]
    assert (info.rule_out_threshold, info.rule_in_threshold) == (None, None)

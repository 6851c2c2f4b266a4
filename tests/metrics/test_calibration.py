from __future__ import annotations

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import binary_calibration_error

from dxseg.metrics.calibration import CalibrationHistogram, expected_calibration_error


def test_constant_probability_errs_by_its_distance_from_the_frequency():
    target = np.arange(100) < 30
    assert expected_calibration_error(np.full(100, 0.8), target) == pytest.approx(0.5)
    assert expected_calibration_error(np.full(100, 0.3), target) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("bins", [1, 10, 15])
@pytest.mark.parametrize("power", [0.5, 1.0, 3.0])
def test_agrees_with_torchmetrics(bins, power):
    generator = np.random.default_rng(3)
    probability = generator.random(20_000)
    target = generator.random(20_000) < probability**power
    reference = binary_calibration_error(
        torch.from_numpy(probability), torch.from_numpy(target.astype(int)), n_bins=bins
    )
    ours = expected_calibration_error(probability, target, bins=bins)
    assert ours == pytest.approx(float(reference), abs=1e-9)


def test_calibrated_probabilities_have_almost_no_error():
    generator = np.random.default_rng(1)
    probability = generator.random(200_000)
    assert expected_calibration_error(probability, generator.random(200_000) < probability) < 0.01


def test_pieces_give_what_the_whole_gives():
    generator = np.random.default_rng(2)
    probability = generator.random((6, 2, 16, 16)).astype(np.float32)
    target = generator.random((6, 2, 16, 16)) > 0.7
    pieces = CalibrationHistogram()
    for one, truth in zip(probability, target, strict=True):
        pieces.update(one, truth)
    assert pieces.error() == pytest.approx(expected_calibration_error(probability, target))


def test_ends_of_the_scale_belong_to_bins():
    assert expected_calibration_error([0.0, 1.0], [False, True]) == 0
    assert expected_calibration_error([0.0, 1.0], [True, False]) == 1


def test_nothing_added_has_no_error():
    assert np.isnan(CalibrationHistogram().error())


@pytest.mark.parametrize("value", [float("nan"), -0.01, 1.01])
def test_refuses_what_is_no_probability(value):
    with pytest.raises(ValueError, match="between 0 and 1"):
        expected_calibration_error([0.5, value], [True, False])


def test_refuses_other_shapes_and_no_bins():
    with pytest.raises(ValueError, match="one shape"):
        expected_calibration_error([0.5], [[True]])
    with pytest.raises(ValueError, match="bins"):
        CalibrationHistogram(0)

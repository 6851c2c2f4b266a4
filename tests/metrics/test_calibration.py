from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchmetrics.functional.classification import binary_calibration_error

from dxseg.metrics.calibration import (
    TEMPERATURES,
    CalibrationHistogram,
    expected_calibration_error,
    fit_temperature,
    temper_labels,
    temper_sigmoid,
)


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
    assert expected_calibration_error([0.25], [True]) == 0.75, "one sample is something"


@pytest.mark.parametrize("value", [float("nan"), -0.01, 1.01])
def test_refuses_what_is_no_probability(value):
    with pytest.raises(ValueError, match=r"^probability must lie between 0 and 1, without NaN$"):
        expected_calibration_error([0.5, value], [True, False])


def test_refuses_other_shapes_and_no_bins():
    with pytest.raises(ValueError, match="one shape"):
        expected_calibration_error([0.5], [[True]])
    with pytest.raises(ValueError, match="bins"):
        CalibrationHistogram(0)


WARMTHS = st.floats(*TEMPERATURES)
CHANCES = st.lists(st.floats(0, 1), min_size=1, max_size=30)


def test_a_temperature_in_closed_form():
    """Of ten events predicted with 0.9 six happen: 0.6 is right, so logit(0.9) / T = logit(0.6)."""
    expected = np.log(9) / np.log(1.5)
    probability, target = np.full(10, 0.9), np.arange(10) < 6
    assert fit_temperature(probability, target) == pytest.approx(expected, rel=1e-3)
    rows = np.stack([1 - probability, probability], axis=1)
    assert fit_temperature(rows, target.astype(int)) == pytest.approx(expected, rel=1e-3)
    assert temper_sigmoid(probability, expected) == pytest.approx(0.6)
    tempered = temper_labels(rows, expected, multi_label=False)
    assert tempered == pytest.approx(np.tile([0.4, 0.6], (10, 1)))


@pytest.mark.parametrize(
    ("probability", "target"),
    [
        ([], []),
        ([0.9, 0.2], [True, False]),  # no mistake
        ([0.9, 0.2], [False, True]),  # nothing else
        ([1.0, 0.0], [True, False]),
        ([0.5, 0.5], [True, False]),
    ],
)
def test_what_determines_no_temperature(probability, target):
    assert fit_temperature(np.array(probability), np.array(target, dtype=bool)) is None


def test_shapes_that_do_not_fit_are_refused():
    for shape, target in (((4, 2), 3), ((4, 2), (4, 3)), ((4,), 3)):
        with pytest.raises(ValueError, match="do not fit"):
            fit_temperature(np.full(shape, 0.5), np.zeros(target))


@given(CHANCES, WARMTHS)
def test_tempering_keeps_order_side_and_range(chances, temperature):
    before = np.sort(np.array(chances))
    after = temper_sigmoid(before, temperature)
    assert ((after >= 0) & (after <= 1)).all()
    assert (np.diff(after) >= 0).all()
    clear = np.abs(before - 0.5) > 1e-9
    assert np.array_equal((after >= 0.5)[clear], (before >= 0.5)[clear])
    assert temper_sigmoid(np.array([0.0, 0.5, 1.0]), temperature).tolist() == [0, 0.5, 1]


@pytest.mark.parametrize("temperature", [0.4, 1.3, 7.0])
def test_tempering_in_single_precision_is_exact_and_keeps_to_its_side(temperature):
    from scipy.special import expit, logit

    before = np.linspace(0, 1, 100_001, dtype=np.float32)
    expected = expit(logit(before.astype(np.float64)) / temperature)
    assert temper_sigmoid(before, temperature) == pytest.approx(expected, abs=1e-6)
    # The next 1000 numbers on either side of a half.
    close = (np.float32(0.5).view(np.int32) + np.arange(-1000, 1001, dtype=np.int32)).view(
        np.float32
    )
    after = temper_sigmoid(close, temperature)
    assert np.array_equal(after >= 0.5, close >= 0.5)
    assert after.dtype == np.float32


def test_tempering_survives_what_interpolation_overshoots():
    overshot = np.array([-1e-7, 1 + 1e-6], np.float32)
    tempered = temper_sigmoid(overshot, 2.0)
    assert tempered.tolist() == [0, 1]
    assert tempered.dtype == np.float32
    assert temper_sigmoid(overshot, 1.0) is overshot, "1 changes nothing"


def test_tempering_certainty_neither_warns_nor_changes_it():
    certain = np.array([0.0, 1.0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert temper_sigmoid(certain, 0.01).tolist() == [0.0, 1.0]
        rows = temper_labels(certain[None], 2.0, multi_label=False)
    assert rows == pytest.approx(certain[None])


def test_a_temperature_of_two_takes_roots():
    """Exclusive labels: the odds between any two become their square root."""
    [row] = temper_labels(np.array([[0.1, 0.9]]), 2.0, multi_label=False)
    assert row == pytest.approx([0.25, 0.75])


def test_independent_labels_are_tempered_each_for_itself():
    chances = np.array([[0.1, 0.9], [0.9, 0.9]])
    tempered = temper_labels(chances, 2.0, multi_label=True)
    assert tempered == pytest.approx(np.array([[0.25, 0.75], [0.75, 0.75]]))

"""Patients and trainings resampled together, against closed forms and a simulation."""

from __future__ import annotations

import numpy as np
import pytest

from dxseg.metrics.statistics import bootstrap_mean, mean_by, paired_bootstrap, resampled_means


def test_one_draw_is_the_cluster_bootstrap_of_before():
    generator = np.random.default_rng(0)
    values, groups = generator.normal(size=60), np.arange(60) // 3
    folds = np.arange(60) // 30
    for weighting in ("image", "group"):
        plain = bootstrap_mean(values, groups, weighting=weighting)
        column = bootstrap_mean(values[:, None], groups, folds=folds, weighting=weighting)
        assert (column.low, column.high) == pytest.approx((plain.low, plain.high))
        assert (plain.mean, plain.draws) == (pytest.approx(column.mean), 1)


@pytest.mark.parametrize("draws", [2, 3, 5])
def test_the_variance_of_draws_is_that_of_a_mean_of_trainings(draws):
    """Patients all alike: what is left is s^2 / D, although D - 1 of D are drawn."""
    effects = np.random.default_rng(draws).normal(size=draws)
    values = np.tile(effects, (40, 1))[:, None]
    means = resampled_means(values, np.arange(40), resamples=40_000)[:, 0]
    assert means.mean() == pytest.approx(effects.mean(), abs=0.02)
    assert means.var() == pytest.approx(effects.var(ddof=1) / draws, rel=0.03)


def test_each_fold_resamples_its_own_draws():
    """Two folds of different size and number of draws: variances add up, weighted by images."""
    values = np.full((60, 3), np.nan)
    values[:20] = [0.0, 1.0, 5.0]
    values[20:, :2] = [2.0, 4.0]
    folds = np.repeat([0, 1], [20, 40])
    interval = bootstrap_mean(values, np.zeros(60), folds=folds)
    assert np.isnan(interval.low), "one group: no interval"
    assert interval.mean == pytest.approx((20 * 2 + 40 * 3) / 60)
    assert interval.draws == 2
    # Groups that all hold both folds in the same proportion, so that only draws vary.
    groups = np.concatenate([np.arange(20), np.arange(40) % 20])
    means = resampled_means(values[:, None], groups, folds=folds, resamples=40_000)[:, 0]
    first, second = np.var([0, 1, 5], ddof=1) / 3, np.var([2, 4], ddof=1) / 2
    assert means.var() == pytest.approx(first / 9 + second * 4 / 9, rel=0.03)


@pytest.mark.parametrize("weighting", ["image", "group"])
def test_intervals_cover_the_truth_where_trainings_differ(weighting):
    """Five folds, four draws; training noise is as large as that of the patients."""
    generator = np.random.default_rng(3)
    folds = np.repeat(np.arange(5), 12)
    covered = {"both": 0, "patients": 0}
    repetitions = 300
    for repetition in range(repetitions):
        trained = generator.normal(0, 0.3, (5, 4))[folds]
        values = generator.normal(0, 1, (60, 1)) + trained + generator.normal(0, 0.2, (60, 4))
        options = {"weighting": weighting, "resamples": 400, "seed": repetition}
        both = bootstrap_mean(values, np.arange(60), folds=folds, **options)
        patients = bootstrap_mean(values.mean(axis=1), np.arange(60), **options)
        covered["both"] += both.low <= 0 <= both.high
        covered["patients"] += patients.low <= 0 <= patients.high
        assert both.high - both.low > 0.9 * (patients.high - patients.low)
    assert 0.9 <= covered["both"] / repetitions <= 0.99
    assert covered["patients"] < covered["both"]


def test_methods_are_paired_by_draw():
    """What a draw of masks does to both methods alike is no difference."""
    generator = np.random.default_rng(1)
    masks = generator.normal(0, 1, (1, 3))
    reference = generator.normal(size=(50, 1)) + masks
    difference = paired_bootstrap(reference + 0.1, reference, np.arange(50))
    assert (difference.low, difference.high) == pytest.approx((0.1, 0.1))
    assert difference.draws == 3


def test_a_method_without_any_value_has_no_difference():
    """Of runs that were evaluated before a figure existed."""
    nothing = np.full(4, np.nan)
    difference = paired_bootstrap(np.ones(4), nothing, np.arange(4))
    assert np.isnan([difference.mean, difference.low, difference.p_value]).all()
    assert difference.images == 0


def test_a_case_that_lacks_a_draw_of_its_fold_is_refused():
    values = np.ones((4, 2))
    values[0, 1] = np.nan
    with pytest.raises(ValueError, match="some draws of its fold only"):
        bootstrap_mean(values, np.arange(4))
    assert bootstrap_mean(values, np.arange(4), folds=[0, 1, 1, 1]).draws == 1
    assert mean_by(values, np.arange(4), weighting="image") == 1

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from dxseg.metrics.statistics import (
    bootstrap_mean,
    holm,
    keep_shared,
    mean_by,
    paired_bootstrap,
    resampled_means,
)

P_VALUES = st.lists(st.floats(0, 1), max_size=8)


def test_means_by_hand():
    values, groups = [1.0, 0.0, 0.0, float("nan"), float("nan")], ["a", "b", "b", "b", "c"]
    assert mean_by(values, groups, weighting="image") == pytest.approx(1 / 3)
    assert mean_by(values, groups, weighting="group") == pytest.approx(0.5)
    assert np.isnan(mean_by([float("nan")], ["a"], weighting="image"))
    assert np.isnan(mean_by([], [], weighting="group"))


def test_interval_of_independent_images_is_the_normal_one():
    values = np.random.default_rng(0).normal(0.7, 0.1, 400)
    interval = bootstrap_mean(values, np.arange(400))
    error = 1.96 * values.std() / 20
    assert interval.mean == pytest.approx(values.mean())
    assert interval.low == pytest.approx(values.mean() - error, abs=0.1 * error)
    assert interval.high == pytest.approx(values.mean() + error, abs=0.1 * error)


@pytest.mark.parametrize("weighting", ["image", "group"])
def test_interval_covers_the_truth_where_images_of_a_patient_agree(weighting):
    generator = np.random.default_rng(5)
    covered = {"group": 0, "image": 0}
    repetitions = 300
    groups = np.repeat(np.arange(40), generator.integers(1, 9, 40))
    for repetition in range(repetitions):
        values = generator.normal(0, 1, 40)[groups] + generator.normal(0, 0.3, len(groups))
        for unit, clusters in (("group", groups), ("image", np.arange(len(groups)))):
            interval = bootstrap_mean(
                values, clusters, weighting=weighting, resamples=400, seed=repetition
            )
            covered[unit] += interval.low <= 0 <= interval.high
    assert 0.88 <= covered["group"] / repetitions <= 0.99
    # What resampling images instead of patients would claim:
    assert covered["image"] / repetitions < 0.85


def test_p_value_of_a_clear_and_of_no_difference():
    generator = np.random.default_rng(7)
    reference, groups = generator.random(100), np.arange(100) // 2
    better = paired_bootstrap(reference + generator.normal(0.1, 0.1, 100), reference, groups)
    assert better.low > 0
    assert better.p_value == pytest.approx(2 / 10_001)
    same = paired_bootstrap(reference, reference, groups)
    assert (same.mean, same.low, same.high, same.p_value) == (0, 0, 0, 1)


def test_p_value_follows_the_t_test_where_images_are_independent():
    generator = np.random.default_rng(11)
    reference = generator.random(150)
    values = reference + generator.normal(0.015, 0.1, 150)
    ours = paired_bootstrap(values, reference, np.arange(150)).p_value
    assert ours == pytest.approx(stats.ttest_rel(values, reference).pvalue, abs=0.02)


def test_p_value_is_uniform_enough_without_a_difference():
    generator = np.random.default_rng(13)
    rejected = sum(
        paired_bootstrap(
            generator.normal(size=60), generator.normal(size=60), np.arange(60), resamples=300
        ).p_value
        < 0.05
        for _ in range(300)
    )
    assert rejected / 300 < 0.1


@pytest.mark.parametrize("weighting", ["image", "group"])
def test_swapping_the_methods_flips_the_difference(weighting):
    generator = np.random.default_rng(17)
    first, second, groups = generator.random(50), generator.random(50), np.arange(50) % 20
    one = paired_bootstrap(first, second, groups, weighting=weighting)
    other = paired_bootstrap(second, first, groups, weighting=weighting)
    assert (one.mean, one.low, one.high) == pytest.approx((-other.mean, -other.high, -other.low))
    assert one.p_value == other.p_value


def test_the_order_of_images_and_the_size_of_chunks_change_nothing(monkeypatch):
    generator = np.random.default_rng(19)
    values, groups = generator.random(60), np.arange(60) // 3
    order = generator.permutation(60)
    interval = bootstrap_mean(values, groups)
    shuffled = bootstrap_mean(values[order], groups[order])
    monkeypatch.setattr("dxseg.metrics.two_level_bootstrap._CHUNK", 999)
    chunked = bootstrap_mean(values, groups)
    for other in (shuffled, chunked):
        assert (other.low, other.high) == pytest.approx((interval.low, interval.high))


@pytest.mark.parametrize("values", [[], [float("nan")], [0.5, 0.7]])
def test_fewer_than_two_groups_have_no_interval(values):
    interval = bootstrap_mean(values, ["one patient"] * len(values))
    assert np.isnan([interval.low, interval.high]).all()
    known = [value for value in values if not np.isnan(value)]
    assert (interval.images, interval.groups) == (len(known), min(1, len(known)))
    assert interval.mean == pytest.approx(np.mean(known) if known else np.nan, nan_ok=True)
    difference = paired_bootstrap(values, values, ["one patient"] * len(values))
    assert np.isnan(difference.p_value)


@pytest.mark.parametrize("weighting", ["image", "group"])
def test_two_patients_are_enough_and_are_drawn_as_the_coin_falls(weighting):
    """Both, or one of them twice: means 0, the middle and 1 in a quarter, a half, a quarter."""
    values, groups = [0.0, 1.0, 1.0, float("nan")], ["a", "b", "b", "c"]
    middle = {"image": 2 / 3, "group": 1 / 2}[weighting]
    for confidence, ends in ((0.4, (middle, middle)), (0.6, (0, 1))):
        interval = bootstrap_mean(values, groups, weighting=weighting, confidence=confidence)
        assert (interval.low, interval.high) == pytest.approx(ends)
        assert (interval.mean, interval.images, interval.groups) == (pytest.approx(middle), 3, 2)


def test_defaults_weigh_images_and_draw_the_same_each_time():
    generator = np.random.default_rng(29)
    groups = np.repeat(np.arange(12), generator.integers(1, 5, 12))
    values, other = generator.random((2, len(groups)))
    said = {"weighting": "image", "confidence": 0.95, "resamples": 10_000, "seed": 0}
    assert bootstrap_mean(values, groups) == bootstrap_mean(values, groups, **said)
    silent = paired_bootstrap(values, other, groups)
    assert silent == paired_bootstrap(values, other, groups, **said)
    assert vars(bootstrap_mean(values - other, groups)).items() <= vars(silent).items()
    table = np.stack([values, other], axis=1)
    del said["confidence"]
    assert (resampled_means(table, groups) == resampled_means(table, groups, **said)).all()


@pytest.mark.parametrize("confidence", [0.5, 0.95])
@pytest.mark.parametrize("weighting", ["image", "group"])
def test_several_methods_are_resampled_under_the_draws_of_their_difference(weighting, confidence):
    generator = np.random.default_rng(31)
    groups = np.repeat(np.arange(9), generator.integers(1, 5, 9))
    table = generator.random((len(groups), 3))
    table[4] = np.nan
    said = {"weighting": weighting, "resamples": 500, "seed": 5}
    draws = resampled_means(table, groups, **said)
    assert draws.shape == (500, 3)
    outside = (1 - confidence) / 2
    for method in (1, 2):
        pair = table[:, method], table[:, 0]
        difference = paired_bootstrap(*pair, groups, confidence=confidence, **said)
        ends = np.quantile(draws[:, method] - draws[:, 0], [outside, 1 - outside])
        assert ends == pytest.approx((difference.low, difference.high))
    [alone] = resampled_means(table[:, :1], groups, **said).T
    assert alone == pytest.approx(draws[:, 0])


def test_several_methods_of_two_patients_and_of_one():
    table = [[0.0, 1.0], [1.0, 1.0]]
    means = resampled_means(table, ["a", "b"], resamples=50)
    assert set(means[:, 0]) == {0, 0.5, 1}
    assert set(means[:, 1]) == {1}
    assert resampled_means(table, ["a", "a"]).shape == (0, 2)
    with pytest.raises(ValueError, match="not paired"):
        resampled_means([[0.0, np.nan], [1.0, 1.0]], ["a", "b"])


def test_yes_and_no_are_numbers():
    found, before, groups = [True, True, False], [True, False, False], ["a", "b", "c"]
    assert paired_bootstrap(found, before, groups).mean == pytest.approx(1 / 3)
    assert holm([True, False]).tolist() == [1, 0]


@pytest.mark.parametrize(
    "wrong", [{"confidence": 0}, {"confidence": 1}, {"confidence": 1.5}, {"resamples": 0}]
)
def test_bounds_of_confidence_and_resamples(wrong):
    with pytest.raises(ValueError, match="out of range"):
        bootstrap_mean([0.0, 1.0], ["a", "b"], **wrong)
    single = bootstrap_mean([0.0, 1.0], ["a", "b"], resamples=1)
    assert single.low == single.high


def test_refuses_unpaired_infinite_and_unequal_values():
    with pytest.raises(ValueError, match="not paired"):
        paired_bootstrap([1.0, float("nan")], [1.0, 1.0], ["a", "b"])
    with pytest.raises(ValueError, match="finite"):
        bootstrap_mean([1.0, float("inf")], ["a", "b"])
    with pytest.raises(ValueError, match="one length"):
        bootstrap_mean([1.0], ["a", "b"])
    with pytest.raises(ValueError, match="one length"):
        bootstrap_mean([[1.0, 2.0]], [["a", "b"]])
    with pytest.raises(ValueError, match="a value per image"):
        paired_bootstrap([1.0, 2.0], [1.0], ["a", "b"])
    with pytest.raises(ValueError, match="out of range"):
        bootstrap_mean([1.0], ["a"], confidence=95)


def test_holm_by_hand():
    # 4 x 0.005, 3 x 0.01, then 0.03 x 2 and 0.04 x 1 made monotone; order kept.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.02]) == pytest.approx([0.02])
    assert holm([0.9, 0.8]) == pytest.approx([1, 1])
    assert holm([]).shape == (0,)


@given(P_VALUES)
def test_holm_lies_between_the_raw_and_the_bonferroni_values_and_keeps_order(p_values):
    raw, adjusted = np.array(p_values), holm(p_values)
    assert (adjusted >= raw).all()
    assert (adjusted <= np.minimum(raw * len(raw), 1) + 1e-12).all()
    assert (np.diff(adjusted[np.argsort(raw, kind="stable")]) >= 0).all()


@given(P_VALUES)
@settings(max_examples=30)
def test_holm_leaves_out_what_could_not_be_compared(p_values):
    with_gap = holm([float("nan"), *p_values])
    assert np.isnan(with_gap[0])
    assert with_gap[1:] == pytest.approx(holm(p_values))


def test_holm_refuses_what_is_no_p_value():
    with pytest.raises(ValueError, match="between 0 and 1"):
        holm([0.5, 1.5])


def test_planned_comparisons_count_although_they_could_not_be_made():
    assert holm([0.01, float("nan"), 0.02], family=3)[[0, 2]] == pytest.approx([0.03, 0.04])
    assert holm([0.01, float("nan"), 0.02])[[0, 2]] == pytest.approx([0.02, 0.02])


def test_only_values_that_all_methods_have_are_kept():
    nan = float("nan")
    kept = keep_shared([[1, 2], [3, nan]], [[5, nan], [6, 7]])
    assert np.array_equal(kept, [[[1, nan], [3, nan]], [[5, nan], [6, nan]]], equal_nan=True)

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu
from sklearn.metrics import roc_auc_score

from dxseg.metrics.image_level import auroc, lesion_probability

SCORED = st.lists(
    st.tuples(st.booleans(), st.sampled_from([0.0, 0.25, 0.3, 0.5, 0.9, 1.0])), min_size=2
)


@pytest.mark.parametrize(
    ("scores", "area"),
    [([0.1, 0.2, 0.8, 0.9], 1.0), ([0.9, 0.8, 0.2, 0.1], 0.0), ([0.5] * 4, 0.5)],
)
def test_area_of_perfect_reversed_and_tied_scores(scores, area):
    assert auroc([False, False, True, True], scores) == pytest.approx(area)


@settings(deadline=None)
@given(SCORED)
def test_area_agrees_with_scikit_learn_and_with_rank_sums(scored):
    lesion, score = np.array([s[0] for s in scored]), np.array([s[1] for s in scored])
    if lesion.all() or not lesion.any():
        assert np.isnan(auroc(lesion, score))
        return
    assert auroc(lesion, score) == pytest.approx(roc_auc_score(lesion, score))
    u = mannwhitneyu(score[lesion], score[~lesion]).statistic
    assert auroc(lesion, score) == pytest.approx(u / (lesion.sum() * (~lesion).sum()))


def test_scores_that_differ_beyond_single_precision_are_distinguished():
    assert auroc([False, True], [0.5, 0.5 + 1e-12]) == 1


@pytest.mark.parametrize("score", [[0.5, 1.5], [0.5, -0.1], [0.5, float("nan")]])
def test_area_refuses_scores_that_are_no_probabilities(score):
    with pytest.raises(
        ValueError, match=r"^score must hold probabilities between 0 and 1, without NaN$"
    ):
        auroc([False, True], score)


def test_takes_read_only_columns_without_a_warning():
    score = np.array([0.2, 0.7])
    score.flags.writeable = False  # as pandas hands out its columns
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert auroc([False, True], score) == 1


@pytest.mark.parametrize(
    ("first", "second"), [([0, 1], [0.5]), ([[0, 1]], [[0.2, 0.5]]), ([[0], [1]], [0.2, 0.5])]
)
def test_refuses_lengths_that_differ_and_tables(first, second):
    with pytest.raises(ValueError, match="one length"):
        auroc(first, second)


def test_lesion_probability_of_exclusive_and_of_independent_labels():
    three = {"normal": 0.3, "implant": 0.4, "tumour": 0.3}
    free = ["normal", "implant"]
    assert lesion_probability(three, free, multi_label=False) == pytest.approx(0.3)
    assert lesion_probability(three, free, multi_label=True) == pytest.approx(0.6)
    assert np.isnan(lesion_probability(None, free, multi_label=False))
    assert np.isnan(lesion_probability(three, [], multi_label=False))
    # Rounded, the probabilities of exclusive labels may sum to more than one.
    assert lesion_probability({"a": 0.6, "b": 0.400001}, ["a", "b"], multi_label=False) == 0

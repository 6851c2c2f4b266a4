from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dxseg.config.presets import load_config
from dxseg.inference.postprocess import (
    MAX_RULE_OUT,
    choose_rule_in_threshold,
    choose_rule_out_threshold,
    is_ruled_in,
    is_ruled_out,
)

PROBABILITIES = st.lists(st.floats(0, 1), min_size=1, max_size=60)


@pytest.mark.parametrize(
    ("probabilities", "sensitivity", "rule_out_threshold"),
    [
        ([0.4, 0.1, 0.3], 1.0, 0.1),
        ([0.01, *[0.2] * 48, 0.4], 0.98, 0.2),  # one of fifty may be blanked
        ([0.01, *[0.2] * 47, 0.4], 0.98, 0.01),  # of forty-nine, none
        ([0.9, 0.99], 1.0, MAX_RULE_OUT),
        ([], 0.98, None),
    ],
)
def test_rule_out_thresholds_in_closed_form(probabilities, sensitivity, rule_out_threshold):
    assert choose_rule_out_threshold(probabilities, sensitivity) == rule_out_threshold


@given(PROBABILITIES, st.sampled_from([0.5, 0.9, 0.98, 1.0]))
def test_enough_validation_images_pass_whatever_the_classifier_says(probabilities, sensitivity):
    threshold = choose_rule_out_threshold(probabilities, sensitivity)
    passed = sum(not is_ruled_out(threshold, one) for one in probabilities)
    assert passed / len(probabilities) >= sensitivity - 1e-9
    assert threshold <= MAX_RULE_OUT


@pytest.mark.parametrize(
    ("probabilities", "specificity", "threshold"),
    [
        ([0.4, 0.7, 0.9], 1.0, 0.9),
        ([0.99, *[0.8] * 48, 0.1], 0.98, 0.8),  # one of fifty may be ruled in
        ([0.99, *[0.8] * 47, 0.1], 0.98, 0.99),  # of forty-nine, none
        ([0.1, 0.2], 1.0, MAX_RULE_OUT),
        ([], 0.98, None),
    ],
)
def test_thresholds_to_rule_in_in_closed_form(probabilities, specificity, threshold):
    assert choose_rule_in_threshold(probabilities, specificity) == threshold


@given(PROBABILITIES, st.sampled_from([0.5, 0.9, 0.98, 1.0]))
def test_few_enough_lesion_free_images_are_ruled_in(probabilities, specificity):
    threshold = choose_rule_in_threshold(probabilities, specificity)
    spared = sum(not is_ruled_in(threshold, one) for one in probabilities)
    assert spared / len(probabilities) >= specificity - 1e-9
    assert threshold >= MAX_RULE_OUT


@given(PROBABILITIES, PROBABILITIES, st.floats(0.5, 1), st.floats(0.5, 1), st.floats(0, 1))
def test_no_image_is_ruled_in_and_closed_at_once(lesions, free, sensitivity, specificity, chance):
    gate, rule_in = (
        choose_rule_out_threshold(lesions, sensitivity),
        choose_rule_in_threshold(free, specificity),
    )
    assert not (is_ruled_out(gate, chance) and is_ruled_in(rule_in, chance))


def test_nothing_is_ruled_in_without_a_threshold_or_without_a_label_head():
    assert not is_ruled_in(None, 1.0)
    assert not is_ruled_in(0.5, float("nan"))


def test_nothing_closes_without_a_gate_or_without_a_label_head():
    assert not is_ruled_out(None, 0.0)
    assert not is_ruled_out(0.5, float("nan"))


def dim_square() -> np.ndarray:
    """Bright enough for a mask, too dim for the label."""
    image = np.full((32, 32, 1), 10, np.uint8)
    image[4:12, 4:12] = 130
    return image


@pytest.mark.parametrize("multi_label", [False, True])
def test_a_closed_gate_empties_the_mask_and_bounds_the_probabilities(make_predictor, multi_label):
    settings = {"lesion_free": ("normal",), "multi_label": multi_label}
    [shown] = make_predictor(**settings).predict([dim_square()])
    lesion = 1 - shown.label_probabilities["normal"]
    assert shown.mask.any()
    [passed] = make_predictor(**settings, rule_out_threshold=lesion - 0.01).predict([dim_square()])
    assert np.array_equal(passed.mask, shown.mask)
    assert np.array_equal(passed.probabilities, shown.probabilities)
    [blanked] = make_predictor(**settings, rule_out_threshold=lesion + 0.01).predict([dim_square()])
    assert not blanked.mask.any()
    assert blanked.probabilities.max() == pytest.approx(min(lesion, shown.probabilities.max()))
    assert blanked.label_probabilities == shown.label_probabilities


def test_a_lesion_that_is_ruled_in_is_found_as_a_known_one_is(make_predictor):
    dim = np.full((32, 32, 1), 110, np.uint8)
    settings = {"lesion_free": ("normal",)}
    plain, known = make_predictor(**settings).predict([dim] * 2, [None, "bright"])
    lesion = 1 - plain.label_probabilities["normal"]
    assert not plain.mask.any()
    assert known.mask.any()
    [ruled_in] = make_predictor(**settings, rule_in_threshold=lesion - 0.01).predict([dim])
    assert np.array_equal(ruled_in.mask, known.mask)
    assert np.array_equal(ruled_in.probabilities, plain.probabilities)
    [unsure] = make_predictor(**settings, rule_in_threshold=lesion + 0.01).predict([dim])
    assert not unsure.mask.any()


def test_what_is_known_wins_over_a_rule(make_predictor):
    predictor = make_predictor(lesion_free=("normal",), rule_in_threshold=0.0)
    [empty] = predictor.predict([dim_square()], ["normal"])
    assert not empty.mask.any()


def test_a_branch_that_never_saw_a_label_names_none_and_gates_nothing(make_predictor):
    model = load_config("cpu", "sks-no-labels").model
    predictor = make_predictor(lesion_free=("normal",), rule_out_threshold=1.0, model=model)
    [prediction] = predictor.predict([dim_square()])
    assert prediction.label_probabilities is None
    assert prediction.mask.any()

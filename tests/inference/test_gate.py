from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dxseg.config import load_config
from dxseg.inference.gate import EVEN, choose_gate, closes

PROBABILITIES = st.lists(st.floats(0, 1), min_size=1, max_size=60)


@pytest.mark.parametrize(
    ("probabilities", "sensitivity", "gate"),
    [
        ([0.4, 0.1, 0.3], 1.0, 0.1),
        ([0.01, *[0.2] * 48, 0.4], 0.98, 0.2),  # one of fifty may be blanked
        ([0.01, *[0.2] * 47, 0.4], 0.98, 0.01),  # of forty-nine, none
        ([0.9, 0.99], 1.0, EVEN),
        ([], 0.98, None),
    ],
)
def test_gates_in_closed_form(probabilities, sensitivity, gate):
    assert choose_gate(probabilities, sensitivity) == gate


@given(PROBABILITIES, st.sampled_from([0.5, 0.9, 0.98, 1.0]))
def test_enough_validation_images_pass_whatever_the_classifier_says(probabilities, sensitivity):
    gate = choose_gate(probabilities, sensitivity)
    passed = sum(not closes(gate, one) for one in probabilities)
    assert passed / len(probabilities) >= sensitivity - 1e-9
    assert gate <= EVEN


def test_nothing_closes_without_a_gate_or_without_a_label_head():
    assert not closes(None, 0.0)
    assert not closes(0.5, float("nan"))


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
    [passed] = make_predictor(**settings, gate=lesion - 0.01).predict([dim_square()])
    assert np.array_equal(passed.mask, shown.mask)
    assert np.array_equal(passed.probabilities, shown.probabilities)
    [blanked] = make_predictor(**settings, gate=lesion + 0.01).predict([dim_square()])
    assert not blanked.mask.any()
    assert blanked.probabilities.max() == pytest.approx(min(lesion, shown.probabilities.max()))
    assert blanked.label_probabilities == shown.label_probabilities


def test_a_branch_that_never_saw_a_label_names_none_and_gates_nothing(make_predictor):
    model = load_config("cpu", "sks-no-labels").model
    predictor = make_predictor(lesion_free=("normal",), gate=1.0, model=model)
    [prediction] = predictor.predict([dim_square()])
    assert prediction.label_probabilities is None
    assert prediction.mask.any()

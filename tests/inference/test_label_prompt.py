"""A known diagnosis: what the network is told, and the rules that follow it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from dxseg.config.presets import load_config
from dxseg.errors import UsageError
from dxseg.inference.label_prompt import labels_imply_lesion
from dxseg.inference.postprocess import MIN_THRESHOLD, RELATIVE_THRESHOLD, apply_thresholds, to_mask

LABELS = ("normal", "benign", "malignant")
PROBABILITIES = arrays.arrays(
    np.float32, (2, 5, 6), elements=st.floats(0, 1, width=32, allow_subnormal=False)
)


def square(value: int) -> np.ndarray:
    """At 250 a mask and a lesion for the label head, at 120 neither."""
    image = np.full((32, 32, 1), 10, np.uint8)
    image[4:12, 4:12] = value
    return image


@pytest.fixture
def predictor(make_predictor):
    return make_predictor(labels=LABELS, lesion_free=("normal",))


def test_a_known_lesion_free_image_has_an_empty_mask_and_no_probability(predictor):
    [seen] = predictor.predict([square(250)])
    [ruled] = predictor.predict([square(250)], ["normal"])
    assert seen.mask.any()
    assert not ruled.mask.any()
    assert not ruled.probabilities.any()
    assert ruled.label_probabilities == seen.label_probabilities, "the network's own opinion stays"
    assert (seen.label_prompt, ruled.label_prompt) == ("", "normal")


def test_without_a_lesion_organs_may_have_a_mask(predictor):
    organs = {"lesion_free": [], "organs_only": ["normal"]}
    info = predictor.info.model_copy(update=organs)
    assert labels_imply_lesion(("normal",), predictor.info) is False
    assert labels_imply_lesion(("normal",), info) is None
    assert labels_imply_lesion(("benign",), info) is True


def test_a_known_lesion_opens_the_gate(make_predictor):
    shut = make_predictor(labels=LABELS, lesion_free=("normal",), rule_out_threshold=1.0)
    unknown, known = shut.predict([square(250)] * 2, [None, "benign"])
    assert not unknown.mask.any()
    assert known.mask.sum() == 64
    assert known.probabilities.max() > 0.9


def test_a_known_lesion_is_found_below_the_threshold(predictor):
    unknown, known = predictor.predict([square(120)] * 2, [None, "malignant"])
    assert not unknown.mask.any()
    assert (known.mask > 0).tolist() == (square(120)[:, :, 0] > 100).tolist()
    assert np.array_equal(known.probabilities, unknown.probabilities), "no probability is invented"


def test_a_known_lesion_with_a_sharp_edge_keeps_its_mask(predictor):
    unknown, known = predictor.predict([square(250)] * 2, [None, "malignant"])
    assert np.array_equal(known.mask, unknown.mask)


@given(PROBABILITIES, st.floats(0.05, 0.95))
def test_what_a_known_lesion_does_to_a_mask(probabilities, threshold):
    plain = to_mask(probabilities, threshold)
    kept, mask = apply_thresholds(
        probabilities, threshold=threshold, known_lesion=True, rule_out_threshold=1.0
    )
    assert np.array_equal(kept, probabilities)
    peak = float(probabilities.max())
    limit = min(threshold, RELATIVE_THRESHOLD * peak) if peak else threshold
    assert np.array_equal(mask > 0, probabilities.max(axis=0) >= limit)
    assert mask.any() == (peak > 0), "always found, unless the network sees nothing at all"
    assert np.array_equal(mask[plain > 0], plain[plain > 0]), "nothing is lost"


@given(PROBABILITIES, st.floats(0.06, 0.95))
def test_a_lesion_that_is_only_believed_is_found_down_to_a_floor(probabilities, threshold):
    chances = {"rule_in_threshold": 0.5, "lesion_probability": 0.9}
    kept, mask = apply_thresholds(probabilities, threshold=threshold, **chances)
    _, known = apply_thresholds(probabilities, threshold=threshold, known_lesion=True)
    highest = probabilities.max(axis=0)
    assert np.array_equal(kept, probabilities)
    assert np.array_equal(mask > 0, (known > 0) & (highest >= MIN_THRESHOLD))


def test_a_classifier_that_errs_does_not_mark_what_the_network_sees_as_next_to_nothing():
    faint = np.full((1, 4, 4), 0.01, np.float32)
    faint[0, 0, 0] = 0.03
    chances = {"threshold": 0.5, "rule_in_threshold": 0.5, "lesion_probability": 0.99}
    assert apply_thresholds(faint, known_lesion=True, **chances)[1].all()
    assert not apply_thresholds(faint, **chances)[1].any()


@pytest.mark.parametrize(("known", "lowest"), [(True, 0.0), (None, MIN_THRESHOLD)])
@given(PROBABILITIES, st.floats(0.06, 0.95))
def test_a_lesion_is_found_beside_organs_which_keep_their_threshold(
    known, lowest, probabilities, threshold
):
    """Class 1 is the organ, class 2 the lesion."""
    chances = {"rule_in_threshold": 0.5, "lesion_probability": 0.9, "known_lesion": known}
    _, mask = apply_thresholds(probabilities, threshold=threshold, lesion_values=[2], **chances)
    organ, lesion = probabilities
    peak = float(lesion.max())
    limit = min(threshold, max(RELATIVE_THRESHOLD * peak, lowest)) if peak else threshold
    assert np.array_equal(mask == 2, lesion >= limit)
    assert np.array_equal(mask == 1, (organ >= threshold) & (lesion < limit))


@given(PROBABILITIES)
def test_what_lesion_free_does_to_a_mask(probabilities):
    kept, mask = apply_thresholds(probabilities, threshold=0.5, known_lesion=False)
    assert not kept.any()
    assert not mask.any()


def test_the_network_is_told_positions_of_known_labels(make_predictor):
    predictor = make_predictor(labels=LABELS, lesion_free=("normal",), batch_size=3)
    known = ["malignant", None, "normal", "", "benign"]
    predictor.predict([square(250)] * 5, known)
    first, second = make_predictor.networks[-1].prompts
    assert first.tolist() == [2, -1, 0]
    assert first.dtype == torch.int64
    assert second.tolist() == [-1, 1]


def test_nothing_known_is_nothing_told(make_predictor):
    predictor = make_predictor(labels=LABELS)
    predictor.predict([square(250)] * 2, [None, ""])
    predictor.predict([square(250)])
    assert make_predictor.networks[-1].prompts == [None, None]


def test_several_labels_an_image_are_told_together(make_predictor):
    predictor = make_predictor(labels=LABELS, lesion_free=("normal",), multi_label=True)
    one, other = predictor.predict([square(250)] * 2, ["malignant; benign", None])
    [prompt] = make_predictor.networks[-1].prompts
    assert prompt[0].tolist() == [0, 1, 1]
    assert prompt[1].isnan().all()
    assert one.label_prompt == "benign;malignant", "in the model's order"
    assert other.label_prompt == ""
    [empty] = predictor.predict([square(250)], ["normal"])
    assert not empty.mask.any()


@pytest.mark.parametrize("method", ["unet", "sks-no-labels"])
def test_rules_hold_for_networks_that_learnt_no_labels(make_predictor, method):
    model = load_config("cpu", method).model
    predictor = make_predictor(labels=LABELS, lesion_free=("normal",), model=model)
    empty, found = predictor.predict([square(250), square(120)], ["normal", "benign"])
    assert not empty.mask.any()
    assert found.mask.any()
    assert make_predictor.networks[-1].prompts == [None], "what it never learnt it is not told"


def test_the_stream_takes_labels_by_name(make_predictor, tmp_path, write_image):
    path = write_image(tmp_path / "a.png", square(250))
    predictor = make_predictor(labels=LABELS, lesion_free=("normal",), batch_size=2)
    items = [(f"{index}", path) for index in range(5)]
    results = dict(predictor.stream(items, labels={"1": "normal", "4": "normal", "9": "benign"}))
    assert [result.mask.any() for result in results.values()] == [True, False, True, True, False]
    assert [result.label_prompt for result in results.values()] == ["", "normal", "", "", "normal"]


@pytest.mark.parametrize(
    ("settings", "text", "expected"),
    [
        ({"labels": LABELS}, "cancer", "'cancer' is not one of .*: normal, benign, malignant$"),
        ({"labels": LABELS}, "benign;malignant", "'benign;malignant' is not one"),
        ({"labels": LABELS, "multi_label": True}, "benign;", "'' is not one .* several with ';'"),
        ({"labels": ()}, "benign", "has no labels"),
    ],
)
def test_a_label_that_the_model_does_not_have_is_refused(make_predictor, settings, text, expected):
    predictor = make_predictor(**settings)
    with pytest.raises(UsageError, match=expected):
        predictor.predict([square(250)], [text])
    with pytest.raises(UsageError, match=expected):
        next(predictor.stream([], labels={"a": text}))


def test_every_image_needs_its_label_or_none(predictor):
    with pytest.raises(UsageError, match="labels has 1 entries for 2 images"):
        predictor.predict([square(250)] * 2, ["benign"])

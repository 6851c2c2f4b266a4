from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dxseg.reports.verdict import Difference, Evidence, headline, sentences

DICE = Difference("unet", "Dice", "higher", 0.04, 0.01, 0.07)
AREA = Difference("unet", "False-positive area", "lower", 0.3, 0.1, 0.5)
FOUND = Difference("unet", "Lesions found", "higher", 0.01, -0.02, 0.03)
ENOUGH = Evidence(35, 10, 60, 20, 45, 3, (DICE, AREA, FOUND))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, "Enough tests and trainings"),
        ({"seeds": 2}, "A first result"),
        ({"differences": ()}, "No control"),
        ({"lesion_groups": 29, "seeds": 1}, "Too few test lesions"),
        ({"lesion_images": 0, "lesion_groups": 0}, "No test image has a lesion"),
    ],
)
def test_the_weakest_point_is_the_headline(change: dict[str, object], expected: str) -> None:
    assert headline(replace(ENOUGH, **change)).startswith(expected)


def test_every_figure_is_called_better_worse_or_neither() -> None:
    text = sentences(ENOUGH)[-1]
    assert text == (
        "Against unet. Better: Dice. Worse: False-positive area. No difference shown: Lesions "
        "found."
    )


def test_each_other_method_has_its_sentence_and_a_lonely_run_the_remedy() -> None:
    other = replace(DICE, method="manet")
    told = sentences(replace(ENOUGH, differences=(DICE, other)))
    assert [text.split(".")[0] for text in told[-2:]] == ["Against unet", "Against manet"]
    assert told[-1] == "Against manet. Better: Dice. Worse: none. No difference shown: none."
    assert "--with" in sentences(replace(ENOUGH, differences=()))[-1]


def test_numbers_are_told_with_what_they_lack() -> None:
    told = sentences(replace(ENOUGH, train_masks=1, seeds=1, lesion_images=5, lesion_groups=4))
    assert told[0] == "Trained with 1 mask. 10 more masks for choosing thresholds."
    assert "5 images with a lesion, of 4 patients or groups, and on 20 without" in told[1]
    assert "At least 30" in told[1]
    assert told[2].startswith("1 training: ")
    assert len(sentences(replace(ENOUGH, train_masks=None))) == len(told) - 1


@given(low=st.floats(-1, 1), width=st.floats(0, 1), better=st.sampled_from(["higher", "lower"]))
def test_words_follow_from_the_interval(low: float, width: float, better: str) -> None:
    one = Difference("unet", "Dice", better, low + width / 2, low, low + width)
    mirrored = Difference("unet", "Dice", better, -one.value, -one.high, -one.low)
    opposite = {"better": "worse", "worse": "better"}
    assert mirrored.words == opposite.get(one.words, one.words)
    assert (one.words == "no difference shown") == (one.low <= 0 <= one.high)
    if one.low > 0:
        assert one.words == ("better" if better == "higher" else "worse")

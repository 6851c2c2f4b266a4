"""Dice with the diagnosis known and at 10% false positives, by hand on small numbers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.special import logit

from dxseg.data.table.dataset import Dataset, DatasetSpec
from dxseg.evaluation.cases import EQUAL_RULES_COLUMNS, EvaluatedCase, EvaluationProtocol
from dxseg.evaluation.equal_rules import validation_scores
from dxseg.evaluation.evaluate import evaluate_cases
from dxseg.evaluation.summary import point_estimates, read_per_image
from dxseg.inference.postprocess import apply_thresholds, choose_rule_in_threshold
from dxseg.metrics.image_level import decision_score, lowest_threshold

PROTOCOL = EvaluationProtocol(lesion_free_labels=["normal"])


@dataclass(frozen=True)
class Predicted:
    mask: np.ndarray
    probabilities: np.ndarray
    network_probabilities: np.ndarray
    label_probabilities: dict[str, float] | None = None


def predicted(row: list[float], lesion: float | None, rule_out: float | None = None) -> Predicted:
    """An image of one row of pixels, as inference decides about it."""
    network = np.array(row, np.float32)[None, None]
    labels = None if lesion is None else {"normal": 1 - lesion, "benign": lesion}
    probabilities, mask = apply_thresholds(
        network,
        threshold=0.5,
        rule_out_threshold=rule_out,
        lesion_probability=float("nan") if lesion is None else lesion,
    )
    return Predicted(mask, probabilities, network, labels)


def case(name: str, truth: list[int], found: Predicted) -> EvaluatedCase:
    return EvaluatedCase(name, name, None, "", np.array([truth], np.uint8), found)


def test_the_score_is_the_product_of_both_odds():
    assert decision_score(0.8, float("nan")) == pytest.approx(logit(0.8))
    assert decision_score(0.8, 0.25) == pytest.approx(np.log(4 / 3))
    assert decision_score(1.0, 0.0) == pytest.approx(0, abs=1e-6), "neither end is infinite"
    assert decision_score(0.5, 0.5) == 0


@pytest.mark.parametrize(
    ("count", "place"), [(1, 0), (9, 0), (10, 1), (19, 1), (20, 2), (30, 3), (100, 10)]
)
def test_at_most_a_tenth_of_lesion_free_images_exceeds_the_threshold(count, place):
    scores = np.random.default_rng(count).permutation(count).astype(float).tolist()
    threshold = lowest_threshold(scores, 0.1)
    assert threshold == sorted(scores, reverse=True)[place]
    assert sum(score > threshold for score in scores) == place <= 0.1 * count
    assert lowest_threshold([], 0.1) is None


def test_rule_in_is_chosen_by_the_same_function():
    chances = np.random.default_rng(0).uniform(0.5, 1, 40).tolist()
    assert choose_rule_in_threshold(chances, 0.95) == lowest_threshold(chances, 1 - 0.95)


def test_three_kinds_of_dice_by_hand():
    """The classifier rules the second lesion out; known, or marked by its score, it is found."""
    lesion = [1, 1, 0, 0]
    cases = [
        case("sure", lesion, predicted([0.9, 0.9, 0.1, 0.1], 0.9, rule_out=0.3)),
        # Ruled out, although its pixels are as sure: odds of 9 times 1/4.
        case("ruled out", lesion, predicted([0.9, 0.9, 0.1, 0.1], 0.2, rule_out=0.3)),
        # Nothing reaches 0.5; 0.3 of the peak is 0.12: three pixels, two of them right.
        case("faint", lesion, predicted([0.4, 0.2, 0.2, 0.1], 0.5, rule_out=0.3)),
        case("free", [0] * 4, predicted([0.9, 0.1, 0.1, 0.1], 0.9, rule_out=0.3)),
        case("quiet", [0] * 4, predicted([0.2, 0.1, 0.1, 0.1], 0.2, rule_out=0.3)),
    ]
    limit = float(np.log(2))  # odds of 2
    protocol = EvaluationProtocol(lesion_free_labels=["normal"], decision_threshold=limit)
    evaluation = evaluate_cases(cases, protocol=protocol, resamples=50)
    table = evaluation.per_image.set_index("case_id")
    assert table["dice"].tolist() == pytest.approx([1, 0, 0, 0, 1])
    known = [1, 1, 2 * 2 / (3 + 2)]
    assert table["dice_known"].tolist()[:3] == pytest.approx(known)
    odds = np.exp(table["decision_score"])
    assert odds.tolist() == pytest.approx([81, 9 / 4, 2 / 3, 81, 1 / 16], rel=1e-5)
    # The faint lesion is not marked; a lesion-free image is.
    assert table["dice_fp10"].tolist()[:3] == pytest.approx([1, 1, 0])
    assert table["false_positive_fp10"].tolist()[3:] == [1, 0]
    assert table[["dice_known", "dice_fp10"]].iloc[3:].isna().all(axis=None)
    summary = evaluation.summary
    assert summary["dice_lesion"] == pytest.approx(1 / 3)
    assert summary["dice_lesion_known"] == pytest.approx(np.mean(known))
    assert summary["dice_lesion_fp10"] == pytest.approx(2 / 3)
    assert summary["false_positive_rate_fp10"] == 0.5
    assert summary["dice_lesion_known_ci"][0] <= summary["dice_lesion_known"]


def test_known_dice_is_that_of_the_label_prompt_rule_whatever_the_classifier_says():
    generator = np.random.default_rng(2)
    for lesion in (None, 0.01, 0.99):
        row = generator.uniform(0, 1, 20).tolist()
        [score] = evaluate_cases(
            [case("a", [1] * 5 + [0] * 15, predicted(row, lesion, rule_out=0.3))],
            protocol=PROTOCOL,
            resamples=2,
        ).per_image["dice_known"]
        network = np.array(row, np.float32)[None, None]
        _, mask = apply_thresholds(network, threshold=0.5, known_lesion=True)
        hit = mask[0, :5].astype(bool).sum()
        assert score == pytest.approx(2 * hit / (5 + (mask > 0).sum()))


def test_without_lesion_free_validation_images_the_figure_is_undefined():
    lesion = case("a", [1, 0], predicted([0.9, 0.1], None))
    summary = evaluate_cases([lesion], protocol=PROTOCOL, resamples=2).summary
    assert summary["dice_lesion_known"] == 1
    assert summary["dice_lesion_fp10"] is None
    assert summary["false_positive_rate_fp10"] is None


def test_several_classes_are_averaged_as_in_dice():
    network = np.array([[[0.9, 0.1, 0.1, 0.0]], [[0.1, 0.1, 0.8, 0.0]]], np.float32)
    mask = apply_thresholds(network, threshold=0.5)[1]
    found = Predicted(mask, network, network)
    protocol = EvaluationProtocol(mask_classes=["one", "two"])
    row = evaluate_cases([case("a", [1, 1, 2, 0], found)], protocol=protocol, resamples=2)
    assert row.per_image["dice_known"][0] == pytest.approx((2 / 3 + 1) / 2)
    assert row.per_image["dice_known"][0] == row.per_image["dice"][0]


def test_tables_of_earlier_versions_are_read_with_gaps(tmp_path: Path):
    lesion = case("a", [1, 0], predicted([0.9, 0.1], None))
    evaluate_cases([lesion], resamples=2).write(tmp_path)
    path = tmp_path / "per_image.csv"
    old = pd.read_csv(path).drop(columns=list(EQUAL_RULES_COLUMNS))
    old.to_csv(path, index=False)
    table = read_per_image(path)
    assert table[list(EQUAL_RULES_COLUMNS)].isna().all(axis=None)
    figures = point_estimates(table, "image")
    assert figures["dice_lesion"] == 1
    assert np.isnan(figures["dice_lesion_fp10"])


class ByBrightness:
    """A predictor of images of one gray value: its probability is the value."""

    info = SimpleNamespace(joins_slices=False)

    def stream(self, items, **_options):
        for name, source in items:
            value = float(np.asarray(Image.open(source.image)).max()) / 255
            yield name, predicted([value], None)


@pytest.mark.parametrize("meaning", ["lesion_free", "organs_only"])
def test_the_threshold_comes_from_lesion_free_validation_images_only(tmp_path: Path, meaning: str):
    """Of validation: lesion-free labels and usable empty masks; nothing of the test images."""
    cases = [  # label, true mask, use_mask, split
        ("normal", "", False, "validation", 10),
        ("normal", "", False, "validation", 20),
        ("", "empty", True, "validation", 30),
        ("", "empty", False, "validation", 40),
        ("", "full", True, "validation", 50),
        ("benign", "full", True, "validation", 60),
        ("normal", "", False, "test", 70),
        ("benign", "full", True, "test", 80),
        ("normal", "", False, "train", 90),
    ]
    (tmp_path / "masks").mkdir()
    for name, value in (("empty", 0), ("full", 255)):
        Image.fromarray(np.full((1, 1), value, np.uint8)).save(tmp_path / f"masks/{name}.png")
    rows = []
    for number, (label, mask, _, _, value) in enumerate(cases):
        Image.fromarray(np.full((1, 1), value, np.uint8)).save(tmp_path / f"{number}.png")
        rows.append((str(number), f"{number}.png", mask and f"masks/{mask}.png", label))
    table = pd.DataFrame(rows, columns=["case_id", "image", "mask", "label"])
    spec = DatasetSpec(name="d", labels=["normal", "benign"], **{meaning: ["normal"]})
    data = Dataset.create(tmp_path, spec, table)
    splits = pd.DataFrame(
        {
            "case_id": table["case_id"],
            "group": range(len(cases)),
            "split": [one[3] for one in cases],
            "fold": 0,
            "use_mask": [one[2] for one in cases],
        }
    )
    scores = validation_scores(ByBrightness(), data, splits, PROTOCOL)  # type: ignore[arg-type]
    assert scores == pytest.approx(logit(np.array([10, 20, 30]) / 255).tolist(), rel=1e-4)
    elsewhere = splits.assign(split="test")
    assert validation_scores(ByBrightness(), data, elsewhere, PROTOCOL) == []  # type: ignore[arg-type]

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pytest

from dxseg.errors import DxsegError
from dxseg.evaluation import evaluate as evaluate_module
from dxseg.evaluation.cases import COLUMNS, EQUAL_RULES_COLUMNS, EvaluatedCase, EvaluationProtocol
from dxseg.evaluation.evaluate import evaluate_cases
from dxseg.evaluation.summary import read_per_image
from dxseg.metrics.calibration import expected_calibration_error

SIZE = (40, 50)


@dataclass(frozen=True)
class Predicted:
    mask: np.ndarray
    probabilities: np.ndarray
    label_probabilities: dict[str, float] | None = None

    @property
    def network_probabilities(self) -> np.ndarray:
        return self.probabilities


def square(top: int, left: int, side: int = 10, value: int = 1) -> np.ndarray:
    mask = np.zeros(SIZE, dtype=np.uint8)
    mask[top : top + side, left : left + side] = value
    return mask


EMPTY = np.zeros(SIZE, dtype=np.uint8)
LESION = square(5, 5)


def predict(mask: np.ndarray, classes: int = 1, normal: float | None = None) -> Predicted:
    maps = [np.where(mask == value, 0.9, 0.1) for value in range(1, classes + 1)]
    labels = None if normal is None else {"normal": normal, "benign": 1 - normal}
    return Predicted(mask, np.stack(maps).astype(np.float32), labels)


def case(name: str, truth, found: np.ndarray, group: str | None = None, **more) -> EvaluatedCase:
    made = EvaluatedCase(name, group or name, None, "", truth, predict(found))
    return replace(made, **more)


FOUR_CELLS = [
    case("found", LESION, square(5, 10)),
    case("missed", LESION, EMPTY),
    case("spurious", EMPTY, LESION),
    case("nothing", EMPTY, EMPTY),
]


def test_the_four_empty_mask_cells_reach_the_right_means():
    evaluation = evaluate_cases(FOUR_CELLS, resamples=200)
    rows = evaluation.per_image.set_index("case_id")
    assert rows["dice"].to_dict() == {"found": 0.5, "missed": 0, "spurious": 0, "nothing": 1}
    assert rows.loc["missed", "hd95"] == pytest.approx(np.hypot(*SIZE))
    assert rows["false_positive"].tolist() == [False, False, True, False]
    summary = evaluation.summary
    assert summary["dice_lesion"] == pytest.approx(0.25)
    assert summary["dice_all"] == pytest.approx(1.5 / 4)
    assert summary["hd95_lesion"] == pytest.approx((5 + np.hypot(*SIZE)) / 2)
    assert summary["nsd_lesion"] == pytest.approx(rows.loc["found", "nsd"] / 2)
    assert (summary["sensitivity"], summary["specificity"]) == (0.5, 0.5)
    assert summary["false_positive_rate"] == 0.5
    assert summary["false_positive_area"] == 50
    assert summary["false_positive_area_fraction"] == pytest.approx(50 / 2000)
    assert (summary["lesion_sensitivity"], summary["lesion_precision"]) == (0.5, 1)
    assert summary["lesion_f1"] == 0.5
    assert summary["auroc_mask"] == 0.5
    assert summary["auroc_label"] is None
    assert summary["counts"] | {} == {
        "images": 4,
        "groups": 4,
        "lesion_images": 2,
        "lesion_free_images": 2,
        "images_without_mask": 0,
        "missed_lesion_images": 1,
        "lesions_true": 2,
        "lesions_predicted": 2,
        "lesions_matched": 1,
        "lesion_labels_with_empty_mask": 0,
    }


def test_pixel_calibration_pools_all_pixels():
    summary = evaluate_cases(FOUR_CELLS, resamples=20).summary
    probabilities = np.stack([one.prediction.probabilities[0] for one in FOUR_CELLS])
    truths = np.stack([one.truth for one in FOUR_CELLS])
    assert summary["ece_pixel"] == pytest.approx(expected_calibration_error(probabilities, truths))


def test_the_label_head_is_scored_by_its_lesion_probability():
    cases = [
        case("a", LESION, LESION, prediction=predict(LESION, normal=0.1)),
        case("b", EMPTY, EMPTY, prediction=predict(EMPTY, normal=0.8)),
        case("c", EMPTY, EMPTY, prediction=predict(EMPTY, normal=0.05)),
    ]
    protocol = EvaluationProtocol(lesion_free_labels=["normal"])
    evaluation = evaluate_cases(cases, protocol=protocol, resamples=20)
    assert evaluation.per_image["lesion_probability"].tolist() == pytest.approx([0.9, 0.2, 0.95])
    assert evaluation.summary["auroc_label"] == 0.5
    assert evaluation.summary["ece_label"] == pytest.approx((0.1 - 0.05 + 0.2 + 0.95) / 3, abs=0.06)


def test_an_image_with_organs_only_and_no_mask_counts_as_lesion_free():
    organ = square(25, 25)
    cases = [
        case("lesion", square(5, 5, value=2), square(5, 5, value=2), lesion_free=False),
        case("masked", organ, organ, lesion_free=False, organs_only=True),
        case("quiet", None, organ, lesion_free=False, organs_only=True),
        case("marked", None, square(5, 5, value=2), lesion_free=False, organs_only=True),
    ]
    cases = [
        replace(one, prediction=predict(one.prediction.mask, classes=2, normal=normal))
        for one, normal in zip(cases, [0.1, 0.9, 0.8, 0.6], strict=True)
    ]
    protocol = EvaluationProtocol(
        ["liver", "tumor"], lesion_free_labels=["normal"], lesion_classes=["tumor"]
    )
    summary = evaluate_cases(cases, protocol=protocol, resamples=20).summary
    assert (summary["sensitivity"], summary["specificity"]) == (1, pytest.approx(2 / 3))
    assert summary["auroc_label"] == 1
    assert summary["counts"]["lesion_free_images"] == 3
    assert summary["counts"]["lesion_labels_with_empty_mask"] == 0
    contradiction = [replace(cases[1], organs_only=False)]
    counts = evaluate_cases(contradiction, protocol=protocol, resamples=20).summary["counts"]
    assert counts["lesion_labels_with_empty_mask"] == 1, "a liver is no lesion"


def test_means_by_patient_weigh_patients_alike():
    cases = [
        case("1", LESION, LESION, "p"),
        case("2", LESION, LESION, "p"),
        case("3", LESION, LESION, "p"),
        case("4", LESION, EMPTY, "q"),
    ]
    by_image = evaluate_cases(cases, resamples=50)
    by_patient = evaluate_cases(cases, average_by="patient", resamples=50)
    assert by_image.summary["dice_lesion"] == 0.75
    assert by_patient.summary["dice_lesion"] == 0.5
    assert by_patient.summary["averaged_by"] == "patient"
    patients = by_image.per_patient.set_index("group")
    assert patients["dice_lesion"].to_dict() == {"p": 1, "q": 0}
    assert patients["images"].to_dict() == {"p": 3, "q": 1}
    low, high = by_patient.summary["dice_lesion_ci"]
    assert (low, high) == (0, 1)


def test_spacing_turns_distances_and_areas_into_millimeters():
    spaced = [replace(one, spacing=(2.0, 0.5)) for one in FOUR_CELLS]
    evaluation = evaluate_cases(spaced, resamples=20)
    rows = evaluation.per_image.set_index("case_id")
    assert rows.loc["found", "hd95"] == pytest.approx(5 * 0.5)
    assert rows.loc["found", "true_area"] == 100
    assert evaluation.summary["units"]["distance"] == "mm"
    assert evaluate_cases(FOUR_CELLS, resamples=20).summary["units"]["distance"] == "px"
    with pytest.raises(DxsegError, match="some cases have a spacing and some have none"):
        evaluate_cases([spaced[0], FOUR_CELLS[1]])


def test_absent_classes_do_not_flatter_the_mean_over_classes():
    protocol = EvaluationProtocol(mask_classes=["cyst", "tumour"])
    truth = square(5, 5, value=1)
    swapped = square(5, 5, value=2)
    cases = [
        EvaluatedCase("right", "a", None, "", truth, predict(truth, 2)),
        EvaluatedCase("other class", "b", None, "", truth, predict(swapped, 2)),
        EvaluatedCase("nothing", "c", None, "", EMPTY, predict(EMPTY, 2)),
    ]
    evaluation = evaluate_cases(cases, protocol=protocol, resamples=20)
    rows = evaluation.per_image.set_index("case_id")
    assert rows["dice"].to_dict() == {"right": 1, "other class": 0, "nothing": 1}
    assert rows.loc["right", "dice_cyst"] == 1
    assert np.isnan(rows.loc["right", "dice_tumour"])
    assert rows.loc["other class", "lesions_matched"] == 0
    assert evaluation.summary["per_class"]["cyst"]["dice"] == 0.5


def test_an_image_without_mask_counts_for_image_level_metrics_only():
    cases = [
        *FOUR_CELLS,
        case("label only", None, LESION, lesion_free=False, label="malignant"),
        case("normal", None, LESION, lesion_free=True, label="normal"),
    ]
    evaluation = evaluate_cases(cases, resamples=20)
    summary, rows = evaluation.summary, evaluation.per_image.set_index("case_id")
    assert np.isnan(rows.loc["label only", "dice"])
    assert rows.loc["normal", "dice"] == 0
    assert summary["dice_lesion"] == pytest.approx(0.25)
    assert summary["dice_all"] == pytest.approx(1.5 / 5)
    assert summary["sensitivity"] == pytest.approx(2 / 3)
    assert summary["false_positive_rate"] == pytest.approx(2 / 3)
    assert summary["counts"]["images_without_mask"] == 1


@pytest.mark.parametrize("truth", [LESION, EMPTY])
def test_one_kind_of_image_only_leaves_undefined_figures_none(truth, tmp_path):
    evaluation = evaluate_cases([case("a", truth, LESION), case("b", truth, EMPTY)], resamples=20)
    evaluation.write(tmp_path)
    summary = json.loads((tmp_path / "evaluation.json").read_text())
    assert summary["auroc_mask"] is None
    assert (summary["dice_lesion"] is None) == (not truth.any())
    assert (summary["specificity"] is None) == bool(truth.any())


def test_one_group_has_no_interval():
    summary = evaluate_cases([case("a", LESION, LESION)]).summary
    assert summary["dice_lesion_ci"] == [None, None]


def test_files_read_back_as_they_were(tmp_path):
    cases = [replace(one, case_id=f"00{n}", group="NA") for n, one in enumerate(FOUR_CELLS)]
    evaluation = evaluate_cases(cases, resamples=20)
    evaluation.write(tmp_path, "_validation")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "evaluation_validation.json",
        "per_image_validation.csv",
        "per_patient_validation.csv",
    ]
    table = read_per_image(tmp_path / "per_image_validation.csv")
    assert tuple(table.columns) == (*COLUMNS, *EQUAL_RULES_COLUMNS)
    pd.testing.assert_frame_equal(table, evaluation.per_image, check_dtype=False)


def test_files_that_are_no_table_are_refused(tmp_path):
    path = tmp_path / "per_image.csv"
    with pytest.raises(DxsegError, match="no such file"):
        read_per_image(path)
    path.write_text("case_id,dice\na,1\n")
    with pytest.raises(DxsegError, match="lacks the columns group"):
        read_per_image(path)
    path.write_text("")
    with pytest.raises(DxsegError, match="not a table"):
        read_per_image(path)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (case("x", LESION, EMPTY, prediction=None), "no prediction"),
        (case("x", LESION[:-1], EMPTY), "its mask is"),
        (case("x", LESION, EMPTY, prediction=predict(EMPTY, 2)), "probabilities are"),
        (case("x", square(1, 1, value=2), EMPTY), "holds the value 2"),
        (case("x", LESION, square(1, 1, value=3)), "holds the value 3"),
        (case("x", LESION, EMPTY, lesion_free=True, label="normal"), "means lesion-free"),
        (case("x", None, EMPTY), "neither a mask nor a label"),
    ],
)
def test_contradictions_are_refused_with_the_name_of_the_case(wrong, message):
    with pytest.raises(DxsegError, match=f"(?s)case 'x'.*{message}|{message}"):
        evaluate_cases([FOUR_CELLS[0], wrong])


@pytest.mark.parametrize("value", [float("nan"), 1.01, -0.01])
def test_values_that_are_no_probabilities_are_refused(value):
    broken = predict(LESION)
    broken.probabilities[0, 3, 3] = value
    with pytest.raises(DxsegError, match="expected 0 to 1"):
        evaluate_cases([case("x", LESION, LESION, prediction=broken)])


def test_a_rounding_error_of_interpolation_is_no_error():
    rounded = predict(LESION)
    rounded.probabilities[0, :2, 3] = [np.nextafter(np.float32(1), np.float32(2)), -1e-8]
    row = evaluate_cases([case("x", LESION, LESION, prediction=rounded)]).per_image.iloc[0]
    assert row["mask_peak_probability"] == 1


def test_no_case_and_a_case_that_comes_twice_are_refused():
    with pytest.raises(DxsegError, match="no case to evaluate"):
        evaluate_cases([])
    with pytest.raises(DxsegError, match="comes twice"):
        evaluate_cases([FOUR_CELLS[0], FOUR_CELLS[0]])


def test_images_are_not_kept_in_memory():
    evaluate_cases(FOUR_CELLS, resamples=10)  # imports its libraries

    def many() -> Iterator[EvaluatedCase]:
        for number in range(40):
            shape = (256, 256)
            mask = np.zeros(shape, dtype=np.uint8)
            mask[50:90, 50:90] = 1
            yield case(str(number), mask, mask.copy())

    tracemalloc.start()
    try:
        evaluate_cases(many(), resamples=10)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # All images together would be 40 x 256 x 256 x (4 + 1 + 1) bytes = 16 MB.
    assert peak < 8e6


def test_a_label_that_says_lesion_beside_an_empty_mask_is_counted():
    cases = [*FOUR_CELLS, case("odd", EMPTY, EMPTY, lesion_free=False, label="benign")]
    summary = evaluate_cases(cases, resamples=10).summary
    assert summary["counts"]["lesion_labels_with_empty_mask"] == 1
    assert summary["counts"]["lesion_free_images"] == 3


def test_a_summary_never_stays_beside_other_tables(tmp_path, monkeypatch):
    evaluation = evaluate_cases(FOUR_CELLS, resamples=20)
    evaluation.write(tmp_path)
    assert (tmp_path / "evaluation.json").is_file()

    def killed(path, _text):
        raise KeyboardInterrupt(path)

    monkeypatch.setattr(evaluate_module, "write_text_atomic", killed)
    with pytest.raises(KeyboardInterrupt):
        evaluation.write(tmp_path)
    assert not (tmp_path / "evaluation.json").exists()

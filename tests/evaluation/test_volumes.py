from __future__ import annotations

import math
import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from monai.metrics import compute_dice, compute_hausdorff_distance, compute_surface_dice

from dxseg.errors import DxsegError
from dxseg.evaluation.cases import EvaluatedCase, EvaluationProtocol, SlicePlace
from dxseg.evaluation.evaluate import Evaluation, evaluate_cases
from dxseg.evaluation.volume_summary import read_per_volume
from dxseg.evaluation.volumes import VolumeScorer

SPACING = (5.0, 1.0, 0.5)


@dataclass(frozen=True)
class Predicted:
    mask: np.ndarray
    probabilities: np.ndarray
    label_probabilities: dict[str, float] | None = None

    @property
    def network_probabilities(self) -> np.ndarray:
        return self.probabilities


def slices(
    name: str, truth: np.ndarray, found: np.ndarray, group: str = "", spacing=SPACING
) -> Iterator[EvaluatedCase]:
    for index, (true, predicted) in enumerate(zip(truth, found, strict=True)):
        yield EvaluatedCase(
            case_id=f"{name}_{index}",
            group=group or name,
            lesion_free=None,
            label="",
            truth=true,
            prediction=Predicted(predicted, (predicted > 0)[None].astype(np.float32)),
            spacing=None if spacing is None else spacing[1:],
            place=SlicePlace(name, index, len(truth), None if spacing is None else spacing[0]),
        )


def box(*sides: slice, shape: tuple[int, ...] = (8, 12, 12)) -> np.ndarray:
    volume = np.zeros(shape, dtype=np.uint8)
    volume[sides] = 1
    return volume


LESION = box(slice(2, 6), slice(2, 8), slice(2, 8))
EMPTY = np.zeros_like(LESION)


def evaluate(*volumes: Iterator[EvaluatedCase], **options) -> Evaluation:
    cases = (case for volume in volumes for case in volume)
    return evaluate_cases(cases, resamples=50, **options)


def test_a_volume_by_hand():
    found = box(slice(3, 7), slice(2, 8), slice(2, 8))  # one slice too far
    found[0, 11, 11] = 1  # and a false finding
    evaluation = evaluate(slices("a", LESION, found), slices("b", EMPTY, EMPTY))
    row = evaluation.per_volume.set_index("volume_id").loc["a"]
    voxels, common = 4 * 36, 3 * 36
    assert row["dice"] == pytest.approx(2 * common / (2 * voxels + 1))
    assert (row["true_voxels"], row["predicted_voxels"]) == (voxels, voxels + 1)
    assert row["true_ml"] == pytest.approx(voxels * 2.5 / 1000)
    assert row["volume_error_ml"] == pytest.approx(2.5 / 1000)
    assert (row["lesions_true"], row["lesions_predicted"], row["lesions_matched"]) == (1, 2, 1)
    assert row["lesion_precision"] == 0.5
    summary = evaluation.summary
    assert summary["volume_dice"] == pytest.approx(row["dice"])  # volumes with a lesion
    assert summary["volume_dice_all"] == pytest.approx((row["dice"] + 1) / 2)
    assert summary["volume_false_positive_rate"] == 0
    assert summary["volume_absolute_error_ml"] == pytest.approx(2.5 / 2000)
    counts = summary["counts"]
    assert (counts["volumes"], counts["lesion_volumes"], counts["images"]) == (2, 1, 16)


def test_one_slice_at_either_end_costs_less_than_by_slice():
    """Perfect but for each lesion's first and last slice: by slice they count as missed."""
    found = LESION.copy()
    found[[2, 5]] = 0
    summary = evaluate(slices("a", LESION, found), slices("b", LESION, LESION)).summary
    assert summary["dice_lesion"] == pytest.approx((2 + 4) / 8)
    assert summary["volume_dice"] == pytest.approx((2 * 72 / (72 + 144) + 1) / 2)
    assert summary["volume_hd95"] == pytest.approx(5 / 2)


@pytest.mark.filterwarnings("ignore:.*always_return_as_numpy")
def test_agrees_with_monai_on_whole_volumes():
    generator = np.random.default_rng(0)
    for number in range(6):
        truth = box(slice(1, 4), slice(1, 9), slice(3, 10))
        found = np.roll(truth, generator.integers(-2, 3, size=3), (0, 1, 2))
        found[generator.random(found.shape) > 0.995] = 1
        row = evaluate(slices("a", truth, found)).per_volume.iloc[0]
        one, other = (torch.from_numpy(v)[None, None].float() for v in (truth, found))
        fraction = compute_surface_dice(
            other,
            one,
            class_thresholds=[2.0],
            spacing=SPACING,
            use_subvoxels=True,
            include_background=True,
        )
        distance = compute_hausdorff_distance(
            other, one, percentile=95, spacing=SPACING, include_background=True
        )
        assert row["dice"] == pytest.approx(float(compute_dice(other, one)), rel=1e-6), number
        assert row["hd95"] == pytest.approx(float(distance), rel=1e-6)
        assert row["nsd"] == pytest.approx(float(fraction), rel=1e-5)


def test_all_volumes_as_one_is_not_the_mean_over_volumes():
    small = box(slice(0, 1), slice(0, 2), slice(0, 2))
    evaluation = evaluate(slices("a", LESION, LESION), slices("b", small, EMPTY))
    assert evaluation.summary["volume_dice"] == pytest.approx(0.5)
    assert evaluation.summary["volume_dice_global"] == pytest.approx(2 * 144 / (144 + 148))
    low, high = evaluation.summary["volume_dice_global_ci"]
    assert (low, high) == (0, 1)  # of two patients, one may be drawn twice


def test_intervals_resample_patients_not_volumes():
    one_patient = [slices(name, LESION, LESION, group="p") for name in "ab"]
    assert evaluate(*one_patient).summary["volume_dice_ci"] == [None, None]


def test_classes_are_measured_each_for_itself_and_missing_ones_do_not_count():
    truth = LESION.copy()
    truth[3] *= 2
    protocol = EvaluationProtocol(("organ", "tumor", "cyst"))
    cases = [
        replace(
            case,
            prediction=replace(
                case.prediction,
                probabilities=np.stack([case.prediction.mask == k for k in (1, 2, 3)]).astype("f4"),
            ),
        )
        for case in slices("a", truth, LESION)
    ]
    row = evaluate_cases(cases, protocol=protocol, resamples=50).per_volume.iloc[0]
    assert row["dice_organ"] == pytest.approx(2 * 108 / (108 + 144))
    assert row["dice_tumor"] == 0
    assert math.isnan(row["dice_cyst"])
    assert row["dice"] == pytest.approx(row[["dice_organ", "dice_tumor"]].mean())
    assert row["common_voxels"] == 108


def test_organs_are_no_lesions():
    """A scan whose liver is outlined is lesion-free, and a tumour found in it a false positive."""
    liver = 2 * LESION
    found = np.where(box(slice(3, 4), slice(3, 5), slice(3, 5)) > 0, 1, liver).astype(np.uint8)
    protocol = EvaluationProtocol(("tumour", "liver"), lesion_classes=["tumour"])
    cases = (
        replace(case, prediction=Predicted(case.prediction.mask, one_hot(case.prediction.mask)))
        for case in slices("a", liver, found)
    )
    evaluation = evaluate(cases, protocol=protocol)
    [row] = evaluation.per_volume.to_dict("records")
    assert (row["lesion_free"], row["false_positive"]) == (True, True)
    assert (row["lesions_true"], row["lesions_predicted"]) == (0, 1)
    assert (row["true_ml"], row["predicted_ml"]) == (0, pytest.approx(4 * np.prod(SPACING) / 1000))
    assert row["dice_liver"] > 0.9
    images = evaluation.per_image
    assert images["lesion_free"].all()
    assert images["false_positive"].sum() == 1
    assert images["predicted_area"].sum() == pytest.approx(4 * np.prod(SPACING[1:]))


def test_tumours_that_are_missed_are_not_hidden_by_the_organ():
    """LiTS measures liver and tumour each for itself."""
    tumour = box(slice(3, 4), slice(3, 5), slice(3, 5))
    truth, found = np.where(tumour, 1, 2 * LESION).astype(np.uint8), 2 * LESION
    protocol = EvaluationProtocol(("tumour", "liver"), lesion_classes=["tumour"])
    cases = (
        replace(case, prediction=Predicted(case.prediction.mask, one_hot(case.prediction.mask)))
        for name in "ab"
        for case in slices(name, truth, found)
    )
    evaluation = evaluate(cases, protocol=protocol)
    summary, rows = evaluation.summary, evaluation.per_volume
    assert summary["counts"]["missed_lesion_volumes"] == 2
    assert summary["volume_dice_global"] == 0
    assert summary["per_class"]["tumour"]["volume_dice_global"] == 0
    assert summary["per_class"]["tumour"]["volume_dice"] == 0
    liver = 2 * 140 / (140 + 144)
    assert summary["per_class"]["liver"]["volume_dice_global"] == pytest.approx(liver)
    assert summary["per_class"]["liver"]["volume_dice"] == pytest.approx(liver)
    assert summary["volume_dice"] == pytest.approx(liver / 2)
    assert rows["true_voxels"].tolist() == rows["true_voxels_tumour"].tolist() == [4, 4]
    assert rows["predicted_voxels_liver"].tolist() == [144, 144]


def one_hot(mask: np.ndarray) -> np.ndarray:
    return np.stack([mask == 1, mask == 2]).astype(np.float32)


def test_without_a_distance_of_slices_there_are_no_millimeters():
    row = evaluate(slices("a", LESION, LESION, spacing=None)).per_volume.iloc[0]
    assert row["dice"] == 1
    assert row[["hd95", "nsd", "true_ml", "volume_error_ml"]].isna().all()


@pytest.mark.parametrize("missing", ["truth", "slice", "index", "size"])
def test_volumes_that_are_not_known_throughout_are_left_out_and_counted(missing):
    cases = list(slices("a", LESION, LESION))
    if missing == "truth":
        cases[0] = replace(cases[0], truth=None, lesion_free=False, label="lesion")
    elif missing == "slice":
        del cases[3]
    elif missing == "index":
        cases[0] = replace(cases[0], place=replace(cases[0].place, index=None))
    else:
        small = Predicted(np.zeros((4, 4), np.uint8), np.zeros((1, 4, 4), np.float32))
        cases[0] = replace(cases[0], truth=small.mask, prediction=small)
    evaluation = evaluate(iter(cases), slices("b", LESION, LESION))
    assert evaluation.per_volume["volume_id"].tolist() == ["b"]
    assert list(evaluation.summary["counts"]["volumes_left_out"].values()) == [1]


def test_images_that_are_no_slices_make_no_table(tmp_path):
    cases = (replace(case, place=None) for case in slices("a", LESION, LESION))
    evaluation = evaluate(cases)
    (tmp_path / "per_volume.csv").write_text("of an earlier evaluation")
    evaluation.write(tmp_path)
    assert not (tmp_path / "per_volume.csv").exists()
    assert "volume_dice" not in evaluation.summary
    assert read_per_volume(tmp_path / "per_volume.csv").empty


def test_the_table_reads_back_as_it_was(tmp_path):
    evaluation = evaluate(slices("007", LESION, EMPTY), slices("NA", EMPTY, EMPTY))
    evaluation.write(tmp_path)
    table = read_per_volume(tmp_path / "per_volume.csv")
    assert table["volume_id"].tolist() == ["007", "NA"]
    assert table["hd95"].tolist() == pytest.approx(evaluation.per_volume["hd95"].tolist())
    (tmp_path / "per_volume.csv").write_text("volume_id,dice\na,1\n")
    with pytest.raises(DxsegError, match=r"per_volume.csv: lacks the columns .*hd95"):
        read_per_volume(tmp_path / "per_volume.csv")


def test_slices_that_come_apart_are_refused():
    first, second = list(slices("a", LESION, LESION)), list(slices("b", LESION, LESION))
    with pytest.raises(DxsegError, match="volume 'a': its slices come apart"):
        evaluate(iter([*first[:4], *second, *first[4:]]))


def test_memory_is_that_of_one_volume():
    truth = box(slice(5, 9), slice(50, 80), slice(50, 80), shape=(16, 256, 256))

    def peak(volumes: int) -> int:
        scorer = VolumeScorer(EvaluationProtocol())
        tracemalloc.start()
        for number in range(volumes):
            for case in slices(f"v{number}", truth.copy(), truth.copy()):
                scorer.add(case)
        assert len(scorer.table()) == volumes
        highest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return highest

    peak(1)  # imports
    assert peak(6) < peak(2) + truth.nbytes

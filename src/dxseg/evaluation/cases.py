"""One image's prediction against its truth: a row of numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dxseg.data.table.spec import lesion_values
from dxseg.errors import DxsegError
from dxseg.metrics.image_level import decision_score, lesion_probability
from dxseg.metrics.lesions import LesionCounts, match_lesions
from dxseg.metrics.overlap import dice, iou, mean_dice
from dxseg.metrics.surface import DEFAULT_TOLERANCE, Spacing, hd95, nsd

if TYPE_CHECKING:
    from dxseg.inference.pipeline import Prediction

MASK_METRICS = ("dice", "iou", "hd95", "nsd")
COLUMNS = (
    "case_id",
    "group",
    "label",
    "lesion_free",
    *MASK_METRICS,
    "lesion_sensitivity",
    "lesion_precision",
    "lesion_f1",
    "lesions_true",
    "lesions_predicted",
    "lesions_matched",
    "predicted_area",
    "true_area",
    "false_positive",
    "false_positive_area_fraction",
    "mask_peak_probability",
    "lesion_probability",
)
EQUAL_RULES_COLUMNS = ("decision_score", "dice_known", "dice_fp10", "false_positive_fp10")
"""Absent in tables of earlier versions."""
ROUNDING = 1e-4
Row = dict[str, Any]


@dataclass(frozen=True)
class SlicePlace:
    """Where in a volume a slice is.

    Attributes:
        volume_id: The volume.
        index: Number of the slice; None where the table has none.
        slices: How many slices the dataset has of the volume.
        spacing: Millimeters between slices; None where unknown.
    """

    volume_id: str
    index: int | None
    slices: int
    spacing: float | None


@dataclass(frozen=True)
class EvaluatedCase:
    """One image with its truth and its prediction.

    Attributes:
        case_id: Its name, unique within an evaluation.
        group: Its patient or near-duplicate group, the unit of the bootstrap.
        lesion_free: Whether its label means lesion-free; None without a label.
        label: Its label, for the table only; may be empty.
        truth: (H, W) label map of 0..K. None where no mask is known: such an image counts for
            image-level metrics only, unless it is lesion-free, which means an empty mask.
        prediction: Of the model.
        spacing: Millimeters per pixel along y and x; None where unknown.
        place: Where in its volume the image is; None for an image that is no slice.
        organs_only: Whether its label means that there is no lesion, although organs may be
            outlined: without a mask, such an image is not lesion-free but counts as one.
    """

    case_id: str
    group: str
    lesion_free: bool | None
    label: str
    truth: NDArray[np.uint8] | None
    prediction: Prediction
    spacing: Spacing | None = None
    place: SlicePlace | None = None
    organs_only: bool = False


@dataclass(frozen=True)
class EvaluationProtocol:
    """How images are measured, the same for all of one evaluation.

    Attributes:
        mask_classes: Names of the mask values 1, 2, ...
        lesion_free_labels: The labels that mean "no lesion", also those of images with organs only.
        multi_label: Whether labels are independent instead of exclusive.
        tolerance: Of the normalized surface Dice, in the unit of the spacing.
        threshold: Probability from which a pixel is lesion.
        decision_threshold: Decision score above which an image gets a mask, at 10% false positives
            (`dxseg.evaluation.equal_rules`); None where it is unknown.
        lesion_classes: The mask classes that are lesions and not organs; None: all. Others count in
            `MASK_METRICS` only.
    """

    mask_classes: Sequence[str] = ("lesion",)
    lesion_free_labels: Sequence[str] = ()
    multi_label: bool = False
    tolerance: float = DEFAULT_TOLERANCE
    threshold: float = 0.5
    decision_threshold: float | None = None
    lesion_classes: Sequence[str] | None = None

    @property
    def lesion_values(self) -> list[int]:
        """The mask values of lesions."""
        return lesion_values(self.mask_classes, self.lesion_classes)

    def lesions(self, mask: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Where a label map shows a lesion."""
        return np.isin(mask, self.lesion_values)

    def peak(self, probabilities: NDArray[np.float32]) -> float:
        """The highest probability (K, H, W) of a lesion."""
        return max(float(probabilities[value - 1].max()) for value in self.lesion_values)


def known_truth(case: EvaluatedCase) -> NDArray[np.uint8] | None:
    """The true mask of a case, empty where its label means lesion-free; None where unknown."""
    if case.truth is None and case.lesion_free:
        return np.zeros(case.prediction.mask.shape, dtype=np.uint8)
    return case.truth


def score_case(case: EvaluatedCase, protocol: EvaluationProtocol) -> Row:
    """Compute the metrics of one image.

    With several mask classes dice, iou, hd95 and nsd are means over the classes in truth or
    prediction (without any: the both-empty cell), so that absent classes do not raise them; the
    columns `dice_<class>` and so on are NaN where neither has the class. `lesion_free` in the
    row follows the mask where there is one. Areas are in square millimeters where spacing is
    given, else in pixels.

    Args:
        case: The image.
        protocol: How to measure.

    Returns:
        `COLUMNS`, `EQUAL_RULES_COLUMNS`, and with several mask classes `<metric>_<class>` for
        `MASK_METRICS`.

    Raises:
        DxsegError: Truth, prediction and label contradict each other, or a value is impossible.
    """
    _check(case, protocol)
    truth, found = known_truth(case), protocol.lesions(case.prediction.mask)
    lesion = None if truth is None else protocol.lesions(truth)
    pixel = case.spacing[0] * case.spacing[1] if case.spacing else 1.0
    labeled_free = bool(case.lesion_free) or case.organs_only
    lesion_free = labeled_free if lesion is None else not lesion.any()
    row: Row = dict.fromkeys((*COLUMNS, *EQUAL_RULES_COLUMNS), float("nan"))
    row |= {
        "case_id": case.case_id,
        "group": case.group,
        "label": case.label,
        "lesion_free": lesion_free,
        "predicted_area": np.count_nonzero(found) * pixel,
        "false_positive": lesion_free and bool(found.any()),
        "mask_peak_probability": min(protocol.peak(case.prediction.probabilities), 1.0),
        "lesion_probability": lesion_probability(
            case.prediction.label_probabilities, protocol.lesion_free_labels, protocol.multi_label
        ),
    }
    peak = protocol.peak(case.prediction.network_probabilities)
    row["decision_score"] = decision_score(peak, row["lesion_probability"])
    if lesion_free:
        row["false_positive_area_fraction"] = np.count_nonzero(found) / found.size
    row |= _equal_rules(row, case, truth, protocol)
    if truth is None or lesion is None:
        return row
    row["true_area"] = np.count_nonzero(lesion) * pixel
    return row | score_masks(truth, case.prediction.mask, case.spacing, protocol)


def score_masks(
    truth: NDArray[np.uint8],
    found: NDArray[np.uint8],
    spacing: Spacing | None,
    protocol: EvaluationProtocol,
) -> Row:
    """Compute the metrics of a true and a predicted label map, of an image or of a volume.

    Args:
        truth: (H, W) or (D, H, W), values 0..K.
        found: The same of the prediction.
        spacing: Millimeters along each axis; None: distances are in pixels.
        protocol: How to measure.

    Returns:
        `MASK_METRICS`, lesions and their figures; see `score_case`.
    """
    return _overlaps(truth, found, spacing, protocol) | _lesions(truth, found, protocol)


def _equal_rules(
    row: Row, case: EvaluatedCase, truth: NDArray[np.uint8] | None, protocol: EvaluationProtocol
) -> Row:
    """Dice of an image that is known to have a lesion, and at 10% false positives."""
    from dxseg.inference.postprocess import apply_thresholds

    limit = protocol.decision_threshold
    marked = float("nan") if limit is None else float(row["decision_score"] > limit)
    if row["lesion_free"]:
        return {"false_positive_fp10": marked}
    if truth is None:
        return {}
    _, mask = apply_thresholds(
        case.prediction.network_probabilities,
        threshold=protocol.threshold,
        lesion_values=protocol.lesion_values,
        known_lesion=True,
    )
    known = mean_dice(truth, mask, len(protocol.mask_classes))
    return {"dice_known": known, "dice_fp10": known * marked}


def _overlaps(
    truth: NDArray[np.uint8],
    found: NDArray[np.uint8],
    spacing: Spacing | None,
    protocol: EvaluationProtocol,
) -> Row:
    """The mask metrics, per class and their mean."""
    scores: dict[str, list[float]] = {metric: [] for metric in MASK_METRICS}
    per_class: Row = {}
    for value, name in enumerate(protocol.mask_classes, start=1):
        pair = truth == value, found == value
        if not (pair[0].any() or pair[1].any()):
            per_class |= {f"{metric}_{name}": float("nan") for metric in MASK_METRICS}
            continue
        numbers = (
            dice(*pair),
            iou(*pair),
            hd95(*pair, spacing),
            nsd(*pair, spacing, tolerance=protocol.tolerance),
        )
        for metric, number in zip(MASK_METRICS, numbers, strict=True):
            scores[metric].append(number)
            per_class[f"{metric}_{name}"] = number
    both_empty = dict(zip(MASK_METRICS, (1.0, 1.0, 0.0, 1.0), strict=True))
    means: Row = {
        metric: float(np.mean(values)) if values else both_empty[metric]
        for metric, values in scores.items()
    }
    return means | per_class if len(protocol.mask_classes) > 1 else means


def _lesions(
    truth: NDArray[np.uint8], found: NDArray[np.uint8], protocol: EvaluationProtocol
) -> Row:
    """Lesions, matched within their class."""
    counts = LesionCounts(0, 0, 0)
    for value in protocol.lesion_values:
        counts += match_lesions(truth == value, found == value)
    return {
        "lesions_true": counts.true,
        "lesions_predicted": counts.predicted,
        "lesions_matched": counts.matched,
        "lesion_sensitivity": counts.sensitivity,
        "lesion_precision": counts.precision,
        "lesion_f1": counts.f1,
    }


def _check(case: EvaluatedCase, protocol: EvaluationProtocol) -> None:
    """Check for inputs that would give a plausible but wrong number."""
    prediction, classes = case.prediction, len(protocol.mask_classes)
    where = f"case {case.case_id!r}"
    if prediction is None:
        raise DxsegError(f"{where} has no prediction; every case of an evaluation needs one")
    shape = prediction.mask.shape
    if case.truth is None and case.lesion_free is None:
        raise DxsegError(f"{where} has neither a mask nor a label; leave it out of the evaluation")
    if case.truth is not None and case.truth.shape != shape:
        raise DxsegError(
            f"{where}: its mask is {case.truth.shape} (height, width) but its prediction {shape}; "
            "both must have the image's size: check that the mask belongs to the image"
        )
    if prediction.probabilities.shape != (classes, *shape):
        raise DxsegError(
            f"{where}: probabilities are {prediction.probabilities.shape}, expected "
            f"{(classes, *shape)} (mask classes, height, width)"
        )
    low, high = float(prediction.probabilities.min()), float(prediction.probabilities.max())
    # Written so that NaN is caught too. Interpolation may overshoot by a rounding error.
    if not (low >= -ROUNDING and high <= 1 + ROUNDING):
        raise DxsegError(
            f"{where}: probabilities run from {low} to {high}, expected 0 to 1; the model's "
            "weights or the image hold values that are not finite"
        )
    for name, values in (("mask", case.truth), ("prediction", prediction.mask)):
        if values is not None and int(values.max()) > classes:
            raise DxsegError(
                f"{where}: its {name} holds the value {int(values.max())}, but there are "
                f"{classes} mask classes ({', '.join(protocol.mask_classes)})"
            )
    if case.lesion_free and case.truth is not None and case.truth.any():
        raise DxsegError(
            f"{where}: its label {case.label!r} means lesion-free but its mask holds "
            f"{np.count_nonzero(case.truth)} lesion pixels; correct the label or the mask"
        )

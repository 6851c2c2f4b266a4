"""Evaluate a model on a split: tables per image, per volume and per patient, and a summary."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dxseg.data.splits.split_table import read_splits
from dxseg.data.table.dataset import Dataset
from dxseg.errors import DxsegError
from dxseg.evaluation.cases import (
    EvaluatedCase,
    EvaluationProtocol,
    Row,
    known_truth,
    score_case,
)
from dxseg.evaluation.equal_rules import FALSE_POSITIVE_RATE, validation_scores
from dxseg.evaluation.evidence import EvidenceQuality, summarize_evidence
from dxseg.evaluation.runs import file_suffix
from dxseg.evaluation.stream import Progress, predict_rows, predicted_cases, split_rows
from dxseg.evaluation.summary import (
    AverageBy,
    per_class,
    per_patient,
    summarize,
    without_nan,
)
from dxseg.evaluation.volume_summary import count_volumes, summarize_volumes, volumes_per_class
from dxseg.evaluation.volumes import VolumeScorer
from dxseg.inference.pipeline import Prediction
from dxseg.inference.predictor import Predictor
from dxseg.io.atomic import sha256_file, write_json_atomic, write_text_atomic
from dxseg.metrics.calibration import CalibrationHistogram
from dxseg.metrics.image_level import lowest_threshold
from dxseg.metrics.statistics import RESAMPLES
from dxseg.training.run_record import read_run


@dataclass(frozen=True)
class Evaluation:
    """The result of an evaluation.

    Attributes:
        per_image: One row per image, see `dxseg.evaluation.cases.score_case`.
        per_patient: One row per patient or group, see `dxseg.evaluation.summary.per_patient`.
        per_volume: One row per volume, see `dxseg.evaluation.volumes.VolumeScorer`; none where the
            images are no slices.
        summary: Ready for JSON, see `evaluate_cases`.
    """

    per_image: pd.DataFrame
    per_patient: pd.DataFrame
    per_volume: pd.DataFrame
    summary: dict[str, Any]

    def write(self, folder: Path, suffix: str = "") -> None:
        """Write evaluation.json, per_image.csv, per_patient.csv and, of slices, per_volume.csv.

        Each is written atomically.

        Args:
            folder: The folder to write to.
            suffix: Added to each file's stem.
        """
        summary = folder / f"evaluation{suffix}.json"
        # First removed and last written, so that a summary never belongs to other tables.
        summary.unlink(missing_ok=True)
        tables = {"per_image": self.per_image, "per_patient": self.per_patient}
        if len(self.per_volume):
            tables["per_volume"] = self.per_volume
        else:  # of an earlier evaluation
            (folder / f"per_volume{suffix}.csv").unlink(missing_ok=True)
        for name, table in tables.items():
            write_text_atomic(folder / f"{name}{suffix}.csv", table.to_csv(index=False))
        write_json_atomic(summary, self.summary)


def evaluate_cases(
    cases: Iterable[EvaluatedCase],
    *,
    protocol: EvaluationProtocol | None = None,
    average_by: AverageBy = "image",
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Evaluation:
    """Evaluate images one at a time; only a row of numbers is kept of each.

    The summary holds, flat: `dice_lesion`, `dice_lesion_known`, `dice_lesion_fp10`, `iou_lesion`,
    `hd95_lesion`, `nsd_lesion`, `lesion_sensitivity`, `lesion_precision`, `lesion_f1` (means over
    images whose mask holds a lesion), `dice_all`, `sensitivity`, `specificity`,
    `false_positive_rate` (by "any predicted pixel"), `false_positive_rate_fp10`,
    `false_positive_area` and `false_positive_area_fraction` (means over lesion-free images),
    `auroc_mask`, `auroc_label`, `ece_pixel` (all pixels and classes pooled), `ece_label`,
    `<metric>_ci` of `dxseg.evaluation.summary.INTERVALS` ([low, high]); and `averaged_by`,
    `interval`, `units`, `counts`, with several mask classes `per_class`; where images are slices of
    volumes whose masks are all known, the figures of `dxseg.evaluation.volume_summary`. Undefined
    figures are None.

    Args:
        cases: The images, slices of a volume beside each other; consumed once.
        protocol: Classes, labels and tolerance; default: one class named "lesion".
        average_by: `patient` makes means of patient means (`EvaluatedCase.group`); AUROC and
            calibration pool images either way. Intervals always resample groups.
        resamples: Number of bootstrap samples.
        seed: Seed of the bootstrap.

    Returns:
        The evaluation.

    Raises:
        DxsegError: There is no case, a case comes twice, some but not all have spacing, or a
            case contradicts itself (see `score_case`).
    """
    protocol = protocol or EvaluationProtocol()
    rows: list[Row] = []
    seen: set[str] = set()
    histogram = CalibrationHistogram()
    volumes = VolumeScorer(protocol)
    physical: bool | None = None
    lesion_label_empty_mask = 0
    for case in cases:
        if case.case_id in seen:
            raise DxsegError(f"case {case.case_id!r} comes twice; each is evaluated once")
        seen.add(case.case_id)
        if physical is not None and physical != (case.spacing is not None):
            raise DxsegError(
                f"case {case.case_id!r}: some cases have a spacing and some have none, so that "
                "distances cannot be averaged; give every case its spacing, or none"
            )
        physical = case.spacing is not None
        rows.append(score_case(case, protocol))
        volumes.add(case)
        truth = known_truth(case)
        if truth is not None:
            _calibrate(histogram, truth, case.prediction)
            lesion_label = case.lesion_free is False and not case.organs_only
            lesion_label_empty_mask += lesion_label and not protocol.lesions(truth).any()
    if not rows:
        raise DxsegError("there is no case to evaluate; check the split")

    per_image = _table(rows)
    summary = summarize(per_image, average_by, resamples=resamples, seed=seed)
    summary["ece_pixel"] = without_nan(histogram.error())
    summary["units"] = {
        "distance": "mm" if physical else "px",
        "area": "mm2" if physical else "px",
        "nsd_tolerance": protocol.tolerance,
    }
    summary["counts"]["lesion_labels_with_empty_mask"] = lesion_label_empty_mask
    classes = protocol.mask_classes if len(protocol.mask_classes) > 1 else ()
    if classes:
        summary["per_class"] = per_class(per_image, classes, average_by)
    per_volume = volumes.table()
    if len(per_volume):
        summary |= summarize_volumes(per_volume, average_by, resamples=resamples, seed=seed)
        summary["counts"] |= count_volumes(per_volume)
        for name, figures in volumes_per_class(per_volume, classes, average_by).items():
            summary["per_class"][name] |= figures
    if volumes.left_out:
        summary["counts"]["volumes_left_out"] = dict(volumes.left_out)
    return Evaluation(per_image, per_patient(per_image), per_volume, summary)


def open_run(
    run: Path,
    dataset: str | Path | None = None,
    model: str | Path | None = None,
    **options: Any,
) -> tuple[Dataset, Predictor]:
    """Load the dataset and the model of a finished run.

    Args:
        run: Folder of the run.
        dataset: Folder of the dataset; default: as in `run.json`.
        model: An exported file in place of the run's model.
        **options: Of `Predictor.from_folder`.

    Raises:
        DxsegError: The run is not finished, or its model has other mask classes than the dataset.
    """
    data = Dataset.load(read_run(run)["dataset"] if dataset is None else dataset)
    source = run / "model" if model is None else Path(model)
    predictor = Predictor.from_folder(source, **options)
    if predictor.info.mask_classes != data.spec.mask_classes:
        raise DxsegError(
            f"{source}: the model's mask classes are {predictor.info.mask_classes}, those of "
            f"{data.root} are {data.spec.mask_classes}; evaluate on the dataset it was trained on"
        )
    return data, predictor


def evaluate_run(
    run: Path,
    data: Dataset,
    predictor: Predictor,
    *,
    split: str = "test",
    label_prompts: bool = False,
    output: Path | None = None,
    resamples: int = RESAMPLES,
    progress: Progress | None = None,
) -> Evaluation:
    """Evaluate a model on a split of a run and write the results.

    Masks with `use_mask` False in `splits.csv` are not used: such images count for image-level
    metrics only, and images with neither a usable mask nor a label are left out and counted. Means
    are over patients where every evaluated case has one.
    Distances are in millimeters where the dataset's unit is mm and every evaluated case has a
    spacing, else in pixels.

    Args:
        run: Folder with `splits.csv`.
        data: Its dataset.
        predictor: Its model, or another one for the same dataset.
        split: `test`, `validation` or `train`.
        label_prompts: Use the true image-level labels as label prompts, as `dxseg predict --labels`
            would; see `dxseg.inference.postprocess` for their rules.
        output: Folder for evaluation.json, per_image.csv, per_patient.csv, and per_volume.csv of
            slices; default: the run. For other splits than test the names end in `_<split>`, with
            label prompts in `_label_prompts`.
        resamples: Number of bootstrap samples.
        progress: Called with the number of images done and of all.

    Returns:
        The evaluation; its summary also has split, dataset and digests.

    Raises:
        DxsegError: An image, a mask or a prediction is missing or unreadable.
    """
    path, info = run / "splits.csv", predictor.info
    splits = read_splits(path, data)
    rows, left_out = split_rows(data, splits, split, path)
    labels = dict(zip(rows["case_id"], rows["label"], strict=True)) if label_prompts else None
    by_patient = bool(rows["patient_id"].ne("").all())
    protocol = EvaluationProtocol(
        info.mask_classes,
        info.without_lesion,
        info.multi_label,
        threshold=info.threshold,
        lesion_classes=data.spec.lesion_classes,
    )
    evidence = EvidenceQuality(info.labels, protocol)
    # With the true labels as prompts, lesion-free images have no mask: there is nothing to decide.
    scores = [] if label_prompts else validation_scores(predictor, data, splits, protocol)
    limit = lowest_threshold(scores, FALSE_POSITIVE_RATE)
    cases = predicted_cases(
        data, rows, predict_rows(predictor, data, rows, labels=labels), progress
    )
    evaluation = evaluate_cases(
        evidence.accumulate(cases),
        protocol=replace(protocol, decision_threshold=limit),
        average_by="patient" if by_patient else "image",
        resamples=resamples,
    )
    evaluation.summary["counts"]["images_left_out"] = left_out
    if evidence.images:
        figures = summarize_evidence(evidence, predictor, data, splits, split)
        evaluation.summary["evidence"] = figures
    evaluation.summary.update(
        {
            "split": split,
            "label_prompts": label_prompts,
            "dataset": data.spec.name,
            "dataset_digest": data.digest(),
            "splits_sha256": sha256_file(path),
            "weights_sha256": info.weights_sha256,
            "threshold": info.threshold,
            "sliding_window": info.sliding_window,
            "equal_rules": {
                "false_positive_rate": FALSE_POSITIVE_RATE,
                "decision_threshold": limit,
                "validation_images": len(scores),
            },
        }
    )
    suffix = file_suffix(split) + ("_label_prompts" if label_prompts else "")
    evaluation.write(run if output is None else output, suffix)
    return evaluation


def _calibrate(
    histogram: CalibrationHistogram,
    truth: np.ndarray[Any, np.dtype[np.uint8]],
    prediction: Prediction,
) -> None:
    for value, probability in enumerate(prediction.probabilities, start=1):
        histogram.update(np.clip(probability, 0, 1), truth == value)


def _table(rows: list[Row]) -> pd.DataFrame:
    table = pd.DataFrame(rows)
    counts = ["lesions_true", "lesions_predicted", "lesions_matched"]
    return table.astype(dict.fromkeys(counts, "Int64"))

"""`results.csv`: one row per run, finished or not."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from dxseg.data.table.dataset import Dataset
from dxseg.errors import DxsegError
from dxseg.evaluation.runs import EvaluatedRun, file_suffix, is_evaluated, load_run
from dxseg.evaluation.summary import INTERVALS, MEANS
from dxseg.evaluation.volume_summary import GLOBAL_DICE, VOLUME_MEANS
from dxseg.experiments.experiment import Experiment
from dxseg.experiments.plan import Job
from dxseg.io.atomic import sha256_file
from dxseg.training.run_record import STAGE1_RECORD, read_run, teacher_sources

DONE, FAILED, MISSING = "done", "failed", "missing"
METRICS = (
    *(*MEANS, "auroc_mask", "auroc_label", "ece_pixel", "ece_label"),
    *(*VOLUME_MEANS, GLOBAL_DICE),
)
COUNTS = (
    "images",
    "groups",
    "lesion_images",
    "lesion_free_images",
    "images_without_mask",
    "missed_lesion_images",
    "lesions_true",
    "lesions_predicted",
    "lesions_matched",
)
CASES = (
    *("train", "validation", "test", "train_masks", "validation_masks"),
    *("train_volumes", "validation_volumes"),
)
COST = (
    "parameters",
    "multiply_adds",
    "stage1_seconds",
    "stage2_seconds",
    "self_training_seconds",
    "distillation_seconds",
    "inference_ms",
)
ENDS = tuple(f"{metric}_{end}" for metric in INTERVALS for end in ("low", "high"))
COLUMNS = (
    *("experiment", "dataset", "method", "base_method", "masks", "fold", "draw", "seed", "split"),
    *("status", "error", "added_later"),
    *METRICS,
    *ENDS,
    *COUNTS,
    *(f"cases_{name}" for name in CASES),
    *COST,
    *("experiment_sha256", "dataset_sha256", "splits_sha256", "weights_sha256", "config_sha256"),
)

_NONE = (None, None)
"""Interval of a figure that evaluations of earlier versions do not have."""

_PART = r"[^/\\\s:;,'\")]+"
_PATH = re.compile(rf"(?<![\w.-])(?:[A-Za-z]:)?(?:[/\\]{_PART})+[/\\]({_PART})")


@dataclass(frozen=True)
class RunResult:
    """The result of a run.

    Attributes:
        job: The run.
        error: Why it failed; "" if it did not.
        evaluated: Its evaluation; None if it is not finished.
        row: Its row of results.csv.
    """

    job: Job
    error: str
    evaluated: EvaluatedRun | None
    row: dict[str, Any]


@dataclass(frozen=True)
class ExperimentContext:
    """What all runs of an experiment share.

    Attributes:
        runs: Folder of all jobs.
        dataset: Dataset of the experiment.
        split: The split that is evaluated.
        experiment_sha256: Digest of the experiment file that was registered first.
        added: Names of the runs that were added to the experiment later.
    """

    runs: Path
    dataset: Dataset
    split: str
    experiment_sha256: str
    added: set[str]


def collect_results(
    experiment: Experiment,
    jobs: Sequence[Job],
    context: ExperimentContext,
    failures: Mapping[str, str],
    costs: Mapping[str, Mapping[str, Any]],
) -> list[RunResult]:
    """Collect the result of every run; one whose files are damaged has failed.

    Args:
        experiment: The experiment.
        jobs: All of its jobs.
        context: What its runs share.
        failures: Reasons of failed jobs, by name.
        costs: For each method: multiply_adds, inference_ms.

    Returns:
        One per run, in the order of the jobs.
    """
    base_methods = {
        method.name: method.base_method
        if method.student_of is None
        else f"student of {method.student_of}"
        for method in experiment.methods
    }
    results = []
    for job in jobs:
        if job.is_stage1:
            continue
        assert job.method is not None
        error = failures.get(job.name, "")
        evaluated, found = None, {}
        try:
            evaluated = _evaluated(context.runs / job.name, context.split)
            if evaluated is not None:
                found = _metrics(evaluated) | _record(job, context) | {"status": DONE, "error": ""}
                found |= costs.get(job.method, {})
        except (DxsegError, OSError) as damage:
            evaluated, error = None, str(damage)
        error = strip_paths(error)
        row: dict[str, Any] = dict.fromkeys(COLUMNS)
        row |= {
            "experiment": experiment.name,
            "dataset": context.dataset.spec.name,
            "method": job.method,
            "base_method": base_methods[job.method],
            "masks": job.masks,
            "fold": job.fold.number,
            "draw": job.fold.draw,
            "seed": job.fold.seed,
            "split": context.split,
            "status": FAILED if error else MISSING,
            "error": error,
            "added_later": job.name in context.added,
            "experiment_sha256": context.experiment_sha256,
        }
        results.append(RunResult(job, error, evaluated, row | found))
    return results


def make_results_table(results: Sequence[RunResult]) -> pd.DataFrame:
    """Make the table of results.csv; integer columns stay integer where values are missing.

    Args:
        results: One per run.
    """
    table = pd.DataFrame([result.row for result in results], columns=list(COLUMNS))
    integers = [*COUNTS, *(f"cases_{name}" for name in CASES)]
    integers += ["parameters", "multiply_adds", "fold"]
    floats = [name for name in (*METRICS, *ENDS, *COST) if name not in integers]
    return table.astype(dict.fromkeys(integers, "Int64") | dict.fromkeys(floats, "float64"))


def budget_unit(results: pd.DataFrame) -> str:
    """What the budgets of an experiment count: "volumes" or "masks".

    Args:
        results: results.csv; without `cases_train_volumes`, of earlier versions, they count masks.
    """
    volumes = results.get("cases_train_volumes")
    return "volumes" if volumes is not None and (volumes > 0).any() else "masks"


def strip_paths(text: str) -> str:
    """Remove the folders of this machine from an error: only the last name of each path stays.

    Args:
        text: Text of the error.
    """
    return _PATH.sub(r"\1", text)


def _evaluated(folder: Path, split: str) -> EvaluatedRun | None:
    if not is_evaluated(folder, split):
        return None
    return _load(
        folder, split, (folder / f"evaluation{file_suffix(split)}.json").stat().st_mtime_ns
    )


@cache
def _load(folder: Path, split: str, _modified: int) -> EvaluatedRun:
    """Read an evaluation once: the results are collected again whenever a run ends."""
    return load_run(folder, split)


def _metrics(evaluated: EvaluatedRun) -> dict[str, Any]:
    summary = evaluated.summary
    ends = {
        f"{metric}_{end}": value
        for metric in INTERVALS
        for end, value in zip(("low", "high"), summary.get(f"{metric}_ci", _NONE), strict=True)
    }
    counts = {name: summary["counts"][name] for name in COUNTS}
    digests = {name: summary[name] for name in ("splits_sha256", "weights_sha256")}
    return {name: summary.get(name) for name in METRICS} | ends | counts | digests


def _record(job: Job, context: ExperimentContext) -> dict[str, Any]:
    folder = context.runs / job.name
    record = read_run(folder)
    row = {f"cases_{name}": record["cases"].get(name, 0) for name in CASES}
    row["parameters"] = record["parameters"]
    row |= _training_seconds(record, context)
    row["dataset_sha256"] = record["dataset_digest"]
    row["config_sha256"] = sha256_file(folder / "config.yaml")
    return row


def _training_seconds(record: dict[str, Any], context: ExperimentContext) -> dict[str, float]:
    """Seconds of each stage, including those of the runs that this one continues."""
    teachers = teacher_sources(record)
    if teachers:
        seconds = [
            _training_seconds(read_run(_run_folder(source["run"], context)), context)
            for source in teachers
        ]
        total = {key: sum(one.get(key, 0.0) for one in seconds) for key in seconds[0]}
        return total | {"distillation_seconds": sum(record["seconds"].values())}
    source = record["stage2_from"]
    before = record if source is None else read_run(_run_folder(source, context))
    row = {
        "stage2_seconds": before["seconds"]["stage2"],
        "self_training_seconds": record["seconds"].get("self_training", 0.0),
    }
    if "student" in record:
        students = [v for name, v in record["seconds"].items() if name.startswith("student")]
        row["distillation_seconds"] = sum(students)
    if before["stage1_from"] is not None:
        file = _run_folder(before["stage1_from"], context) / "stage1" / STAGE1_RECORD
        row["stage1_seconds"] = json.loads(file.read_text(encoding="utf-8"))["metrics"]["seconds"]
    return row


def _run_folder(folder: str, context: ExperimentContext) -> Path:
    """Folder of a run by its name: the experiment's folder may have been moved."""
    return context.runs.joinpath(*Path(folder).parts[-3:])

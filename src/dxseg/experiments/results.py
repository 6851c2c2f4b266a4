"""`results.csv`: one row a run, whatever became of it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from dxseg.data.table.dataset import Dataset
from dxseg.evaluation.runs import EvaluatedRun, is_evaluated, load_run
from dxseg.evaluation.summary import INTERVALS, MEANS
from dxseg.experiments.experiment import Experiment
from dxseg.experiments.plan import Job
from dxseg.io.atomic import sha256_file
from dxseg.training.run_record import STAGE1_RECORD, read_run

DONE, FAILED, MISSING = "done", "failed", "missing"
FIGURES = (*MEANS, "auroc_mask", "auroc_label", "ece_pixel", "ece_label")
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
CASES = ("train", "validation", "test", "train_masks", "validation_masks")
COST = (
    "parameters",
    "multiply_adds",
    "stage1_seconds",
    "stage2_seconds",
    "selftraining_seconds",
    "distillation_seconds",
    "inference_ms",
)
ENDS = tuple(f"{metric}_{end}" for metric in INTERVALS for end in ("low", "high"))
COLUMNS = (
    *("experiment", "dataset", "method", "recipe", "masks", "fold", "seed", "split"),
    *("status", "error", "added_later"),
    *FIGURES,
    *ENDS,
    *COUNTS,
    *(f"cases_{name}" for name in CASES),
    *COST,
    *("experiment_sha256", "dataset_sha256", "splits_sha256", "weights_sha256", "config_sha256"),
)

_PART = r"[^/\\\s:;,'\")]+"
_PATH = re.compile(rf"(?<![\w.-])(?:[A-Za-z]:)?(?:[/\\]{_PART})+[/\\]({_PART})")


@dataclass(frozen=True)
class RunResult:
    """What became of a run.

    Attributes:
        job: The run.
        error: Why it failed; "" if it did not.
        evaluated: Its evaluation, if it is finished.
        row: Of results.csv.
    """

    job: Job
    error: str
    evaluated: EvaluatedRun | None
    row: dict[str, Any]


@dataclass(frozen=True)
class Where:
    """Where the runs of an experiment are, and what they were made from.

    Attributes:
        runs: Folder of all jobs.
        dataset: Of the experiment.
        split: Which split was evaluated.
        experiment_sha256: Of the experiment file that was registered first.
        added: Names of the runs that were added to the experiment later.
    """

    runs: Path
    dataset: Dataset
    split: str
    experiment_sha256: str
    added: set[str]


def collect(
    experiment: Experiment,
    jobs: Sequence[Job],
    where: Where,
    failures: Mapping[str, str],
    costs: Mapping[str, Mapping[str, Any]],
) -> list[RunResult]:
    """Gather what there is of every run.

    Args:
        experiment: What was asked for.
        jobs: All of its jobs.
        where: Where they are.
        failures: Why jobs failed, by name.
        costs: By method: parameters, multiply_adds, inference_ms.

    Returns:
        One a run, in the order of the jobs.
    """
    recipes = {
        method.name: method.method
        if method.student_of is None
        else f"student of {method.student_of}"
        for method in experiment.methods
    }
    results = []
    for job in jobs:
        if job.is_stage1:
            continue
        assert job.method is not None
        folder = where.runs / job.name
        error = without_paths(failures.get(job.name, ""))
        evaluated = load_run(folder, where.split) if is_evaluated(folder, where.split) else None
        row: dict[str, Any] = dict.fromkeys(COLUMNS)
        row |= {
            "experiment": experiment.name,
            "dataset": where.dataset.spec.name,
            "method": job.method,
            "recipe": recipes[job.method],
            "masks": job.masks,
            "fold": job.part.number,
            "seed": job.part.seed,
            "split": where.split,
            "status": FAILED if error else MISSING,
            "error": error,
            "added_later": job.name in where.added,
            "experiment_sha256": where.experiment_sha256,
        }
        if evaluated is not None:
            row |= {"status": DONE, "error": ""} | _figures(evaluated) | _record(job, where)
            row |= costs.get(job.method, {})
        results.append(RunResult(job, error, evaluated, row))
    return results


def results_table(results: Sequence[RunResult]) -> pd.DataFrame:
    """The rows as a table: numbers are numbers, and whole ones whole, where others are missing."""
    table = pd.DataFrame([result.row for result in results], columns=list(COLUMNS))
    whole = [*COUNTS, *(f"cases_{name}" for name in CASES), "parameters", "multiply_adds", "fold"]
    real = [name for name in (*FIGURES, *ENDS, *COST) if name not in whole]
    return table.astype(dict.fromkeys(whole, "Int64") | dict.fromkeys(real, "float64"))


def without_paths(text: str) -> str:
    """An error without the folders of this machine: of every path only the last name is left."""
    return _PATH.sub(r"\1", text)


def _figures(evaluated: EvaluatedRun) -> dict[str, Any]:
    summary = evaluated.summary
    ends = {
        f"{metric}_{end}": value
        for metric in INTERVALS
        for end, value in zip(("low", "high"), summary[f"{metric}_ci"], strict=True)
    }
    counts = {name: summary["counts"][name] for name in COUNTS}
    digests = {name: summary[name] for name in ("splits_sha256", "weights_sha256")}
    return {name: summary[name] for name in FIGURES} | ends | counts | digests


def _record(job: Job, where: Where) -> dict[str, Any]:
    folder = where.runs / job.name
    record = read_run(folder)
    row = {f"cases_{name}": record["cases"].get(name, 0) for name in CASES}
    row["parameters"] = record["parameters"]
    row |= _training_seconds(record, where)
    row["dataset_sha256"] = record["dataset_digest"]
    row["config_sha256"] = sha256_file(folder / "config.yaml")
    return row


def _training_seconds(record: dict[str, Any], where: Where) -> dict[str, float]:
    """How long each stage took, also where it was that of a run that this one goes on from."""
    taught = record.get("distilled_from")
    if taught is not None:
        own = record["seconds"]
        teacher = _training_seconds(read_run(_moved(taught["run"], where)), where)
        return teacher | {"distillation_seconds": own["teacher"] + own["stage2"]}
    taken = record["stage2_from"]
    before = record if taken is None else read_run(_moved(taken, where))
    row = {
        "stage2_seconds": before["seconds"]["stage2"],
        "selftraining_seconds": record["seconds"]["self_training"],
    }
    if before["stage1_from"] is not None:
        file = _moved(before["stage1_from"], where) / "stage1" / STAGE1_RECORD
        row["stage1_seconds"] = json.loads(file.read_text(encoding="utf-8"))["metrics"]["seconds"]
    return row


def _moved(folder: str, where: Where) -> Path:
    """A run of the experiment by its name: the experiment's folder may have been moved."""
    return where.runs.joinpath(*Path(folder).parts[-3:])

"""`report.html`: one self-contained page about a run, without scripts and without identifiers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dxseg.config.presets import read_config
from dxseg.config.schema import RunConfig
from dxseg.data.table.dataset import Dataset
from dxseg.errors import DxsegError
from dxseg.evaluation.compare import compare_runs
from dxseg.evaluation.runs import load_run
from dxseg.io.atomic import write_text_atomic
from dxseg.reports.gallery import RULE, draw_gallery, select_cases
from dxseg.reports.metric_columns import (
    IMAGE_METRICS,
    MASK_METRICS,
    MISSING,
    MetricColumn,
    format_interval,
    format_number,
)
from dxseg.reports.page import png_uri, render
from dxseg.reports.plots import read_metrics, score_distribution, training_curves
from dxseg.training.run_record import read_run

REPORT_FILE = "report.html"
_GALLERY_COUNT = 3


_COMPARED = {
    "dice_lesion": "Dice, lesion images",
    "dice_all": "Dice, all images",
    "false_positive_rate": "False-positive rate",
}


@dataclass(frozen=True)
class _Run:
    path: Path
    name: str
    record: dict[str, Any]
    evaluation: dict[str, Any]
    table: pd.DataFrame


def build_report(run: Path, *, compared: Sequence[Path] = (), dataset: Path | None = None) -> Path:
    """Write `report.html` into a run folder.

    Case ids and file paths are left out: they can identify patients.

    Args:
        run: A run that has been trained and evaluated on its test split.
        compared: Other evaluated runs on the same test cases (controls, other seeds).
        dataset: Folder of the dataset; default: that in `run.json`.

    Returns:
        Path of the page.

    Raises:
        DxsegError: A run is not evaluated, is not comparable, or the dataset or the model cannot
            be read.
    """
    run = Path(run)
    runs = [_load(Path(path)) for path in (run, *compared)]
    main = runs[0]
    data = Dataset.load(dataset or main.record["dataset"])
    units = {k: str(v).replace("mm2", "mm²") for k, v in main.evaluation["units"].items()}
    context = {
        "title": f"dxseg report: {main.name}",
        "dataset": data.spec.name,
        "phantom": "phantom" in data.spec.provenance.casefold(),
        "finished": str(main.record.get("finished", ""))[:10],
        "summary": _summary(main.evaluation),
        "tables": [
            _results("Masks", MASK_METRICS, runs, units),
            _results("Images and calibration", IMAGE_METRICS, runs, units),
        ],
        "differences": _differences(runs),
        "reference": str(main.record["method"]),
        "distribution": png_uri(score_distribution(_dice_of(runs), "Dice on lesion images")),
        "curves": png_uri(_curves(run)),
        "gallery": _gallery(main, data, units.get("area", "px")),
        "gallery_rule": RULE.format(count=_GALLERY_COUNT),
        "protocol": _protocol(main, data, read_config(run / "config.yaml")),
        "seeds": len({item.record["seed"] for item in runs}),
    }
    write_text_atomic(run / REPORT_FILE, render("reports/report.html.jinja", context))
    return run / REPORT_FILE


def _load(path: Path) -> _Run:
    loaded = load_run(path)
    evaluation = json.loads((path / "evaluation.json").read_text(encoding="utf-8"))
    if not isinstance(evaluation.get("counts"), dict):
        raise DxsegError(f"{path / 'evaluation.json'}: has no counts; run `dxseg evaluate` again")
    name = f"{loaded.method}, seed {loaded.seed}"
    return _Run(path, name, read_run(path), evaluation, loaded.table)


def _summary(evaluation: dict[str, Any]) -> str:
    counts = evaluation["counts"]
    text = (
        f"{counts['images']} test images, {counts['lesion_images']} with a lesion and "
        f"{counts['lesion_free_images']} without, in {counts['groups']} groups. "
    )
    score = format_number(evaluation.get("dice_lesion"), 3)
    between = format_interval(evaluation.get("dice_lesion_ci"), 3)
    text += (
        f"Mean Dice on lesion images: {score}{f' (95% interval {between})' if between else ''}. "
    )
    missed = counts.get("missed_lesion_images", 0)
    text += f"{missed} lesion image{'' if missed == 1 else 's'} without any prediction."
    return text


def _results(
    title: str, metrics: Sequence[MetricColumn], runs: Sequence[_Run], units: dict[str, Any]
) -> dict[str, Any]:
    shown = [m for m in metrics if any(run.evaluation.get(m.key) is not None for run in runs)]
    columns = [
        {"title": m.title.format_map(units), "description": m.description, "better": m.better}
        for m in shown
    ]
    rows = []
    for run in runs:
        cells = [
            (
                format_number(run.evaluation.get(m.key), m.decimals),
                format_interval(run.evaluation.get(f"{m.key}_ci"), m.decimals),
            )
            for m in shown
        ]
        rows.append({"name": run.name, "cells": cells})
    return {"title": title, "columns": columns, "rows": rows}


def _differences(runs: Sequence[_Run]) -> list[dict[str, str]]:
    """Differences of this run's method from each other method, paired by case."""
    if len({run.record["method"] for run in runs}) < 2:
        return []
    reference = str(runs[0].record["method"])
    table = compare_runs([run.path for run in runs], reference=reference).differences
    return [
        {
            "method": str(row["method"]),
            "metric": _COMPARED[row["metric"]],
            # The comparison is "other minus reference"; the report is about the reference.
            "difference": _signed(-row["difference"]),
            "interval": f"{_signed(-row['high'])} to {_signed(-row['low'])}",
            "p": f"{row['p_holm']:.4f}",
        }
        for row in table.to_dict("records")
        if row["metric"] in _COMPARED and np.isfinite(row["difference"])
    ]


def _dice_of(runs: Sequence[_Run]) -> dict[str, Any]:
    return {run.name: run.table.loc[run.table["true_area"] > 0, "dice"].to_numpy() for run in runs}


def _curves(run: Path) -> bytes:
    stages = {
        "Stage 1, image-level labels": "stage1",
        "Stage 2, masks": "stage2",
        "Self-training": "self_training",
    }
    return training_curves(
        {title: read_metrics(run / folder / "metrics.csv") for title, folder in stages.items()}
    )


def _gallery(run: _Run, data: Dataset, area_unit: str) -> list[dict[str, Any]]:
    cases = select_cases(run.table, _GALLERY_COUNT)
    drawn = draw_gallery(cases, data, run.path / "model", area_unit)
    return [
        {
            "title": title,
            "pictures": [(png_uri(p.png), p.caption, p.alt) for p in pictures],
        }
        for title, pictures in drawn.items()
    ]


def _protocol(run: _Run, data: Dataset, config: RunConfig) -> list[tuple[str, str]]:
    record, evaluation, model = run.record, run.evaluation, config.model
    cases, seconds = record.get("cases", {}), record.get("seconds", {})
    splits = [f"{cases[name]} {name}" for name in ("train", "validation", "test") if name in cases]
    if cases.get("dropped"):
        splits.append(f"{cases['dropped']} dropped (near-duplicates with contradicting labels)")
    skips = [name for name, used in model.skips.model_dump().items() if used]
    rows = [
        (
            "Dataset",
            f"{data.spec.name}; {data.spec.modality}; labels {', '.join(data.spec.labels)}",
        ),
        ("Provenance", data.spec.provenance),
        ("Images", ", ".join(splits)),
        ("Masks used in training", str(cases.get("train_masks", MISSING))),
        ("Masks used in validation", str(cases.get("validation_masks", MISSING))),
        ("Means over", f"{evaluation['averaged_by']}s; intervals resample patients or groups"),
        ("Network", f"{model.architecture} on {model.backbone}, {config.data.image_size} px"),
        ("Skips", ", ".join(skips).replace("_", " ") if model.architecture == "sks" else ""),
        ("Parameters", f"{record['parameters']:,}" if "parameters" in record else ""),
        ("Length of training", _training_length(config)),
        ("Training time", ", ".join(f"{key}: {value:.0f} s" for key, value in seconds.items())),
        ("Seed", f"{config.seed}; of the split: {config.split.split_seed}"),
        ("Threshold", str(evaluation.get("threshold", ""))),
        ("Weights (SHA-256)", str(evaluation.get("weights_sha256", ""))[:16]),
        ("Dataset (SHA-256)", str(record.get("dataset_digest", ""))[:16]),
        ("Versions", ", ".join(f"{k} {v}" for k, v in record.get("versions", {}).items())),
    ]
    return [(key, value) for key, value in rows if value]


def _training_length(config: RunConfig) -> str:
    stage1, self_training = config.stage1, config.self_training
    length = f"{stage1.steps} steps" if stage1.steps else f"{stage1.epochs:g} epochs of the labels"
    parts = [f"{length} in stage 1" if config.model.requires_stage1 else "no stage 1"]
    parts.append(f"{config.stage2.steps} steps in stage 2")
    if self_training is not None:
        parts.append(f"{self_training.steps} steps in self-training")
    return f"{', '.join(parts)}; batches of {config.data.batch_size}"


def _signed(value: float) -> str:
    # Adding zero turns a rounded -0.0 into 0.0.
    return f"{round(value, 3) + 0.0:+.3f}"

"""`report.html`: one self-contained page about a run, without scripts and without identifiers.

It answers in this order: can I trust it, what does it look like, how good is it, where does it
fail, and what exactly was done.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dxseg.config import stage_title
from dxseg.config.presets import read_config
from dxseg.data.table.dataset import Dataset
from dxseg.errors import DxsegError
from dxseg.evaluation.compare import compare_runs
from dxseg.evaluation.runs import load_run
from dxseg.evaluation.summary import ENDPOINTS, values_of, weighting
from dxseg.io.atomic import write_text_atomic
from dxseg.metrics.statistics import bootstrap_mean
from dxseg.reports.breakdown import SmallTable, by_label, by_size, calibration, decisions
from dxseg.reports.gallery import RULE, draw_gallery, select_cases
from dxseg.reports.metric_columns import (
    FALSE_POSITIVE_RATE,
    IMAGE_METRICS,
    MASK_METRICS,
    MISSING,
    VOLUME_METRICS,
    MetricColumn,
    format_interval,
    format_number,
)
from dxseg.reports.page import png_uri, render
from dxseg.reports.plots import read_metrics, score_distribution, training_curves
from dxseg.reports.protocol import protocol
from dxseg.reports.verdict import Difference, Evidence, headline, sentences
from dxseg.training.run_record import read_run

REPORT_FILE = "report.html"
_GALLERY_COUNT = 3

_COLUMNS = {m.key: m for m in (*VOLUME_METRICS, *MASK_METRICS, *IMAGE_METRICS, FALSE_POSITIVE_RATE)}
_FIRST = (*ENDPOINTS, "lesion_sensitivity")
"""The figures that a reader needs first."""


@dataclass(frozen=True)
class _Run:
    path: Path
    name: str
    record: dict[str, Any]
    evaluation: dict[str, Any]
    table: pd.DataFrame


def build_report(
    run: Path, *, compared: Sequence[Path] = (), dataset: str | Path | None = None
) -> Path:
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
    area = units.get("area", "px")
    differences = _differences(runs, units)
    evidence = _evidence(runs, differences)
    config = read_config(run / "config.yaml")
    context = {
        "title": f"dxseg report: {main.name}",
        "dataset": data.spec.name,
        "phantom": "phantom" in data.spec.provenance.casefold(),
        "finished": str(main.record.get("finished", ""))[:10],
        "headline": headline(evidence),
        "points": sentences(evidence),
        "summary": _summary(main.evaluation),
        "short": _short(runs, differences),
        "distribution": png_uri(score_distribution(_dice_of(runs), "Dice on lesion images")),
        "gallery": _gallery(main, data, area),
        "gallery_rule": RULE.format(count=_GALLERY_COUNT),
        "failures": [by_size(main.table, area), by_label(main.table)],
        "decisions": decisions({run.name: run.table for run in runs}),
        "thresholds": _thresholds(main.record),
        "decided_alike": len({_thresholds(run.record) for run in runs}) == 1,
        "calibration": calibration(main.table),
        "tables": [
            *_volumes(runs, units),
            _results("Masks, by image", MASK_METRICS, runs, units),
            _results("Images and calibration", IMAGE_METRICS, runs, units),
        ],
        "differences": differences,
        "reference": str(main.record["method"]),
        "curves": png_uri(_curves(run, ["stage1", *config.stages])),
        "protocol": protocol(main.record, main.evaluation, data.spec, config),
    }
    write_text_atomic(run / REPORT_FILE, render("reports/report.html.jinja", context))
    return run / REPORT_FILE


def _load(path: Path) -> _Run:
    loaded = load_run(path)
    evaluation = loaded.summary
    if not isinstance(evaluation.get("counts"), dict):
        raise DxsegError(f"{path / 'evaluation.json'}: has no counts; run `dxseg evaluate` again")
    name = f"{loaded.method}, seed {loaded.seed}"
    return _Run(path, name, read_run(path), evaluation, loaded.table)


def _summary(evaluation: dict[str, Any]) -> str:
    counts = evaluation["counts"]
    score = format_number(evaluation.get("dice_lesion"), 3)
    between = format_interval(evaluation.get("dice_lesion_ci"), 3)
    text = f"Mean Dice on lesion images: {score}{f' (95% interval {between})' if between else ''}. "
    missed = counts.get("missed_lesion_images", 0)
    text += f"{missed} lesion image{'' if missed == 1 else 's'} without any prediction."
    return text


def _volumes(runs: Sequence[_Run], units: dict[str, Any]) -> list[dict[str, Any]]:
    """The table of volumes, where a run has some."""
    table = _results("Volumes, in three dimensions", VOLUME_METRICS, runs, units)
    return [table] if table["columns"] else []


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


def _differences(runs: Sequence[_Run], units: dict[str, Any]) -> list[Difference]:
    """Differences of this run's method from each other method, paired by case."""
    if len({run.record["method"] for run in runs}) < 2:
        return []
    reference = str(runs[0].record["method"])
    table = compare_runs([run.path for run in runs], reference=reference).differences
    return [
        Difference(
            method=str(row["method"]),
            title=_COLUMNS[row["metric"]].title.format_map(units),
            better=_COLUMNS[row["metric"]].better,
            # The comparison is "other minus reference"; the report is about the reference.
            value=-row["difference"],
            low=-row["high"],
            high=-row["low"],
        )
        for row in table.to_dict("records")
        if row["metric"] in _COLUMNS and np.isfinite(row["difference"])
    ]


def _evidence(runs: Sequence[_Run], differences: Sequence[Difference]) -> Evidence:
    main = runs[0]
    lesion = main.table[main.table["true_area"] > 0]
    cases, method = main.record.get("cases", {}), main.record["method"]
    return Evidence(
        train_masks=cases.get("train_masks"),
        validation_masks=cases.get("validation_masks"),
        lesion_images=len(lesion),
        lesion_free_images=int(main.table["lesion_free"].astype(bool).sum()),
        lesion_groups=int(lesion["group"].nunique()),
        seeds=len({run.record["seed"] for run in runs if run.record["method"] == method}),
        differences=differences,
    )


def _short(runs: Sequence[_Run], differences: Sequence[Difference]) -> SmallTable:
    """The figures of `_FIRST` of each run, and by how much this run's method differs."""
    columns = [_COLUMNS[key] for key in _FIRST]
    header = ["Run"]
    for column in columns:
        header += [column.title, "This method minus it"]
    rows = []
    for run in runs:
        row = [run.name]
        for column in columns:
            own = (d for d in differences if d.method == run.record["method"])
            found = next((d for d in own if d.title == column.title), None)
            row += [_with_interval(run, column.key), _difference(found)]
        rows.append(row)
    return SmallTable("Dice and lesions found, with 95% intervals", header, rows)


def _with_interval(run: _Run, key: str) -> str:
    average_by = run.evaluation["averaged_by"]
    mean = bootstrap_mean(
        values_of(run.table, key), run.table["group"], weighting=weighting(average_by)
    )
    between = format_interval([mean.low, mean.high], 3) if np.isfinite(mean.low) else ""
    return f"{format_number(mean.mean, 3)}{f' ({between})' if between else ''}"


def _difference(difference: Difference | None) -> str:
    return MISSING if difference is None else f"{difference.figures}: {difference.words}"


def _thresholds(record: dict[str, Any]) -> str:
    named = {
        "rule-out": record.get("rule_out_threshold"),
        "rule-in": record.get("rule_in_threshold"),
    }
    used = [f"{name} threshold {value:.2f}" for name, value in named.items() if value is not None]
    return ", ".join(used)


def _dice_of(runs: Sequence[_Run]) -> dict[str, Any]:
    return {run.name: run.table.loc[run.table["true_area"] > 0, "dice"].to_numpy() for run in runs}


def _curves(run: Path, stages: Sequence[str]) -> bytes:
    return training_curves(
        {stage_title(name): read_metrics(run / name / "metrics.csv") for name in stages}
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

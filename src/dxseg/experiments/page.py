"""`report.html` of an experiment: its tables, curves and protocol on one page.

Not in `dxseg.reports`, which is about one run and which experiments build on.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from dxseg.data.table.dataset import Dataset
from dxseg.evaluation.compare import signed_interval
from dxseg.experiments.aggregate import select_complete
from dxseg.experiments.experiment import Experiment
from dxseg.experiments.preregistration import Registration
from dxseg.experiments.results import DONE, budget_unit, strip_paths
from dxseg.io.atomic import write_text_atomic
from dxseg.reports.metric_columns import MISSING
from dxseg.reports.page import png_uri, render
from dxseg.reports.plots import efficiency_curves
from dxseg.reports.tables import Table


def draw_curves(experiment: Experiment, curves: pd.DataFrame, unit: str) -> bytes:
    """Plot the label-efficiency curves.

    Points on fewer images than others are left out.

    Args:
        experiment: The experiment.
        curves: curves.csv.
        unit: What budgets count.

    Returns:
        PNG bytes; empty with a single budget.
    """
    lines = {}
    complete = select_complete(curves)
    for method in experiment.methods:
        own = complete[complete["method"] == method.name]
        if len(own) > 1:
            lines[method.name] = pd.DataFrame(
                {
                    "masks": own["train_masks"],
                    "value": own["dice_lesion"],
                    "low": own["dice_lesion_low"],
                    "high": own["dice_lesion_high"],
                }
            ).sort_values("masks")
    return efficiency_curves(lines, "Dice on lesion images (band: 95% interval)", unit)


def write_experiment_page(
    path: Path,
    experiment: Experiment,
    dataset: Dataset,
    registration: Registration,
    tables: Sequence[Table],
    results: pd.DataFrame,
    differences: pd.DataFrame,
    plot: bytes,
) -> None:
    """Write the page, which contains no case ids and no paths of the machine.

    Args:
        path: The file, replaced atomically.
        experiment: The experiment.
        dataset: Its dataset.
        registration: What was registered.
        tables: The tables to show.
        results: results.csv.
        differences: differences.csv.
        plot: The curves as PNG; may be empty.
    """
    versions = registration.versions
    context = {
        "title": f"dxseg experiment: {experiment.name}",
        "dataset": dataset.spec.name,
        "registered": str(versions[0]["at"])[:10],
        "phantom": "phantom" in dataset.spec.provenance.casefold(),
        "validation": bool((results["split"] != "test").any()),
        "tables": tables,
        "plot": png_uri(plot),
        "differences": _rows(differences),
        "reference": experiment.reference,
        "unit": budget_unit(results),
        "protocol": _protocol(experiment, dataset, registration, results),
        "text": strip_paths(str(versions[-1]["text"])),
    }
    write_text_atomic(path, render("experiments/experiment.html.jinja", context))


def _rows(differences: pd.DataFrame) -> list[dict[str, Any]]:
    shown = differences[(differences["kind"] == "reference") & differences["difference"].notna()]
    return [
        {
            **{name: row[name] for name in ("method", "masks", "metric", "images")},
            "difference": f"{row['difference']:+.3f}",
            "interval": signed_interval(row) or MISSING,
            "p": MISSING if pd.isna(row["p_holm"]) else f"{row['p_holm']:.4f}",
        }
        for row in shown.to_dict("records")
    ]


def _protocol(
    experiment: Experiment, dataset: Dataset, registration: Registration, results: pd.DataFrame
) -> list[tuple[str, str]]:
    if experiment.folds is not None:
        splits = (
            f"grouped cross-validation, {experiment.folds} folds; "
            f"{experiment.validation_fraction:.3g} of the other cases for validation; "
            f"draws of masks and seeds per fold: {experiment.draws}"
        )
    else:
        splits = f"one split, seeds {', '.join(map(str, experiment.seeds or ()))}"
    counts = results["status"].value_counts()
    return [
        ("Dataset", f"{dataset.spec.name}; labels {', '.join(dataset.spec.labels)}"),
        ("Provenance", dataset.spec.provenance or "not given"),
        ("Splits", splits),
        (f"Training {budget_unit(results)}", ", ".join(str(masks) for masks in experiment.masks)),
        ("Preset", experiment.preset),
        ("Primary method", experiment.primary or "none named"),
        ("Runs", ", ".join(f"{count} {status}" for status, count in counts.items())),
        ("Finished", f"{int((results['status'] == DONE).sum())} of {len(results)}"),
        ("Registered", f"{registration.versions[0]['at']}, SHA-256 {registration.sha256}"),
        (
            "Added later",
            "; ".join(
                f"{version['at']}: {len(version['added'])} runs (SHA-256 {version['sha256'][:16]})"
                for version in registration.versions[1:]
            )
            or "nothing",
        ),
        ("Dataset (SHA-256)", registration.dataset_digest),
    ]

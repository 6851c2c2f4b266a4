"""The demo: phantoms, both stages, a control, an evaluation and a report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from dxseg.config import DEFAULT_METHOD
from dxseg.config.presets import load_config
from dxseg.data.table.dataset import Dataset
from dxseg.errors import DxsegError
from dxseg.evaluation.compare import Comparison, compare_runs
from dxseg.evaluation.evaluate import evaluate_run
from dxseg.io.progress import reporting
from dxseg.phantoms.ultrasound import make_phantoms
from dxseg.reports.html import build_report
from dxseg.training.run import train_run

MASKS = 24
"""Training masks of the demo."""

METHODS = (DEFAULT_METHOD, "unet")
"""The method, and the control C1: the same backbone and batches, masks only."""

OVERRIDES: dict[str, Any] = {
    "split": {"masks": MASKS, "validation_masks": 8},
    "stage1": {"steps": 120, "steps_per_epoch": 20, "warmup_steps": 15},
    "stage2": {"steps": 120, "steps_per_epoch": 20, "warmup_steps": 15},
    "self_training": {"steps": 80, "steps_per_epoch": 20, "warmup_steps": 15},
}
"""Shorter stages than the preset's, the same for both methods as far as they have them, so that the
demo takes minutes."""


@dataclass(frozen=True)
class DemoResult:
    """Where the demo's results are.

    Attributes:
        report: the page to open.
        runs: the folders of the runs, by method.
        comparison: both methods on the same test images.
    """

    report: Path
    runs: dict[str, Path]
    comparison: Comparison


def demo(
    output: str | Path = "dxseg-demo",
    *,
    images: int = 300,
    seed: int = 0,
    overrides: dict[str, Any] | None = None,
    console: Console | None = None,
) -> DemoResult:
    """Train the method and its control on ultrasound phantoms, and report.

    Phantoms are simulated: what is learnt on them says nothing about patients.

    Args:
        output: folder for the phantoms and the runs; an interrupted demo is continued there.
        images: how many phantoms.
        seed: of phantoms, masks and networks.
        overrides: values of the configuration instead of :data:`OVERRIDES`.
        console: where progress is drawn.

    Raises:
        DxsegError: the folder holds something else.
    """
    folder = Path(output)
    console = console or Console(stderr=True)
    dataset = folder / "phantoms"
    if not (dataset / "dataset.yaml").is_file():
        make_phantoms(dataset, images=images, size=128, seed=seed)
    elif len(Dataset.load(dataset)) != images:
        raise DxsegError(
            f"{dataset}: holds {len(Dataset.load(dataset))} phantoms, {images} are wanted; choose "
            "another folder, or remove this one"
        )
    runs = {method: folder / method for method in METHODS}
    for method, run in runs.items():
        changes = (overrides or OVERRIDES) | {"seed": seed}
        if load_config("cpu", method).self_training is None:
            changes.pop("self_training", None)
        config = load_config("cpu", method, changes)
        train_run(dataset, run, config, console=console)
        if not (run / "evaluation.json").is_file():
            with reporting(console, f"Evaluating {method}") as progress:
                evaluate_run(run, progress=progress)
    treated, *controls = runs.values()
    comparison = compare_runs(list(runs.values()), reference="unet")
    report = build_report(treated, compared=controls)
    return DemoResult(report, runs, comparison)

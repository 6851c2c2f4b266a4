"""The demo: phantoms, both stages, a control, an evaluation and a report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from dxseg.commands.options import OutputPath, Overrides

if TYPE_CHECKING:
    from dxseg.evaluation.compare import Comparison

MASKS = 24
"""Training masks of the demo."""

METHODS = ("sks-selftrained", "unet")
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
        report: The page to open.
        runs: The folders of the runs, by method.
        comparison: Both methods on the same test images.
    """

    report: Path
    runs: dict[str, Path]
    comparison: Comparison

    def __rich__(self) -> Group:
        methods = self.comparison.methods
        # A terminal is too narrow for one column per figure.
        table = Table("", *methods["method"], title="Test phantoms")
        for figure in methods.columns.drop(["method", "seeds"]):
            if not figure.endswith("_sd") and methods[figure].notna().any():
                table.add_row(figure, *[f"{value:.3f}" for value in methods[figure]])
        return Group(table, Text(f"Report: {self.report}"))


def demo(
    *,
    output: OutputPath = "dxseg-demo",
    images: int = 300,
    seed: int = 0,
    overrides: Overrides | None = None,
) -> DemoResult:
    """Train the method and its control on ultrasound phantoms, and write a report.

    Phantoms are simulated: results on them are not evidence about patients. The same command
    continues an interrupted demo.

    Args:
        output: Folder for phantoms and runs.
        images: Number of phantoms.
        seed: Random seed for phantoms, mask selection and initialisation.
        overrides: Value of the configuration, such as `stage2.steps=600`; replaces the demo's
            short training. May be repeated. In Python a nested dictionary.

    Raises:
        DxsegError: The folder has other files.
    """
    from dxseg.config.presets import load_config
    from dxseg.data.table.dataset import Dataset
    from dxseg.errors import DxsegError
    from dxseg.evaluation.compare import compare_runs
    from dxseg.evaluation.evaluate import evaluate_run, open_run
    from dxseg.io.progress import console, reporting
    from dxseg.phantoms.ultrasound import make_phantoms
    from dxseg.reports.html import build_report
    from dxseg.training.run import train_run

    console.print(
        f"Phantoms: simulated ultrasound, no patients. Two methods learn from {MASKS} masks; the "
        "method also from the labels of all training images.",
    )
    folder = Path(output)
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
        changes = dict(overrides or OVERRIDES) | {"seed": seed}
        if load_config("cpu", method).self_training is None:
            changes.pop("self_training", None)
        train_run(dataset, run, load_config("cpu", method, changes))
        if not (run / "evaluation.json").is_file():
            with reporting(console, f"Evaluating {method}") as progress:
                evaluate_run(run, *open_run(run), progress=progress)
    treated, *controls = runs.values()
    comparison = compare_runs(list(runs.values()), reference="unet")
    return DemoResult(build_report(treated, compared=controls), runs, comparison)

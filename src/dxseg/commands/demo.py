"""The demo: phantoms, both stages, a control, an evaluation and a report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from dxseg.commands.options import OutputPath, Overrides

if TYPE_CHECKING:
    from dxseg.config.schema import RunConfig
    from dxseg.evaluation.compare import Comparison

MASKS = 12
"""Training masks of the demo."""

SIZE = 64
"""Height and width of the phantoms in pixels."""

CYSTS = 0.5
"""Simple cysts in an image: what a few masks do not tell from lesions, and many labels do."""

METHODS = ("sks-selftrained", "unet")
"""The paper's skips with self-training, and the control C1: the same backbone, masks and batches,
and no labels. Not the default: its student needs more steps than a demo has, see
docs/explanation/phantoms.md."""

OVERRIDES: dict[str, Any] = {
    "data": {"image_size": SIZE, "batch_size": 8},
    "split": {"masks": MASKS, "validation_masks": 8, "fractions": [0.5, 0.1, 0.4]},
    "stage1": {"steps": 240, "steps_per_epoch": 80, "warmup_steps": 15},
    "stage2": {"steps": 150, "steps_per_epoch": 50, "warmup_steps": 15},
    "self_training": {"steps": 60, "steps_per_epoch": 30, "warmup_steps": 10},
}
"""Small images and short stages, the same for both methods as far as they have them, so that the
demo takes minutes."""

NEXT = (
    "dxseg import folder IMAGES data/mine --lesion-free LABEL",
    "dxseg check data/mine",
    "dxseg train data/mine --out runs/mine --masks 35",
)
"""Commands for images of one's own."""


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
        commands = "\n".join(f"  {command}" for command in NEXT)
        return Group(
            table,
            Text(f"\n{self.words}\n"),
            Text(f"Report, to open in a browser: {self.report}"),
            Text(f"\nWith images of your own:\n{commands}"),
        )

    @property
    def words(self) -> str:
        """What the comparison shows, and what it does not show, in plain words."""
        method, control = METHODS
        dice = self.comparison.methods.set_index("method")["dice_lesion"]
        differences = {row["metric"]: row for row in self.comparison.differences.to_dict("records")}
        found, known = differences["dice_lesion"], differences["dice_lesion_known"]
        verdict = "more than chance" if found["low"] > 0 else "so it may be chance"
        return (
            f"On {found['images']} phantoms with a lesion that took no part in training, the masks "
            f"of {method} overlap the true ones by {dice[method]:.2f} (Dice, 1 is perfect), those "
            f"of {control} by {dice[control]:.2f}. Both learned from the same {MASKS} masks; "
            f"{method} also learned from the labels of all training images. The difference is "
            f"{_interval(found)}: {verdict}. Where both are given the label, that there is a "
            f"lesion, it is {_interval(known)}.\n"
            "These are phantoms, made so that labels matter, and one training. What labels are "
            "worth on your images has to be measured on your images."
        )


def _interval(row: Mapping[Any, Any]) -> str:
    return f"{row['difference']:+.2f} (95% interval {row['low']:+.2f} to {row['high']:+.2f})"


def demo(
    *,
    output: OutputPath = "dxseg-demo",
    images: int = 500,
    seed: int = 0,
    overrides: Overrides | None = None,
) -> DemoResult:
    """Train two methods on ultrasound phantoms, with and without labels, and write a report.

    Phantoms are simulated: results on them are not evidence about patients. The same command
    continues an interrupted demo.

    Args:
        output: Folder for phantoms and runs.
        images: Number of phantoms.
        seed: Random seed for phantoms, mask selection and initialization.
        overrides: Value of the configuration, such as `stage2.steps=600`; replaces the demo's
            short training. May be repeated. In Python a nested dictionary.

    Raises:
        DxsegError: The folder has other files.
    """
    from dxseg.data.table.dataset import Dataset
    from dxseg.errors import DxsegError
    from dxseg.evaluation.compare import compare_runs
    from dxseg.evaluation.evaluate import evaluate_run, open_run
    from dxseg.io.progress import console, reporting
    from dxseg.phantoms.ultrasound import make_phantoms
    from dxseg.reports.html import build_report
    from dxseg.training.run import train_run

    configs = {method: method_config(method, overrides, seed) for method in METHODS}
    parts = len(configs) + 2
    console.print(
        "Phantoms: simulated ultrasound, no patients. Two methods learn from the same few masks; "
        f"{METHODS[0]} also from the labels of all training images.\n"
        f"Part 1 of {parts}: {images} phantoms"
    )
    folder = Path(output)
    dataset = folder / "phantoms"
    if not (dataset / "dataset.yaml").is_file():
        make_phantoms(dataset, images=images, size=SIZE, seed=seed, cysts=CYSTS)
    elif len(Dataset.load(dataset)) != images:
        raise DxsegError(
            f"{dataset}: holds {len(Dataset.load(dataset))} phantoms, {images} are wanted; choose "
            "another folder, or remove this one"
        )
    runs = {method: folder / method for method in METHODS}
    for part, (method, config) in enumerate(configs.items(), 2):
        stages = ["stage1", *config.stages] if config.model.requires_stage1 else config.stages
        console.print(f"Part {part} of {parts}: {method} ({', '.join(stages)}, evaluation)")
        run = runs[method]
        train_run(dataset, run, config)
        if not (run / "evaluation.json").is_file():
            with reporting(console, f"Evaluating {method}") as progress:
                evaluate_run(run, *open_run(run), progress=progress)
    console.print(f"Part {parts} of {parts}: comparison and report")
    treated, *controls = runs.values()
    comparison = compare_runs(list(runs.values()), reference="unet")
    return DemoResult(build_report(treated, compared=controls), runs, comparison)


def method_config(
    method: str, overrides: Mapping[str, Any] | None = None, seed: int = 0
) -> RunConfig:
    """The configuration of a method, with the overrides of the stages that it has."""
    from dxseg.config.presets import load_config

    changes = dict(overrides or OVERRIDES) | {"seed": seed}
    plain = load_config("cpu", method)
    for stage in ("self_training", "student"):
        if getattr(plain, stage) is None:
            changes.pop(stage, None)
    return load_config("cpu", method, changes)

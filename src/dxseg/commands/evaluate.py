"""Commands that evaluate runs: evaluate, compare, report, reproduce."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from dxseg.commands.options import Backend, OutputPath, SlidingWindow, Split, StrPath, StrPaths
from dxseg.commands.results import EvaluationSummary, Report
from dxseg.errors import UsageError

if TYPE_CHECKING:
    from dxseg.evaluation.compare import Comparison
    from dxseg.evaluation.reproduce import Reproduction
else:
    Comparison = Reproduction = Any


def evaluate(
    run: StrPath,
    *,
    output: OutputPath | None = None,
    split: Split = "test",
    label_prompts: bool = False,
    dataset: StrPath | None = None,
    model: StrPath | None = None,
    device: str = "cpu",
    batch_size: int = 8,
    backend: Backend | None = None,
    sliding_window: SlidingWindow = None,
) -> EvaluationSummary:
    """Evaluate a run at native resolution; writes `evaluation.json` and tables per image.

    Args:
        run: Folder of a finished run.
        output: Folder for the results; default: the run.
        split: Which cases.
        label_prompts: Use the true image-level labels as label prompts; the files end in
            `_label_prompts`.
        dataset: Folder of the dataset, if it has moved since.
        model: An exported `.onnx` file, or a model folder such as the teacher's `stage2/model`, to
            evaluate in place of the run's model; needs `--out` (`output`).
        device: Torch device: `cpu`, `cuda`, `cuda:1`, ...
        batch_size: Batch size.
        backend: Inference backend; default: `torch` for a folder, `onnxruntime` for `.onnx`.
        sliding_window: Evaluate with or without windows, as in `dxseg predict`, whatever the model
            records; needs `--out` (`output`).

    Returns:
        The content of `evaluation.json`.

    Raises:
        UsageError: `model` or `sliding_window` is given without another folder for the results.
        DxsegError: The run is not finished, the model does not fit the dataset, or a file cannot
            be read.
    """
    from dxseg.evaluation.evaluate import evaluate_run, open_run
    from dxseg.io.progress import console, reporting

    folder = Path(run)
    other = model is not None or sliding_window is not None
    if other and (output is None or Path(output).resolve() == folder.resolve()):
        raise UsageError(
            f"{run}: its evaluation must not be replaced by that of another model or with another "
            "sliding window; give --out"
        )
    data, predictor = open_run(
        folder,
        dataset,
        model,
        device=device,
        batch_size=batch_size,
        backend=backend,
        sliding_window=sliding_window,
    )
    with reporting(console, f"Evaluating on {split}") as progress:
        evaluation = evaluate_run(
            folder,
            data,
            predictor,
            split=split,
            label_prompts=label_prompts,
            output=None if output is None else Path(output),
            progress=progress,
        )
    prompted = ", label prompts" if label_prompts else ""
    return EvaluationSummary(evaluation.summary, f"{split}{prompted}: {run}")


def compare(
    runs: StrPaths,
    *,
    output: OutputPath | None = None,
    reference: str | None = None,
) -> Comparison:
    """Compare evaluated runs on the same test cases.

    Args:
        runs: Folders of evaluated runs.
        output: Folder for the tables; default: they are only shown.
        reference: Reference method of the comparison; default: that of the first run.

    Raises:
        UsageError: The reference is unknown, or the runs cannot be compared.
        DxsegError: A run is not evaluated.
    """
    from dxseg.evaluation.compare import compare_runs

    folders = [runs] if isinstance(runs, str | Path) else runs
    for path in map(Path, folders):
        if path.suffix in (".yaml", ".yml"):
            raise UsageError(
                f"{path}: expected folders of evaluated runs; train and compare the methods of an "
                f"experiment file with `dxseg experiment {path} --out FOLDER`"
            )
    comparison = compare_runs(folders, reference=reference)
    if output is not None:
        comparison.write(Path(output))
    return comparison


def report(
    run: StrPath,
    *,
    compared: Annotated[Sequence[str | Path], Parameter(name="--with", metavar="PATH")] = (),
    dataset: StrPath | None = None,
) -> Report:
    """Write `report.html` into a run: a verdict in words, overlays, results, failures.

    Args:
        run: Folder of an evaluated run.
        compared: Another evaluated run, shown beside it. May be repeated.
        dataset: Folder of the dataset, if it has moved since.

    Returns:
        The path of the page.

    Raises:
        DxsegError: A run is not finished.
    """
    from dxseg.reports.html import build_report

    others = [Path(other) for other in compared]
    return Report(build_report(Path(run), compared=others, dataset=dataset))


def reproduce(
    run: StrPath,
    *,
    output: OutputPath | None = None,
    dataset: StrPath | None = None,
    tolerance: float = 0.02,
) -> Reproduction:
    """Train a finished run again and compare weights and metrics; exit code 1 if they differ.

    Args:
        run: Folder of a finished run.
        output: Folder of the second run; default: `RUN-reproduced`.
        dataset: Folder of the dataset, if it has moved since.
        tolerance: Allowed difference of a figure where runs are not bit-exact; seeds differ by
            more than 0.02 Dice.

    Raises:
        DxsegError: The run is not finished, its dataset has changed, or a run that it used is gone.
    """
    from dxseg.data.table.dataset import Dataset
    from dxseg.evaluation.reproduce import repeat_run
    from dxseg.training.run_record import read_run

    first = Path(run)
    second = first.resolve().with_name(f"{first.name}-reproduced") if output is None else output
    data = Dataset.load(read_run(first)["dataset"] if dataset is None else dataset)
    return repeat_run(first, Path(second), data, tolerance)

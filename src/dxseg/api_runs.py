"""The verbs that train runs and measure them, as functions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from dxseg.config import DEFAULT_METHOD
from dxseg.config.presets import load_config, merge
from dxseg.evaluation.compare import Comparison, compare_runs
from dxseg.evaluation.evaluate import evaluate_run
from dxseg.io.progress import reporting
from dxseg.reports.html import build_report
from dxseg.training.distillation import distill_run
from dxseg.training.run import train_run

PathLike = str | Path


def train(
    dataset: PathLike,
    output: PathLike,
    *,
    preset: str = "cpu",
    method: str = DEFAULT_METHOD,
    masks: int | float | None = None,
    seed: int = 0,
    overrides: dict[str, Any] | None = None,
    splits: PathLike | None = None,
    stage1: PathLike | None = None,
    stage2: PathLike | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Train a method on a dataset; the same call continues an interrupted run.

    Args:
        dataset: folder of the dataset.
        output: folder of the run.
        preset: ``cpu`` or ``paper``.
        method: one of :func:`dxseg.config.presets.method_names`; the method if absent.
        masks: training masks that may be used, a count or a share; all if absent.
        seed: draws the masks, the initialisation and the batches.
        overrides: nested values of :class:`dxseg.config.schema.RunConfig`; they win over ``masks``
        and
            ``seed``.
        splits: a splits.csv to use instead of drawing one.
        stage1: another run whose stage 1 is used.
        stage2: another run from whose network the self-training of this method goes on.
        console: where progress is drawn.

    Returns:
        The content of the run's ``run.json``.

    Raises:
        DxsegError: see :func:`dxseg.training.run.train_run`.
    """
    chosen: dict[str, Any] = {"seed": seed}
    if masks is not None:
        chosen["split"] = {"masks": masks}
    config = load_config(preset, method, merge(chosen, overrides or {}))
    return train_run(
        Path(dataset),
        Path(output),
        config,
        splits_path=None if splits is None else Path(splits),
        stage1_run=None if stage1 is None else Path(stage1),
        stage2_run=None if stage2 is None else Path(stage2),
        console=console,
    )


def distill(
    run: PathLike,
    output: PathLike,
    *,
    overrides: dict[str, Any] | None = None,
    stage1: PathLike | None = None,
    dataset: PathLike | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Train a single-branch student of a run; the same call continues it.

    Args:
        run: folder of the finished run that teaches.
        output: folder of the student's run.
        stage1: of a run of one branch, the run whose stage 1 it started from, if not its own.
        overrides: nested values of :class:`dxseg.config.schema.RunConfig`, such as ``{"stage2":
            {"steps": 600}}``; network, split and image size are the teacher's.
        dataset: the dataset's folder if it is no longer where the run was trained.
        console: where progress is drawn.

    Returns:
        The content of the student's ``run.json``.

    Raises:
        DxsegError: see :func:`dxseg.training.distillation.distill_run`.
    """
    return distill_run(
        Path(run),
        Path(output),
        overrides,
        stage1_run=None if stage1 is None else Path(stage1),
        dataset_path=None if dataset is None else Path(dataset),
        console=console,
    )


def evaluate(
    run: PathLike,
    *,
    split: str = "test",
    label_prompts: bool = False,
    dataset: PathLike | None = None,
    device: str = "cpu",
    backend: str | None = None,
    model: PathLike | None = None,
    output: PathLike | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Evaluate a run and write evaluation.json and the tables beside it; gives the summary.

    With ``label_prompts`` the model is told the diagnosis of each image, and the files end in
    ``_known``. With ``model`` an exported file is measured in place of the run's own model, and
    ``output`` must name another folder than the run.
    """
    with reporting(console or Console(stderr=True), f"Evaluating on {split}") as progress:
        evaluation = evaluate_run(
            run,
            split=split,
            label_prompts=label_prompts,
            dataset=dataset,
            device=device,
            backend=backend,
            model=model,
            output=output,
            progress=progress,
        )
    return evaluation.summary


def compare(
    runs: Sequence[PathLike], *, reference: str | None = None, output: PathLike | None = None
) -> Comparison:
    """Compare evaluated runs on the same test cases; written to ``output`` if that is given."""
    comparison = compare_runs(runs, reference=reference)
    if output is not None:
        comparison.write(Path(output))
    return comparison


def report(run: PathLike, *, compared: Sequence[PathLike] = ()) -> Path:
    """Write a run's report.html, beside other runs if any are given; gives its path."""
    return build_report(Path(run), compared=[Path(other) for other in compared])

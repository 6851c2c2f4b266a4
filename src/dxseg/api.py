"""The verbs: what the command line does, as functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from dxseg.api_export import export_hub, export_label_studio, export_nnunet, export_onnx
from dxseg.data.dataset import Dataset
from dxseg.data.importers.busi import import_busi
from dxseg.data.importers.csv import import_csv
from dxseg.data.importers.dicom import import_dicom
from dxseg.data.importers.folder import import_folder
from dxseg.data.importers.label_studio import import_label_studio
from dxseg.data.importers.msd import import_msd
from dxseg.data.importers.nifti import import_volumes
from dxseg.data.importers.nnunet import import_nnunet
from dxseg.data.splits import choose_masks, make_splits, select_fold, write_splits
from dxseg.demonstration import demo
from dxseg.deploy.serve import serve
from dxseg.description import describe as info
from dxseg.evaluation.compare import Comparison, compare_runs
from dxseg.evaluation.evaluate import evaluate_run
from dxseg.inference.bundle import bundle_folder
from dxseg.inference.predict import PredictSummary, predict_files
from dxseg.presets import load_config, merge
from dxseg.progress import reporting
from dxseg.quality.check import check_dataset
from dxseg.quality.findings import CheckReport
from dxseg.reports.html import build_report
from dxseg.reproduction import reproduce
from dxseg.studies.runner import run_study as compare_study
from dxseg.suggestion.suggest import Suggestions, suggest_cases
from dxseg.training.distill import distill_run
from dxseg.training.run import train_run

PathLike = str | Path

__all__ = [
    "check",
    "compare",
    "compare_study",
    "demo",
    "distill",
    "evaluate",
    "export_hub",
    "export_label_studio",
    "export_nnunet",
    "export_onnx",
    "import_busi",
    "import_csv",
    "import_dicom",
    "import_folder",
    "import_label_studio",
    "import_msd",
    "import_nnunet",
    "import_volumes",
    "info",
    "predict",
    "report",
    "reproduce",
    "serve",
    "split",
    "suggest",
    "train",
]


def check(
    dataset: PathLike,
    *,
    splits: PathLike | None = None,
    output: PathLike | None = None,
    fix: PathLike | None = None,
    workers: int | None = None,
    console: Console | None = None,
) -> CheckReport:
    """Examine a dataset's files, masks, duplicates and splits; probe it for shortcuts.

    Writes check.json and check.html; called again, it reads only the files that have changed.

    Args:
        dataset: folder of the dataset.
        splits: a splits.csv to check; else the column split, if it is filled.
        output: folder of the report; ``check`` in the dataset's if absent.
        fix: folder for a repaired copy; the dataset itself is never changed.
        workers: processes; one a core if absent.
        console: where progress is drawn.

    Returns:
        What check.json holds; ``valid`` is False where results would be invalid.

    Raises:
        DxsegError: dataset.yaml, cases.csv or the splits cannot be read, or ``fix`` holds
            something else.
    """
    return check_dataset(
        dataset, splits=splits, output=output, fix=fix, workers=workers, console=console
    )


def split(
    dataset: PathLike,
    output: PathLike,
    *,
    masks: int | float | None = None,
    validation_masks: int | None = None,
    fractions: tuple[float, float, float] = (0.7, 0.1, 0.2),
    folds: int = 5,
    fold: int | None = None,
    split_seed: int = 0,
    seed: int = 0,
    console: Console | None = None,
) -> pd.DataFrame:
    """Write a splits.csv: who is trained on, validated on, tested on; whose mask may be used.

    Args:
        dataset: folder of the dataset.
        output: the file to write.
        masks: training masks that may be used, a count or a share; all if absent.
        validation_masks: validation masks that may be used; all if absent.
        fractions: of training, validation and test.
        folds: for cross-validation over what is not test.
        fold: the fold that validates while the others train; the drawn validation if absent.
        split_seed: draws the split.
        seed: draws the masks.
        console: where progress is drawn.

    Returns:
        The table: case_id, group, split, fold and, where a budget was given, use_mask.

    Raises:
        DxsegError: the dataset is wrong, or a budget exceeds the masks there are.
    """
    loaded = Dataset.load(dataset)
    with reporting(console or Console(stderr=True), "Looking for near-duplicates") as progress:
        cache = Path(output).with_name(f".{Path(output).stem}.unfinished")
        table = make_splits(
            loaded,
            fractions=fractions,
            folds=folds,
            seed=split_seed,
            cache=cache,
            progress=progress,
        )
    if fold is not None:
        table = select_fold(table, fold)
    if masks is not None or validation_masks is not None:
        table = choose_masks(
            loaded, table, train_masks=masks, validation_masks=validation_masks, seed=seed
        )
    write_splits(output, table)
    cache.unlink(missing_ok=True)
    return table


def train(
    dataset: PathLike,
    output: PathLike,
    *,
    preset: str = "cpu",
    arm: str = "sks-evidence-selftrained",
    masks: int | float | None = None,
    seed: int = 0,
    overrides: dict[str, Any] | None = None,
    splits: PathLike | None = None,
    stage1: PathLike | None = None,
    stage2: PathLike | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Train an arm on a dataset; the same call continues an interrupted run.

    Args:
        dataset: folder of the dataset.
        output: folder of the run.
        preset: ``cpu`` or ``paper``.
        arm: one of :func:`dxseg.presets.arm_names`; the method with all of its pieces if absent.
        masks: training masks that may be used, a count or a share; all if absent.
        seed: draws the masks, the initialisation and the batches.
        overrides: nested values of :class:`dxseg.config.RunConfig`; they win over ``masks`` and
            ``seed``.
        splits: a splits.csv to use instead of drawing one.
        stage1: another run whose stage 1 is used.
        stage2: another run from whose network the self-training of this arm goes on.
        console: where progress is drawn.

    Returns:
        The content of the run's ``run.json``.

    Raises:
        DxsegError: see :func:`dxseg.training.run.train_run`.
    """
    chosen: dict[str, Any] = {"seed": seed}
    if masks is not None:
        chosen["split"] = {"masks": masks}
    config = load_config(preset, arm, merge(chosen, overrides or {}))
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
        overrides: nested values of :class:`dxseg.config.RunConfig`, such as ``{"stage2":
            {"steps": 600}}``; network, split and image size are the teacher's.
        dataset: the dataset's folder if it is no longer where the run was trained.
        console: where progress is drawn.

    Returns:
        The content of the student's ``run.json``.

    Raises:
        DxsegError: see :func:`dxseg.training.distill.distill_run`.
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
    known_labels: bool = False,
    dataset: PathLike | None = None,
    device: str = "cpu",
    backend: str | None = None,
    model: PathLike | None = None,
    output: PathLike | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Evaluate a run and write evaluation.json and the tables beside it; gives the summary.

    With ``known_labels`` the model is told the diagnosis of each image, and the files end in
    ``_known``. With ``model`` an exported file is measured in place of the run's own model, and
    ``output`` must name another folder than the run.
    """
    with reporting(console or Console(stderr=True), f"Evaluating on {split}") as progress:
        evaluation = evaluate_run(
            run,
            split=split,
            known_labels=known_labels,
            dataset=dataset,
            device=device,
            backend=backend,
            model=model,
            output=output,
            progress=progress,
        )
    return evaluation.summary


def predict(
    inputs: PathLike | Sequence[PathLike],
    model: PathLike,
    output: PathLike,
    *,
    labels: PathLike | Mapping[str, str] | None = None,
    overwrite: bool = False,
    device: str = "cpu",
    batch_size: int = 8,
    overlays: bool = True,
    slice_overlays: bool = False,
    backend: str | None = None,
    precision: str = "float32",
    flip: bool = False,
    windows: bool = False,
    dicom_seg: bool = False,
    console: Console | None = None,
) -> PredictSummary:
    """Segment images and volumes with a run or its model; what is done is skipped.

    Args:
        inputs: files, folders or patterns; a NIfTI volume gives one label map.
        model: folder of a run, or of a model, or an exported .onnx file.
        output: folder for masks, overlays and predictions.csv.
        labels: diagnoses that are known already: a table with the columns file and label, or by
            file; see :func:`dxseg.inference.label_table.known_labels`.
        overwrite: whether what is done is predicted again.
        device: as torch names it.
        batch_size: images through the network at once.
        overlays: whether images get overlays.
        slice_overlays: whether volumes get overlays of the slices with a lesion.
        backend: ``torch``, ``onnxruntime`` or ``openvino``; what suits the model if absent.
        precision: ``float32``, or ``bfloat16`` for torch and openvino.
        flip: whether each image is also predicted mirrored, and the mean taken.
        windows: whether images larger than the network's input are cut into windows.
        dicom_seg: whether DICOM images and series get a DICOM SEG too, which names their patient.
        console: where progress is drawn.

    Raises:
        DxsegError: see :func:`dxseg.inference.predict.predict_files`.
    """
    with reporting(console or Console(stderr=True), "Predicting") as progress:
        return predict_files(
            inputs,
            bundle_folder(model),
            output,
            labels=labels,
            overwrite=overwrite,
            device=device,
            batch_size=batch_size,
            overlays=overlays,
            slice_overlays=slice_overlays,
            backend=backend,
            precision=precision,
            flip=flip,
            windows=windows,
            dicom_seg=dicom_seg,
            progress=progress,
        )


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


def suggest(
    model: PathLike,
    dataset: PathLike,
    output: PathLike,
    *,
    count: int = 20,
    splits: PathLike | None = None,
    seed: int = 0,
    device: str = "cpu",
    batch_size: int = 8,
    console: Console | None = None,
) -> Suggestions:
    """Say which cases without a mask to annotate next.

    Args:
        model: folder of a run, or of a model.
        dataset: folder of the dataset.
        output: the table to write: case_id, rank, score and its parts.
        count: how many cases; no two of one patient or group of near-duplicates.
        splits: a splits.csv whose training cases are meant, and whose hidden masks count as absent.
        seed: of the choice.
        device: as torch names it.
        batch_size: images through the network at once.
        console: where progress is drawn.

    Raises:
        DxsegError: see :func:`dxseg.suggestion.suggest.suggest_cases`.
    """
    return suggest_cases(
        model,
        dataset,
        output,
        count=count,
        splits=splits,
        seed=seed,
        device=device,
        batch_size=batch_size,
        console=console,
    )

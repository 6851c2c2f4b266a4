"""The verbs: what the command line does, as functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from dxseg.config import load_config, merge
from dxseg.data.dataset import Dataset
from dxseg.data.exporters.nnunet import ExportReport
from dxseg.data.exporters.nnunet import export_nnunet as write_nnunet
from dxseg.data.importers.busi import import_busi
from dxseg.data.importers.csv import import_csv
from dxseg.data.importers.dicom import import_dicom
from dxseg.data.importers.folder import import_folder
from dxseg.data.importers.msd import import_msd
from dxseg.data.importers.nifti import import_volumes
from dxseg.data.importers.nnunet import import_nnunet
from dxseg.data.splits import choose_masks, make_splits, select_fold, write_splits
from dxseg.demonstration import demo
from dxseg.doctor.check import check_dataset
from dxseg.doctor.findings import CheckReport
from dxseg.errors import DxsegError
from dxseg.evaluation.compare import Comparison, compare_runs
from dxseg.evaluation.evaluate import evaluate_run
from dxseg.inference.predict import PredictSummary, predict_files
from dxseg.progress import reporting
from dxseg.reports.html import build_report
from dxseg.studies.runner import StudyOutcome, run_study
from dxseg.training.distill import distill_run
from dxseg.training.records import read_run
from dxseg.training.run import train_run

PathLike = str | Path

__all__ = [
    "check",
    "compare",
    "compare_study",
    "demo",
    "distill",
    "evaluate",
    "export_nnunet",
    "import_busi",
    "import_csv",
    "import_dicom",
    "import_folder",
    "import_msd",
    "import_nnunet",
    "import_volumes",
    "info",
    "predict",
    "report",
    "split",
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


def export_nnunet(
    dataset: PathLike,
    destination: PathLike,
    *,
    splits: PathLike,
    console: Console | None = None,
) -> ExportReport:
    """Write a raw dataset of nnU-Net v2 with the same split and the same masks.

    Args:
        dataset: folder of the dataset.
        destination: a new folder named as nnU-Net wants it, such as Dataset042_BUSI.
        splits: the splits.csv.
        console: where progress is drawn.

    Raises:
        DxsegError: see :func:`dxseg.data.exporters.nnunet.export_nnunet`.
    """
    with reporting(console or Console(stderr=True), "Exporting") as progress:
        return write_nnunet(dataset, destination, splits=splits, progress=progress)


def train(
    dataset: PathLike,
    output: PathLike,
    *,
    preset: str = "cpu",
    arm: str = "sks-evidence",
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
        arm: one of :func:`dxseg.config.arm_names`.
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
    dataset: PathLike | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Train a single-branch student of a two-branch run; the same call continues it.

    Args:
        run: folder of the finished run that teaches.
        output: folder of the student's run.
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
    console: Console | None = None,
) -> dict[str, Any]:
    """Evaluate a run and write evaluation.json and the tables beside it; gives the summary.

    With ``known_labels`` the model is told the diagnosis of each image, and the files end in
    ``_known``.
    """
    with reporting(console or Console(stderr=True), f"Evaluating on {split}") as progress:
        evaluation = evaluate_run(
            run,
            split=split,
            known_labels=known_labels,
            dataset=dataset,
            device=device,
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
    slice_overlays: bool = False,
    console: Console | None = None,
) -> PredictSummary:
    """Segment images and volumes with a run or its model; what is done is skipped.

    Args:
        inputs: files, folders or patterns; a NIfTI volume gives one label map.
        model: folder of a run, or of a model.
        output: folder for masks, overlays and predictions.csv.
        labels: diagnoses that are known already: a table with the columns file and label, or by
            file; see :func:`dxseg.inference.label_table.known_labels`.
        overwrite: whether what is done is predicted again.
        device: as torch names it.
        batch_size: images through the network at once.
        slice_overlays: whether volumes get overlays of the slices with a lesion.
        console: where progress is drawn.

    Raises:
        DxsegError: see :func:`dxseg.inference.predict.predict_files`.
    """
    folder = Path(model)
    bundle = folder / "model" if (folder / "model").is_dir() else folder
    with reporting(console or Console(stderr=True), "Predicting") as progress:
        return predict_files(
            inputs,
            bundle,
            output,
            labels=labels,
            overwrite=overwrite,
            device=device,
            batch_size=batch_size,
            slice_overlays=slice_overlays,
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


def compare_study(
    study: PathLike,
    output: PathLike,
    *,
    jobs: int = 1,
    validation_only: bool = False,
    console: Console | None = None,
) -> StudyOutcome:
    """Train and evaluate what a study file asks for, and compare; the same call continues.

    Args:
        study: the study file.
        output: folder of the study.
        jobs: processes at a time.
        validation_only: whether the test cases are left alone.
        console: where progress is drawn.

    Returns:
        The results and what failed.

    Raises:
        DxsegError: see :func:`dxseg.studies.runner.run_study`.
    """
    return run_study(study, output, jobs=jobs, validation_only=validation_only, console=console)


def report(run: PathLike, *, compared: Sequence[PathLike] = ()) -> Path:
    """Write a run's report.html, beside other runs if any are given; gives its path."""
    return build_report(Path(run), compared=[Path(other) for other in compared])


def info(path: PathLike) -> dict[str, Any]:
    """What a dataset, a run or a model folder holds.

    Raises:
        DxsegError: the folder is none of them.
    """
    folder = Path(path)
    if (folder / "dataset.yaml").is_file():
        return _describe(Dataset.load(folder))
    if (folder / "config.yaml").is_file():
        return read_run(folder)
    if (folder / "model.json").is_file():
        from dxseg.inference.bundle import load_bundle

        return load_bundle(folder)[1].model_dump(mode="json")
    raise DxsegError(
        f"{folder}: neither a dataset (dataset.yaml), nor a run (config.yaml), nor a model "
        "(model.json); give the folder that holds one of these files"
    )


def _describe(dataset: Dataset) -> dict[str, Any]:
    cases = dataset.cases
    labels = cases["label"].where(cases["label"].ne(""), "(none)").value_counts()
    return {
        "name": dataset.spec.name,
        "modality": dataset.spec.modality,
        "cases": len(dataset),
        "labels": {str(label): int(count) for label, count in labels.items()},
        "lesion_free": dataset.spec.lesion_free,
        "mask_classes": dataset.spec.mask_classes,
        "masks": int(cases["mask"].ne("").sum()),
        "patients": int(cases["patient_id"].replace("", pd.NA).nunique()),
        "volumes": int(cases["volume_id"].replace("", pd.NA).nunique()),
        "channels": dataset.spec.channels,
        "provenance": dataset.spec.provenance,
        "digest": dataset.digest(),
    }

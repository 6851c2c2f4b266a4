"""A whole run: splits, stage 1, stage 2, self-training, bundle; what is finished is skipped."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

import pandas as pd
from rich.console import Console

from dxseg.config.schema import RunConfig
from dxseg.data.splits.split_table import read_splits, write_splits
from dxseg.data.table.dataset import Dataset
from dxseg.errors import DxsegError
from dxseg.inference.model_folder import INFO_FILE, load_model_folder, save_model_folder
from dxseg.io.atomic import write_text_atomic
from dxseg.io.progress import reporting
from dxseg.models.coarse_branch import CoarseBranch
from dxseg.models.encoder import PyramidEncoder
from dxseg.models.segmentation_model import SegmentationModel
from dxseg.training.datamodule import Material, gather, resolve_splits
from dxseg.training.distributed import rank_zero_first, run_on_rank_zero, together
from dxseg.training.finish import finish_run, model_info
from dxseg.training.reuse import check_stage2, load_stage1_of
from dxseg.training.run_folder import check_folder, locked_run_folder
from dxseg.training.run_record import RUN_FILE, read_run
from dxseg.training.stages import (
    self_train,
    train_stage1,
    train_stage2,
    validate_selection,
)


def train_run(
    dataset_path: Path,
    output: Path,
    config: RunConfig,
    *,
    splits_path: Path | None = None,
    stage1_run: Path | None = None,
    stage2_run: Path | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Train a method; the same call again continues an interrupted run and skips a finished one.

    Args:
        dataset_path: folder of the dataset.
        output: folder of the run, made if absent.
        config: of the run.
        splits_path: a splits.csv to use instead of drawing one.
        stage1_run: another run whose stage 1 is used instead of training one.
        stage2_run: a finished run without self-training, otherwise of this configuration, from
            whose network self-training goes on.
        console: where progress is drawn; standard error if absent.

    Returns:
        What ``run.json`` holds.

    Raises:
        DxsegError: the folder holds a run of another configuration or dataset; the given stage 1
            does not fit or has seen validation or test cases; the given stage 2 is of another
            configuration or split; files are damaged; another process trains this run.
        KeyboardInterrupt: the user stopped the run.
    """
    console = console or Console(stderr=True)
    arguments = dataset_path, output, config, splits_path, stage1_run, stage2_run
    return together(config.device, console, _train_run, *arguments)


def _train_run(
    dataset_path: Path,
    output: Path,
    config: RunConfig,
    splits_path: Path | None,
    stage1_run: Path | None,
    stage2_run: Path | None,
    *,
    console: Console,
) -> dict[str, Any]:
    """What each of the processes that train together does."""
    dataset = rank_zero_first(lambda: Dataset.load(dataset_path))

    def prepare() -> _Work | None:
        check_folder(output, config, dataset)
        if (output / RUN_FILE).is_file():
            return None
        return _prepared(dataset, output, config, splits_path, console)

    with locked_run_folder(output):
        work = rank_zero_first(prepare)
        if work is None:
            return read_run(output)
        segmenter, recorded, seconds = _stages(work, stage1_run, stage2_run)
        further = {
            "stage1_from": None if stage1_run is None else str(stage1_run.resolve()),
            "stage2_from": None if stage2_run is None else str(stage2_run.resolve()),
            **recorded,
            "seconds": {name: round(value, 1) for name, value in seconds.items()},
        }
        parts = output, segmenter, config, dataset, work.splits, work.material, further
        return run_on_rank_zero(lambda: finish_run(*parts))


def train_stage1_run(
    dataset_path: Path,
    output: Path,
    config: RunConfig,
    *,
    splits_path: Path | None = None,
    console: Console | None = None,
) -> None:
    """Train a stage 1 alone, for runs that are given it as ``stage1_run``.

    It depends neither on the method nor on the masks. The same call continues an interrupted one
    and skips a finished one.

    Args:
        dataset_path: folder of the dataset.
        output: folder that gets ``stage1/``, made if absent.
        config: of one of the runs.
        splits_path: a splits.csv to use instead of drawing one.
        console: where progress is drawn; standard error if absent.

    Raises:
        DxsegError: see :func:`train_run`.
    """
    console = console or Console(stderr=True)
    arguments = dataset_path, output, config, splits_path
    together(config.device, console, _train_stage1_run, *arguments)


def _train_stage1_run(
    dataset_path: Path,
    output: Path,
    config: RunConfig,
    splits_path: Path | None,
    *,
    console: Console,
) -> None:
    dataset = rank_zero_first(lambda: Dataset.load(dataset_path))

    def prepare() -> _Work:
        check_folder(output, config, dataset)
        return _prepared(dataset, output, config, splits_path, console)

    with locked_run_folder(output):
        _stage1(rank_zero_first(prepare), None)


def _splits(
    dataset: Dataset, output: Path, config: RunConfig, given: Path | None, console: Console
) -> pd.DataFrame:
    """The run's splits; the folder is claimed once they are known to be possible.

    A budget of masks that cannot be met would otherwise leave a folder behind that refuses the
    corrected command.
    """
    path = output / "splits.csv"
    if not path.is_file():
        with reporting(console, "Looking for near-duplicates") as report:
            splits = resolve_splits(dataset, config, given, report)
        write_text_atomic(output / "config.yaml", config.to_yaml())
        write_text_atomic(output / "dataset.sha256", dataset.digest() + "\n")
        write_splits(path, splits)
    recorded = read_splits(path, dataset)
    if given is not None and not resolve_splits(dataset, config, given).equals(recorded):
        raise DxsegError(
            f"{output}: was started on other splits than {given}; choose another folder with --out"
        )
    return recorded


@dataclass(frozen=True)
class _Work:
    """What all stages of a run work on."""

    dataset: Dataset
    splits: pd.DataFrame
    material: Material
    config: RunConfig
    output: Path
    console: Console


def _prepared(
    dataset: Dataset, output: Path, config: RunConfig, splits_path: Path | None, console: Console
) -> _Work:
    encoder = PyramidEncoder(config.model.backbone, dataset.spec.channels)
    splits = _splits(dataset, output, config, splits_path, console)
    with reporting(console, "Reading images") as report:
        material = gather(dataset, splits, config, (encoder.mean, encoder.std), report)
    validate_selection(material, config)
    return _Work(dataset, splits, material, config, output, console)


def _stages(
    work: _Work, stage1_run: Path | None, stage2_run: Path | None
) -> tuple[SegmentationModel, dict[str, Any], dict[str, float]]:
    """The trained network, the last metrics of each stage and the seconds that each took."""
    material, config, output = work.material, work.config, work.output
    seconds = {"stage1": 0.0, "stage2": 0.0, "self_training": 0.0}
    if stage2_run is not None:
        check_stage2(stage2_run, output, config, work.dataset)
    finished = (stage2_run or output / "stage2") / "model"
    if (finished / INFO_FILE).is_file():
        segmenter, info = load_model_folder(finished)
        # Another run tells its metrics in run.json; this one, which has none yet, in the bundle.
        told = info.training if stage2_run is None else read_run(stage2_run)
        recorded = {"stage2": told["stage2"]}
    else:
        started = monotonic()
        stage1 = _stage1(work, stage1_run) if config.model.requires_stage1 else None
        between = monotonic()
        segmenter, metrics = train_stage2(material, config, output / "stage2", stage1, work.console)
        seconds |= {"stage1": between - started, "stage2": monotonic() - between}
        recorded = {"stage2": metrics}
    if config.self_training is not None:
        if stage2_run is None:
            info = model_info(config, work.dataset, material)
            info = info.model_copy(update={"training": info.training | recorded})
            run_on_rank_zero(partial(save_model_folder, finished, segmenter, info))
        started = monotonic()
        segmenter, recorded["self_training"] = self_train(
            material, config, output / "self_training", segmenter, work.console
        )
        seconds["self_training"] = monotonic() - started
    return segmenter, recorded, seconds


def _stage1(work: _Work, other: Path | None) -> CoarseBranch:
    """This run's own stage 1, or another run's after checking that it may be used."""
    dataset, splits, config = work.dataset, work.splits, work.config
    material, output, console = work.material, work.output, work.console
    if other is None:
        learnt = splits["split"].eq("train").to_numpy()
        case_ids = dataset.cases["case_id"][learnt].tolist()
        return train_stage1(material, config, output / "stage1", case_ids, console)
    return load_stage1_of(other, splits, config, material.task)

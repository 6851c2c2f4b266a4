"""A whole run: splits, stage 1, stage 2, self-training, model folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

from lightning.fabric import Fabric
from lightning.pytorch import Callback
from lightning.pytorch.loggers import Logger

from dxseg.config.schema import RunConfig
from dxseg.data.table.dataset import Dataset
from dxseg.errors import UsageError
from dxseg.inference.model_folder import WEIGHTS_FILE, load_model_folder
from dxseg.io.progress import console, reporting
from dxseg.models.coarse_branch import CoarseBranch
from dxseg.models.encoder import PyramidEncoder
from dxseg.training.datamodule.spacing import require_spacing, spacing_warnings, target_spacing
from dxseg.training.datamodule.training_data import prepare_training_data
from dxseg.training.lost_detail import measure_lost_detail
from dxseg.training.preconditions import check_trainable
from dxseg.training.run_folder import (
    check_encoder_weights,
    check_folder,
    check_source,
    check_stage2,
    encoder_weights_digest,
    finish_run,
    lock_folder,
    record_source,
)
from dxseg.training.run_record import RUN_FILE, STAGE1_WEIGHTS, has_stage1, read_run
from dxseg.training.run_splits import recorded_splits, run_splits
from dxseg.training.sequence import Trained, Work, train_stages
from dxseg.training.stage1_folder import load_stage1, load_stage1_of, save_stage1
from dxseg.training.stages import train_stage1, validate_selection
from dxseg.training.strategy import join_processes
from dxseg.training.trainer import TrainerSettings, remove_checkpoints


def train_run(
    dataset_path: Path,
    output: Path,
    config: RunConfig,
    *,
    splits_path: Path | None = None,
    stage1_run: Path | None = None,
    stage2_run: Path | None = None,
    logger: Logger | None = None,
    callbacks: Sequence[Callback] = (),
) -> dict[str, Any]:
    """Train a method; the same call again continues an interrupted run and skips a finished one.

    Args:
        dataset_path: folder of the dataset.
        output: folder of the run, created if necessary.
        config: of the run.
        splits_path: a splits.csv to use. Default: the splits are drawn.
        stage1_run: another run whose stage 1 is used. Default: stage 1 is trained.
        stage2_run: a finished run that ends with stage 2, otherwise of this configuration, whose
            network the further stages start from.
        logger: Lightning logger, passed to the Trainer of every stage. Default: TensorBoard files
            in the folder of each stage, if tensorboard is installed.
        callbacks: Lightning callbacks, passed to the Trainer of every stage. With several local
            devices, logger and callbacks must be picklable.

    Returns:
        The content of `run.json`.

    Raises:
        UsageError: no stage would start from the given stage 1.
        DxsegError: the folder holds a run of another configuration, dataset or split, or one that
            started from another run; the given stage 1 does not fit, was trained on validation or
            test cases, or selected on test cases; the given stage 2 is of another configuration or
            split; files are damaged; another process trains this run.
        KeyboardInterrupt: the user stopped the run.
    """
    without_effect = not loads_stage1(config, after_stage2=stage2_run is not None)
    # Earlier versions recorded such a run, which the same command still has to continue.
    if stage1_run is not None and without_effect and not (output / "config.yaml").is_file():
        raise UsageError(
            f"{stage1_run}: no stage of this run would start from that stage 1 (method "
            f"{config.method!r}); leave --stage1 out, or choose a method that builds on a stage 1"
        )
    fabric = join_processes(config.device)
    settings = TrainerSettings(config.device, config.seed, logger, callbacks)
    dataset = Dataset.load(dataset_path)
    sources = [] if stage1_run is None else [stage1_run / "stage1" / STAGE1_WEIGHTS]
    sources += [] if stage2_run is None else [stage2_run / "model" / WEIGHTS_FILE]
    with lock_folder(output, fabric):
        with fabric.rank_zero_first():
            check_folder(output, config, dataset)
            check_source(output, sources)
            if (output / RUN_FILE).is_file():
                recorded_splits(dataset, output, config, splits_path)
                return read_run(output)
            labels = config.model.label_head or (
                config.model.requires_stage1 and stage1_run is None and stage2_run is None
            )
            check = partial(check_trainable, labels=labels)
            work = _prepare(dataset, output, config, splits_path, settings, fabric, check)
        trained = Trained() if stage2_run is None else _stage2_of(stage2_run, work)
        started = monotonic()
        stage1 = _stage1_for(work, trained, stage1_run or stage2_run)
        trained.seconds["stage1"] = monotonic() - started
        if fabric.is_global_zero:
            record_source(output, sources)
        stages = config.stages if stage2_run is None else config.stages[1:]
        train_stages(work, stages, trained, stage1)
        return finish(work, trained, {"stage1_from": stage1_run, "stage2_from": stage2_run})


def train_stage1_run(
    dataset_path: Path,
    output: Path,
    config: RunConfig,
    *,
    splits_path: Path | None = None,
) -> None:
    """Train a stage 1 alone, for runs that get it as `stage1_run`.

    It depends neither on the method nor on the masks. The same call continues an interrupted one
    and skips a finished one.

    Args:
        dataset_path: folder of the dataset.
        output: folder that gets `stage1/`, created if necessary.
        config: of one of the runs.
        splits_path: a splits.csv to use. Default: the splits are drawn.

    Raises:
        DxsegError: see `train_run`.
    """
    fabric = join_processes(config.device)
    settings = TrainerSettings(config.device, config.seed)
    dataset = Dataset.load(dataset_path)
    with lock_folder(output, fabric):
        with fabric.rank_zero_first():
            check_folder(output, config, dataset)
            check = partial(check_trainable, masks=False)
            work = _prepare(dataset, output, config, splits_path, settings, fabric, check)
        _stage1(work)


def finish(
    work: Work, trained: Trained, sources: Mapping[str, Path | None], **further: Any
) -> dict[str, Any]:
    """Finish a run in its first process, for all.

    Args:
        work: what its stages worked on.
        trained: what they led to.
        sources: other runs that it built on, by key of `run.json`.
        further: keys of `run.json`.

    Returns:
        The content of `run.json`.
    """
    work.fabric.barrier()  # until all have read the checkpoints
    if work.fabric.is_global_zero:
        assert trained.network is not None, "the last stage leaves one"
        further |= {
            **{key: None if run is None else str(run.resolve()) for key, run in sources.items()},
            **trained.record,
            "seconds": {name: round(value, 1) for name, value in trained.seconds.items()},
        }
        finish_run(
            work.output, trained.network, work.config, work.dataset, work.splits, work.data, further
        )
    work.fabric.barrier()
    return read_run(work.output)


def _prepare(
    dataset: Dataset,
    output: Path,
    config: RunConfig,
    splits_path: Path | None,
    settings: TrainerSettings,
    fabric: Fabric,
    check: Callable[..., None],
) -> Work:
    encoder = PyramidEncoder(config.model.backbone, dataset.spec.channels)
    encoder_weights_digest(config)  # a file that is missing leaves no folder behind
    splits = run_splits(dataset, output, config, splits_path, check)
    check_encoder_weights(output, config)
    if fabric.is_global_zero:
        spacing = target_spacing(dataset, config.data.spacing)
        size, soft = config.data.image_size, config.data.soft_masks
        lost = measure_lost_detail(dataset, splits, size, spacing, soft=soft)
        for text in filter(None, [lost.warning(), *spacing_warnings(dataset, config, spacing)]):
            console.print(f"Warning: {text}", style="yellow")
    statistics = (encoder.mean, encoder.std)
    with reporting(console, "Reading images") as report:
        data = prepare_training_data(dataset, splits, config, statistics, report)
    validate_selection(data, config)
    return Work(dataset, splits, data, config, output, settings, fabric)


def _stage2_of(run: Path, work: Work) -> Trained:
    """The stage 2 of another run, in place of this run's.

    Raises:
        DxsegError: it is not what this run's stage 2 would end with.
    """
    check_stage2(run, work.output, work.config, work.dataset)
    network, info = load_model_folder(run / "model")
    require_spacing(run, info.preprocessing.spacing, work.data.preprocessing.spacing)
    return Trained(network, record={"stage2": read_run(run)["stage2"]}, seconds={"stage2": 0.0})


def loads_stage1(config: RunConfig, *, after_stage2: bool) -> bool:
    """Whether a stage that is left starts from a classifier which no network brings along.

    A network of two branches, or with a classifier beside it, does, unless masks have changed it.
    """
    left = not after_stage2 or (config.student is not None and not config.model.keeps_stage1)
    return left and config.model.requires_stage1


def _stage1_for(work: Work, trained: Trained, other: Path | None) -> CoarseBranch | None:
    """The classifier that the stages which are left start from, if they need one."""
    config = work.config
    if trained.network is not None and config.model.keeps_stage1:
        kept: CoarseBranch = trained.network.coarse  # type: ignore[assignment]
        return kept
    if not loads_stage1(config, after_stage2=trained.network is not None):
        return None
    if other is not None:
        return load_stage1_of(other, work.splits, config, work.data)
    coarse, trained.record["stage1"] = _stage1(work)
    return coarse


def _stage1(work: Work) -> tuple[CoarseBranch, dict[str, float]]:
    """Train this run's stage 1, or load the finished one; with its last metrics."""
    config, data, folder = work.config, work.data, work.output / "stage1"
    if has_stage1(folder):
        coarse, record = load_stage1(folder)
        return coarse, record.metrics
    coarse, metrics = train_stage1(data, config, folder, work.settings)
    work.fabric.barrier()  # until all have read the checkpoint
    if work.fabric.is_global_zero:
        save_stage1(folder, coarse, config, data, work.splits, metrics)
        remove_checkpoints(folder)
    return coarse, metrics

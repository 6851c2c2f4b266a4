"""Train one stage with Lightning: checkpoints, resuming, logs, and the weights it ends with."""

from __future__ import annotations

import copy
import math
import signal
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from time import monotonic
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.strategies.launchers.multiprocessing import _MultiProcessingLauncher
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch.multiprocessing.spawn import ProcessException

from dxseg.config.schema import DeviceConfig
from dxseg.config.stages import StageConfig
from dxseg.errors import DxsegError, TerminatedError
from dxseg.io.signals import raise_terminated, sigterm_raises
from dxseg.training.callbacks import MetricsTable, StageProgress, StepSeed, diverged
from dxseg.training.checkpoints import CheckpointFiles, read_checkpoint
from dxseg.training.datamodule.stage_data import StageData
from dxseg.training.errors import explain_failure, silence_advice
from dxseg.training.strategy import trainer_options

LAST = "last.ckpt"
BEST = "best.ckpt"


@dataclass(frozen=True)
class TrainerSettings:
    """What the Trainers of all stages of a run have in common.

    Attributes:
        device: accelerator, devices, precision.
        seed: of the run.
        logger: Lightning logger of a user. Default: TensorBoard files in the stage's folder, if
            tensorboard is installed.
        callbacks: Lightning callbacks of a user.
    """

    device: DeviceConfig
    seed: int
    logger: Logger | None = None
    callbacks: Sequence[pl.Callback] = ()


def fit_stage(
    module: pl.LightningModule,
    data: StageData,
    folder: Path,
    settings: TrainerSettings,
    config: StageConfig,
    *,
    title: str,
    monitor: str,
    find_unused_parameters: bool = False,
) -> dict[str, float]:
    """Train a stage to its end, resuming from its last checkpoint if there is one.

    Args:
        module: the stage; afterwards it has the weights of the selected checkpoint.
        data: batches of an epoch, and validation cases.
        folder: of the stage, for `last.ckpt`, `metrics.csv` and the files of loggers.
        settings: shared by all stages.
        config: length, checkpoint, early stopping.
        title: of the progress bar.
        monitor: validation metric to maximize.
        find_unused_parameters: whether a step may leave trained parameters without a gradient.

    Returns:
        The last row of `metrics.csv`, as far as it is finite, and the seconds of this attempt.

    Raises:
        DxsegError: the checkpoint to resume from is damaged, the training diverged, memory ran out,
            or an operation is not deterministic where it has to be.
        KeyboardInterrupt: the user or a scheduler (`dxseg.errors.TerminatedError`) stopped the run;
            the same call continues it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    started = monotonic()
    last = folder / LAST
    if not (last.is_file() and _ended(read_checkpoint(last), config)):
        callbacks = [
            MetricsTable(folder / "metrics.csv"),
            StageProgress(title, config.total_steps),
            StepSeed(settings.seed),
            *_selection(folder, monitor, config, validated=data.validation is not None),
            ModelCheckpoint(
                folder, last.stem, save_on_train_epoch_end=True, enable_version_counter=False
            ),
            EndOnSigterm(),
            *settings.callbacks,
        ]
        options = trainer_options(settings.device, find_unused_parameters=find_unused_parameters)
        with warnings.catch_warnings(), _no_memory_filling(), _quiet_threads():
            silence_advice()
            trainer = _trainer(folder, settings, config, callbacks, options)
            resume = last if last.is_file() else None
            # A copy: several processes may convert layers, or train elsewhere. The weights come
            # back from the checkpoint.
            trained = copy.deepcopy(module)
            with _explained_errors(trainer):
                trainer.fit(trained, datamodule=data, ckpt_path=resume, weights_only=True)
    reached = read_checkpoint(last)
    chosen = reached
    if config.checkpoint == "best" and (folder / BEST).is_file():
        chosen = read_checkpoint(folder / BEST)
    module.load_state_dict(chosen["state_dict"])
    if not all(torch.isfinite(p).all() for p in module.parameters()):
        raise DxsegError(diverged(folder))
    row = reached["callbacks"]["MetricsTable"]["rows"][-1]
    figures = {name: value for name, value in row.items() if math.isfinite(value)}
    return figures | {"seconds": round(monotonic() - started, 1)}


def _trainer(
    folder: Path,
    settings: TrainerSettings,
    config: StageConfig,
    callbacks: list[pl.Callback],
    options: dict[str, Any],
) -> pl.Trainer:
    device = settings.device
    plugins = [CheckpointFiles(), *options.pop("plugins", [])]
    return pl.Trainer(
        **options,
        plugins=plugins,
        accelerator=device.accelerator,
        precision=device.precision,
        max_epochs=config.max_epochs,
        accumulate_grad_batches=config.accumulate_grad_batches,
        gradient_clip_val=config.gradient_clip_val,
        callbacks=callbacks,
        logger=_logger(folder, settings),
        default_root_dir=folder,
        log_every_n_steps=config.epoch_steps,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        enable_model_summary=False,
        deterministic=device.deterministic or "warn",
    )


def _logger(folder: Path, settings: TrainerSettings) -> Logger | bool:
    """The user's logger, or TensorBoard files, or none: `metrics.csv` has the figures anyway."""
    if settings.logger is not None:
        return settings.logger
    if find_spec("tensorboard") is None:
        return False
    return TensorBoardLogger(folder, name="", version="tensorboard")


@contextmanager
def _explained_errors(trainer: pl.Trainer) -> Iterator[None]:
    """Raise what stops a training as what it means to the user."""
    folder = Path(trainer.default_root_dir)
    handler = signal.getsignal(signal.SIGINT)
    launcher = trainer.strategy.launcher
    spawns = isinstance(launcher, _MultiProcessingLauncher)
    try:
        with sigterm_raises() if spawns else nullcontext():
            yield
    except SIGTERMException as error:
        # After the current step: what is lost is what came after the last epoch.
        raise TerminatedError from error
    except SystemExit as error:
        # Lightning turns Ctrl-C into SystemExit and leaves further Ctrl-C ignored.
        signal.signal(signal.SIGINT, handler)
        if launcher is not None:
            # Not SIGTERM: Lightning's handler waits there for the other processes, which may wait
            # for this one. Files are written atomically, so nothing is lost but the epoch.
            launcher.kill(signal.SIGKILL)
        reason = error.__context__
        raise reason if isinstance(reason, KeyboardInterrupt) else KeyboardInterrupt from error
    except OSError as error:
        error.filename = error.filename or str(folder)
        raise
    except (RuntimeError, MemoryError, ProcessException) as error:
        explained = explain_failure(error, folder)
        if explained is None:
            raise
        raise explained from error


def _selection(
    folder: Path, monitor: str, config: StageConfig, *, validated: bool
) -> list[pl.Callback]:
    callbacks: list[pl.Callback] = []
    if validated and config.early_stopping_patience is not None:
        callbacks.append(
            EarlyStopping(monitor, patience=config.early_stopping_patience, mode="max")
        )
    if validated and config.checkpoint == "best":
        callbacks.append(
            ModelCheckpoint(
                folder, Path(BEST).stem, monitor=monitor, mode="max", enable_version_counter=False
            )
        )
    return callbacks


def _ended(checkpoint: dict[str, Any], config: StageConfig) -> bool:
    """Whether the stage is complete, by its length or by early stopping."""
    stopped = any(
        state.get("stopped_epoch")
        for name, state in checkpoint["callbacks"].items()
        if name.startswith("EarlyStopping")
    )
    return stopped or checkpoint["global_step"] >= config.total_steps


class EndOnSigterm(pl.Callback):
    """Ends each of several processes that a launcher started at once, by its own SIGTERM.

    Lightning's handler broadcasts from wherever the signal has interrupted: a process that is then
    in another collective waits for the others, and they for it, until the launcher kills them.
    """

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        """Replace the handler that Lightning has just set; it restores the one before."""
        spawned = isinstance(trainer.strategy.launcher, _MultiProcessingLauncher)
        in_main_thread = threading.current_thread() is threading.main_thread()
        if trainer.world_size > 1 and not spawned and in_main_thread:
            signal.signal(signal.SIGTERM, raise_terminated)


@contextmanager
def _no_memory_filling() -> Iterator[None]:
    """Keep determinism, but not torch's writing of NaN over every new buffer.

    That is meant for finding code that reads memory before writing it; it takes some 4 % of a step.
    """
    switch: Any = torch.utils.deterministic
    before = switch.fill_uninitialized_memory
    switch.fill_uninitialized_memory = False
    try:
        yield
    finally:
        switch.fill_uninitialized_memory = before


@contextmanager
def _quiet_threads() -> Iterator[None]:
    """Leave system errors to this thread: TensorBoard's passes them on, and prints them."""
    before = threading.excepthook

    def hook(arguments: Any) -> None:
        if not isinstance(arguments.exc_value, OSError):
            before(arguments)

    threading.excepthook = hook
    try:
        yield
    finally:
        threading.excepthook = before


def remove_checkpoints(folder: Path) -> None:
    """Remove what was kept to resume a stage that is finished now."""
    for name in (LAST, BEST):
        (folder / name).unlink(missing_ok=True)

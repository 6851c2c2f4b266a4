"""Run one stage on Lightning: checkpoints, resume, logs, and what the stage ends with."""

from __future__ import annotations

import csv
import io
import logging
import math
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.exceptions import SIGTERMException
from rich.console import Console
from torch.utils.data import DataLoader

from dxseg.config.schema import DeviceConfig, StageConfig
from dxseg.data.batches.loader import Batch
from dxseg.errors import DxsegError, TerminatedError
from dxseg.io.atomic import write_text_atomic
from dxseg.training.checkpoints import CheckpointFiles, read_checkpoint
from dxseg.training.distributed import barrier, trainer_options
from dxseg.training.errors import explain_failure
from dxseg.training.progress import StageProgress
from dxseg.training.sync_batch_norm import synchronized_norms

Batches = DataLoader[Batch] | dict[str, DataLoader[Batch]]
"""Of one loader, or of several that give a batch each to every step."""

LAST = "last.ckpt"
BEST = "best.ckpt"


class MetricsTable(pl.Callback):
    """``metrics.csv``: one row an epoch, also across interruptions.

    Lightning's CSVLogger deletes the file of an earlier attempt; here the rows travel in the
    checkpoint, so a resumed stage ends with the table of an uninterrupted one.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.rows: list[dict[str, float]] = []

    def state_dict(self) -> dict[str, Any]:
        """The rows so far."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue a table."""
        self.rows = list(state_dict["rows"])

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        """Add the epoch's row and write the table."""
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        if not math.isfinite(metrics.get("train_loss", 0.0)):
            raise DxsegError(_diverged(self._path.parent))
        row = {"epoch": float(trainer.current_epoch), "step": float(trainer.global_step)}
        self.rows.append(row | dict(sorted(metrics.items())))
        if not trainer.is_global_zero:
            return
        names = list(dict.fromkeys(name for row in self.rows for name in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: f"{value:.6g}" for name, value in row.items()} for row in self.rows)
        write_text_atomic(self._path, text.getvalue())


def fit_stage(
    module: pl.LightningModule,
    train: Batches,
    validation: DataLoader[Batch] | None,
    folder: Path,
    *,
    title: str,
    monitor: tuple[str, str],
    config: StageConfig,
    device: DeviceConfig,
    console: Console,
    find_unused_parameters: bool = False,
) -> dict[str, float]:
    """Train a stage to its end, continuing from its last checkpoint if there is one.

    Args:
        module: the stage; afterwards it holds the selected weights.
        train: batches of one epoch; samplers follow ``set_epoch``.
        validation: every validation case once, or None.
        folder: of the stage, for ``last.ckpt``, ``metrics.csv`` and TensorBoard events.
        title: of the progress bar.
        monitor: validation metric and its direction, ``min`` or ``max``.
        config: length, selection, early stopping, EMA.
        device: accelerator, devices, nodes, precision.
        console: where the bar is drawn.
        find_unused_parameters: whether a step may leave trained parameters without a gradient.

    Returns:
        The last row of ``metrics.csv``, as far as it is finite, and the seconds of this attempt.

    Raises:
        DxsegError: the checkpoint to continue from is damaged, the training diverged, memory was
            used up, or an operation is not deterministic where it has to be.
        KeyboardInterrupt: the user or a scheduler (:class:`dxseg.errors.TerminatedError`) stopped
            the run; the same call continues it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    table = MetricsTable(folder / "metrics.csv")
    started = monotonic()
    last = folder / LAST
    reached = read_checkpoint(last) if last.is_file() else None
    if reached is not None and _ended(reached, config):
        # Killed between the last epoch and what follows the stage. Lightning would neither take
        # over averaged weights again nor remember that it stopped early.
        module.load_state_dict(reached["state_dict"])
        table.load_state_dict(reached["callbacks"]["MetricsTable"])
    else:
        callbacks = [
            table,
            StageProgress(title, config.total_steps, console),
            *_optional_callbacks(folder, monitor, config, validation is not None),
            ModelCheckpoint(
                folder, Path(LAST).stem, save_on_train_epoch_end=True, enable_version_counter=False
            ),
        ]
        options = trainer_options(device, find_unused_parameters=find_unused_parameters)
        resume = reached is not None
        _train(module, train, validation, folder, callbacks, config, device, options, resume)
    if config.checkpoint == "best" and (folder / BEST).is_file():
        module.load_state_dict(read_checkpoint(folder / BEST)["state_dict"])
    barrier()  # the first process removes the checkpoints
    if not all(torch.isfinite(p).all() for p in module.parameters()):
        raise DxsegError(_diverged(folder))
    figures = {name: value for name, value in table.rows[-1].items() if math.isfinite(value)}
    return figures | {"seconds": round(monotonic() - started, 1)}


def _train(
    module: pl.LightningModule,
    train: Batches,
    validation: DataLoader[Batch] | None,
    folder: Path,
    callbacks: list[pl.Callback],
    config: StageConfig,
    device: DeviceConfig,
    options: dict[str, Any],
    resume: bool,
) -> None:
    with warnings.catch_warnings(), _no_memory_filling(), _quiet_threads():
        _quiet()
        trainer = pl.Trainer(
            **options,
            accelerator=device.accelerator,
            precision=device.precision,
            max_epochs=config.max_epochs,
            accumulate_grad_batches=config.accumulate_grad_batches,
            gradient_clip_val=config.gradient_clip_val,
            callbacks=callbacks,
            plugins=[CheckpointFiles()],
            logger=TensorBoardLogger(folder, name="", version="tensorboard"),
            log_every_n_steps=config.epoch_steps,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            enable_model_summary=False,
            deterministic=device.deterministic or "warn",
        )
        handler = signal.getsignal(signal.SIGINT)
        last = folder / LAST if resume else None
        on_cpu = trainer.strategy.root_device.type == "cpu"
        try:
            with synchronized_norms(module, on_cpu=on_cpu):
                trainer.fit(module, train, validation, ckpt_path=last, weights_only=True)
        except SIGTERMException as error:
            # After the step at hand: what is lost is what came after the last epoch.
            raise TerminatedError from error
        except SystemExit as error:
            # Lightning turns Ctrl-C into SystemExit and leaves further Ctrl-C ignored.
            signal.signal(signal.SIGINT, handler)
            raise KeyboardInterrupt from error
        except OSError as error:
            error.filename = error.filename or str(folder)
            raise
        except (RuntimeError, MemoryError) as error:
            explained = explain_failure(error, folder)
            if explained is None:
                raise
            raise explained from error


def _optional_callbacks(
    folder: Path, monitor: tuple[str, str], config: StageConfig, validated: bool
) -> list[pl.Callback]:
    name, mode = monitor
    callbacks: list[pl.Callback] = []
    if validated and config.early_stopping_patience is not None:
        callbacks.append(EarlyStopping(name, patience=config.early_stopping_patience, mode=mode))
    if validated and config.checkpoint == "best":
        best = ModelCheckpoint(
            folder, Path(BEST).stem, monitor=name, mode=mode, enable_version_counter=False
        )
        callbacks.append(best)
    return callbacks


def _ended(checkpoint: dict[str, Any], config: StageConfig) -> bool:
    """Whether the stage was through, by its length or by early stopping."""
    stopped = any(
        state.get("stopped_epoch")
        for name, state in checkpoint["callbacks"].items()
        if name.startswith("EarlyStopping")
    )
    return stopped or checkpoint["global_step"] >= config.total_steps


def _diverged(folder: Path) -> str:
    return (
        f"{folder}: training diverged (the loss or the weights are not finite); lower the stage's "
        "learning_rate, remove the run folder and start again"
    )


@contextmanager
def _no_memory_filling() -> Iterator[None]:
    """Keep determinism, but not torch's writing of NaN over every buffer it hands out.

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
    """Leave errors of the system to this thread: TensorBoard's hands them over, and prints them."""
    before = threading.excepthook

    def hook(arguments: Any) -> None:
        if not isinstance(arguments.exc_value, OSError):
            before(arguments)

    threading.excepthook = hook
    try:
        yield
    finally:
        threading.excepthook = before


def _quiet() -> None:
    """Silence advice that does not apply here; errors still show."""
    for message in (
        ".*does not have many workers.*",
        ".*Checkpoint directory .* exists and is not empty.*",
        ".*lr_scheduler.step.*before.*optimizer.step.*",
        ".*LeafSpec.*is deprecated.*",
        ".*in eval mode at the start of training.*",  # the frozen branch, on purpose
        ".*validation_step.*no.*val_dataloader.*",
        ".*recommended to use .*sync_dist=True.*",  # what is logged is of all processes already
    ):
        warnings.filterwarnings("ignore", message=message)
    for name in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.WARNING)

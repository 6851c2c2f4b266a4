"""Run one stage on Lightning: checkpoints, resume, logs, and what the stage ends with."""

from __future__ import annotations

import csv
import io
import logging
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import EarlyStopping, EMAWeightAveraging, ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from rich.console import Console
from torch.utils.data import DataLoader

from dxseg.config import DeviceConfig, StageConfig
from dxseg.data.files import write_text_atomic
from dxseg.data.loader import Batch
from dxseg.errors import DxsegError
from dxseg.training.progress import StageProgress

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
        row = {"epoch": float(trainer.current_epoch), "step": float(trainer.global_step)}
        self.rows.append(row | dict(sorted(metrics.items())))
        names = list(dict.fromkeys(name for row in self.rows for name in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: f"{value:.6g}" for name, value in row.items()} for row in self.rows)
        write_text_atomic(self._path, text.getvalue())


def fit_stage(
    module: pl.LightningModule,
    train: DataLoader[Batch],
    validation: DataLoader[Batch] | None,
    folder: Path,
    *,
    title: str,
    monitor: tuple[str, str],
    config: StageConfig,
    device: DeviceConfig,
    console: Console,
) -> dict[str, float]:
    """Train a stage to its end, continuing from its last checkpoint if there is one.

    Args:
        module: the stage; afterwards it holds the selected weights.
        train: batches of one epoch; its sampler follows ``set_epoch``.
        validation: every validation case once, or None.
        folder: of the stage, for ``last.ckpt``, ``metrics.csv`` and TensorBoard events.
        title: of the progress bar.
        monitor: validation metric and its direction, ``min`` or ``max``.
        config: length, selection, early stopping, EMA.
        device: accelerator, devices, nodes, precision.
        console: where the bar is drawn.

    Returns:
        The last row of ``metrics.csv`` and the seconds of this attempt.

    Raises:
        DxsegError: the checkpoint to continue from is damaged, or the loss is not finite.
        KeyboardInterrupt: the user stopped the run; the same call continues it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    table = MetricsTable(folder / "metrics.csv")
    callbacks: list[pl.Callback] = [
        table,
        StageProgress(title, config.total_steps, console),
        *_optional_callbacks(folder, monitor, config, validation is not None),
        ModelCheckpoint(
            folder, Path(LAST).stem, save_on_train_epoch_end=True, enable_version_counter=False
        ),
    ]
    started = monotonic()
    last = folder / LAST
    with warnings.catch_warnings(), _no_memory_filling():
        _quiet()
        trainer = pl.Trainer(
            accelerator=device.accelerator,
            devices=device.devices,
            num_nodes=device.nodes,
            precision=device.precision,
            max_epochs=config.epochs,
            accumulate_grad_batches=config.accumulate,
            gradient_clip_val=config.gradient_clip,
            callbacks=callbacks,
            logger=TensorBoardLogger(folder, name="", version="tensorboard"),
            log_every_n_steps=config.epoch_steps,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            enable_model_summary=False,
            deterministic="warn",
        )
        _fit(trainer, module, train, validation, last if last.is_file() else None)
    if config.select == "best" and (folder / BEST).is_file():
        best = torch.load(folder / BEST, map_location="cpu", weights_only=True)
        module.load_state_dict(best["state_dict"])
    if not all(torch.isfinite(p).all() for p in module.parameters()):
        raise DxsegError(
            f"{folder}: training diverged (weights are not finite); lower the stage's "
            "learning_rate, remove the run folder and start again"
        )
    return table.rows[-1] | {"seconds": round(monotonic() - started, 1)}


def _optional_callbacks(
    folder: Path, monitor: tuple[str, str], config: StageConfig, validated: bool
) -> list[pl.Callback]:
    name, mode = monitor
    callbacks: list[pl.Callback] = []
    if config.ema_decay:
        callbacks.append(EMAWeightAveraging(decay=config.ema_decay))
    if validated and config.early_stopping_patience is not None:
        callbacks.append(EarlyStopping(name, patience=config.early_stopping_patience, mode=mode))
    if validated and config.select == "best":
        best = ModelCheckpoint(
            folder, Path(BEST).stem, monitor=name, mode=mode, enable_version_counter=False
        )
        callbacks.append(best)
    return callbacks


def _fit(
    trainer: pl.Trainer,
    module: pl.LightningModule,
    train: DataLoader[Batch],
    validation: DataLoader[Batch] | None,
    checkpoint: Path | None,
) -> None:
    handler = signal.getsignal(signal.SIGINT)
    try:
        trainer.fit(module, train, validation, ckpt_path=checkpoint, weights_only=True)
    except SystemExit as error:
        # Lightning turns Ctrl-C into SystemExit and leaves further Ctrl-C ignored.
        signal.signal(signal.SIGINT, handler)
        raise KeyboardInterrupt from error
    except (EOFError, RuntimeError, KeyError, ValueError) as error:
        if checkpoint is None or not _damaged(checkpoint):
            raise
        raise DxsegError(
            f"{checkpoint}: cannot be read as a checkpoint ({error}); remove it to start the "
            "stage again"
        ) from error


def _damaged(checkpoint: Path) -> bool:
    try:
        torch.load(checkpoint, map_location="cpu", weights_only=True)
    except Exception:  # noqa: BLE001 - whatever it is, the file does not load
        return True
    return False


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


def _quiet() -> None:
    """Silence advice that does not apply here; errors still show."""
    for message in (
        ".*does not have many workers.*",
        ".*Checkpoint directory .* exists and is not empty.*",
        ".*lr_scheduler.step.*before.*optimizer.step.*",
        ".*LeafSpec.*is deprecated.*",
        ".*validation_step.*no.*val_dataloader.*",
    ):
        warnings.filterwarnings("ignore", message=message)
    for name in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.WARNING)

"""Callbacks of every stage: table of metrics, progress bar, random seed of each step."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from rich.progress import Progress, TaskID

from dxseg.errors import DxsegError
from dxseg.io.atomic import write_text_atomic
from dxseg.io.progress import console, progress_bar


class MetricsTable(pl.Callback):
    """`metrics.csv`: one row per epoch, also across interruptions.

    Lightning's CSVLogger deletes the file of an earlier attempt; here the rows are in the
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
        """Add the epoch's row and write the table.

        Raises:
            DxsegError: the loss is not finite.
        """
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        if not math.isfinite(metrics.get("train_loss", 0.0)):
            raise DxsegError(diverged(self._path.parent))
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


def diverged(folder: Path) -> str:
    """The message for a stage that diverged."""
    return (
        f"{folder}: training diverged (the loss or the weights are not finite); lower the stage's "
        "learning_rate, remove the run folder and start again"
    )


class StepSeed(pl.Callback):
    """Seeds the global generator before every step, for dropout and stochastic depth.

    A resumed stage then draws what an uninterrupted one draws; each process draws for itself.
    """

    _PRIME = 7_368_787
    """Distance between processes, so that steps and processes never have the same seed."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        """Seed by step and process."""
        step = self._seed * 1_000_003 + trainer.fit_loop.total_batch_idx
        torch.manual_seed(step + trainer.global_rank * self._PRIME)


class StageProgress(pl.callbacks.ProgressBar):
    """Steps of the whole stage: Lightning's bars count, and time, one epoch."""

    def __init__(self, title: str, steps: int) -> None:
        super().__init__()
        self._title = title
        self._steps = steps
        self._quiet = console.quiet  # spawned processes draw on a console of their own
        self._bar: Progress | None = None
        self._task = TaskID(0)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_bar": None}

    def disable(self) -> None:
        """Draw nothing; Lightning calls it in all processes but the first."""
        self._quiet = True

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        """Start at the step that a resumed stage continues from."""
        if self._quiet or not trainer.is_global_zero:
            return
        self._bar = progress_bar(console)
        self._task = self._bar.add_task(self._title, total=self._steps, note="")
        self._bar.start()
        self._bar.update(self._task, completed=trainer.global_step)

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Advance."""
        if self._bar is not None:
            self._bar.update(self._task, completed=trainer.global_step)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        """Show the newest validation figures."""
        shown = [
            f"{name.removeprefix('val_')} {float(trainer.callback_metrics[name]):.3f}"
            for name in ("val_loss", "val_auroc", "val_dice")
            if name in trainer.callback_metrics
        ]
        if self._bar is not None:
            self._bar.update(self._task, note=" ".join(shown))

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:  # noqa: ARG002
        """Leave the finished bar on the screen."""
        self._stop()

    def on_exception(self, *_: Any) -> None:
        """Give the terminal its cursor back; an interruption does not reach `teardown`."""
        self._stop()

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()

"""One progress bar a stage, with the time left."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
from rich.console import Console

from dxseg.io.progress import progress_bar


class StageProgress(pl.callbacks.ProgressBar):
    """Steps of the whole stage rather than of one epoch, so that the time left is the stage's."""

    def __init__(self, title: str, steps: int, console: Console) -> None:
        super().__init__()
        self._title = title
        self._steps = steps
        self._bar = progress_bar(console)
        self._task = self._bar.add_task(title, total=steps, note="")

    def disable(self) -> None:
        """Lightning asks it of all processes but the first, whose console is quiet already."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        """Start at the step a resumed stage continues from."""
        self._bar.start()
        self._bar.update(self._task, completed=trainer.global_step)

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Advance."""
        self._bar.update(self._task, completed=trainer.global_step)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        """Show the newest validation figures."""
        wanted = ("val_loss", "val_auroc", "val_dice")
        shown = [
            f"{name.removeprefix('val_')} {float(trainer.callback_metrics[name]):.3f}"
            for name in wanted
            if name in trainer.callback_metrics
        ]
        self._bar.update(self._task, note=" ".join(shown))

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:  # noqa: ARG002
        """Leave the finished bar on the screen."""
        self._bar.stop()

    def on_exception(self, *_: Any) -> None:
        """Give the terminal its cursor back; an interruption does not reach ``teardown``."""
        self._bar.stop()

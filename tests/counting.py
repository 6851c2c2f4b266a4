"""A callback that records validation; spawned processes import it by its name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import lightning.pytorch as pl


class CountsValidation(pl.Callback):
    """Writes the sum of the pixels of every validation image that a process is given."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seen: list[float] = []

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        """Keep the statistics of normalization, which on the CPU are of each process's own rows."""
        pl_module.eval()

    def on_validation_batch_end(self, *arguments: Any, **named: Any) -> None:
        batch = named.get("batch", arguments[3])
        self.seen += batch["image"].double().sum(dim=(1, 2, 3)).tolist()

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        stage = Path(trainer.default_root_dir).name
        path = self.folder / f"{stage}-{trainer.global_rank}-of-{trainer.world_size}.json"
        path.write_text(json.dumps(self.seen))


def validated(folder: Path, stage: str, processes: int) -> list[list[float]]:
    """What each process was given to validate."""
    paths = [folder / f"{stage}-{rank}-of-{processes}.json" for rank in range(processes)]
    return [json.loads(path.read_text()) for path in paths]

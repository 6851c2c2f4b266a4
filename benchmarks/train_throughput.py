"""Images per second of stage-2 training, against a bare loop over tensors in memory.

Both sides train the same network with the same loss, optimizer, schedule, gradient clipping and
batch size. The real side is `dxseg.training.stages.train_stage2` as `dxseg train` calls it: cached
pixels, augmentation, Lightning, logging, progress bar, determinism switched on. The bare side is a
`for` loop over a few batches that are already decoded, augmented and standardized.

Complete steps are counted, from the start of one to the start of a later one, in the middle of one
long epoch. The end of an epoch (validation, checkpoint, metrics.csv) and the first steps, in which
allocators and libraries warm up, are not included. Every few steps the real training is paused and
as many bare steps are made (real, bare, real, ...), so that a machine that slows down slows both;
the ratio is the median over these rounds.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any, ClassVar
from unittest import mock

import torch
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.nn.utils import clip_grad_norm_
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from command import parser_of
from dxseg.config.presets import load_config, method_names
from dxseg.config.schema import RunConfig
from dxseg.data.batches.batches import Batch
from dxseg.data.table.dataset import Dataset
from dxseg.models.encoder import PyramidEncoder
from dxseg.models.factory import build_model
from dxseg.phantoms.ultrasound import make_phantoms
from dxseg.training import callbacks, stages
from dxseg.training.datamodule.training_data import TrainingData, prepare_training_data
from dxseg.training.modules.segmentation import SegmentationModule
from dxseg.training.run_splits import resolve_splits
from dxseg.training.trainer import TrainerSettings

PHANTOMS = 64
WARM_UP = 4
COOL_DOWN = 2
"""Steps after the counted ones: the loader reads ahead, so the last ones load nothing."""


class BareLoop:
    """A loop that does nothing but train."""

    def __init__(self, data: TrainingData, config: RunConfig) -> None:
        """Build network and optimizer as stage 2 does."""
        segmenter = build_model(config.model, data.task)
        self.network: nn.Module = segmenter.to(memory_format=torch.channels_last).train()
        # Only for its loss and for which part learns at which rate.
        module = SegmentationModule(segmenter, config.model, config.stage2)
        configured: Any = module.configure_optimizers()
        self.loss = module.loss
        self.optimizer = configured["optimizer"]
        self.schedule = configured["lr_scheduler"]["scheduler"]
        self.clip = config.stage2.gradient_clip_val
        decay = config.stage2.ema_decay
        self.average = (
            AveragedModel(self.network, multi_avg_fn=get_ema_multi_avg_fn(decay)) if decay else None
        )

    def run(self, batches: list[Batch], steps: int) -> float:
        """Train for some steps; gives the seconds."""
        torch.use_deterministic_algorithms(False)  # Lightning has them on
        started = perf_counter()
        for step in range(steps):
            batch = batches[step % len(batches)]
            self.optimizer.zero_grad()
            self.loss(self.network(batch["image"]).mask_logits, batch["mask"]).backward()
            clip_grad_norm_(self.network.parameters(), self.clip)
            self.optimizer.step()
            self.schedule.step()
            if self.average is not None:
                self.average.update_parameters(self.network)
        seconds = perf_counter() - started
        torch.use_deterministic_algorithms(True, warn_only=True)
        return seconds


class TimedModule(SegmentationModule):
    """Stage 2 that is held every few steps while the bare loop makes as many."""

    seconds: ClassVar[list[tuple[float, float]]] = []

    def __init__(self, bare: BareLoop, steps: int, rounds: int, *args: Any, **options: Any) -> None:
        """Take the module's own arguments last."""
        super().__init__(*args, **options)
        # In a tuple, so that torch does not take the bare network for a part of this one.
        self.bare = (bare,)
        self.steps, self.rounds = steps, rounds
        self.batches: list[Batch] = []
        self.resumed = 0.0

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Time a round where one ends; `batch_idx` counts from 0."""
        counted = batch_idx - WARM_UP
        if counted < 0:
            self.batches.append(copy.deepcopy(batch))
        elif counted == 0:
            self.bare[0].run(self.batches, WARM_UP)
            self.resumed = perf_counter()
        elif counted % self.steps == 0 and len(self.seconds) < self.rounds:
            real = perf_counter() - self.resumed
            self.seconds.append((real, self.bare[0].run(self.batches, self.steps)))
            self.resumed = perf_counter()
        super().on_train_batch_start(batch, batch_idx)


def time_rounds(
    data: TrainingData, config: RunConfig, folder: Path, steps: int, rounds: int
) -> list[tuple[float, float]]:
    """Seconds of the real and of the bare steps of each round."""
    bare = BareLoop(data, config)
    seconds: list[tuple[float, float]] = []
    TimedModule.seconds = seconds  # of the class: what is trained is a copy of the module

    def build(*args: Any, **options: Any) -> TimedModule:
        return TimedModule(bare, steps, rounds, *args, **options)

    with (
        Path(os.devnull).open("w", encoding="utf-8") as nowhere,
        mock.patch.object(stages, "SegmentationModule", build),
        # Drawn as on a terminal, and thrown away.
        mock.patch.object(callbacks, "console", Console(file=nowhere, force_terminal=True)),
    ):
        settings = TrainerSettings(config.device, config.seed)
        stages.train_stage2(data, config, folder, settings, None)
    return seconds


def prepare(arguments: argparse.Namespace, folder: Path) -> tuple[TrainingData, RunConfig]:
    """The dataset's training cases, and a configuration of one long epoch."""
    total = WARM_UP + arguments.steps * arguments.rounds + COOL_DOWN
    overrides = {
        "data": {
            "image_size": arguments.size,
            "batch_size": arguments.batch,
            "workers": arguments.workers,
            "cache_dir": str(folder / "cache"),
        },
        "split": {"masks": None},
        "stage2": {"steps": total, "steps_per_epoch": total},
        "device": {"accelerator": "cpu", "devices": 1},
    }
    config = load_config("cpu", arguments.method, overrides)
    if arguments.dataset is None:
        dataset = make_phantoms(folder / "phantoms", images=PHANTOMS, size=max(64, arguments.size))
    else:
        dataset = Dataset.load(arguments.dataset)
    encoder = PyramidEncoder(config.model.backbone, dataset.spec.channels)
    splits = resolve_splits(dataset, config, None)
    data = prepare_training_data(dataset, splits, config, (encoder.mean, encoder.std))
    return dataclasses.replace(data, mask_validation=None), config


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run all rounds."""
    with tempfile.TemporaryDirectory(prefix="dxseg-bench-") as name:
        data, config = prepare(arguments, Path(name))
        stage2 = Path(name) / "stage2"
        seconds = time_rounds(data, config, stage2, arguments.steps, arguments.rounds)
        torch.use_deterministic_algorithms(False)
    images = arguments.steps * arguments.batch
    ratios = [bare / real for real, bare in seconds]
    return {
        "benchmark": "train_throughput",
        "method": arguments.method,
        "dataset": "phantoms" if arguments.dataset is None else str(arguments.dataset),
        "image_size": arguments.size,
        "channels": data.task.channels,
        "batch_size": arguments.batch,
        "workers": arguments.workers,
        "torch_threads": torch.get_num_threads(),
        "rounds": arguments.rounds,
        "steps": arguments.steps,
        "real_images_per_s": round(statistics.median(images / real for real, _ in seconds), 2),
        "bare_images_per_s": round(statistics.median(images / bare for _, bare in seconds), 2),
        "ratio": round(statistics.median(ratios), 3),
        "ratios": [round(ratio, 3) for ratio in ratios],
    }


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = parser_of(__doc__)
    parser.add_argument("--dataset", type=Path, help="a dxseg dataset; phantoms are made if absent")
    parser.add_argument("--method", default="sks", choices=method_names())
    parser.add_argument("--size", type=int, default=128, help="image side in pixels (128)")
    parser.add_argument("--batch", type=int, default=16, help="images a step (16)")
    parser.add_argument("--workers", type=int, default=0, help="loader processes (0)")
    parser.add_argument("--steps", type=int, default=4, help="steps of each side a round (4)")
    parser.add_argument("--rounds", type=int, default=10, help="rounds of both sides (10)")
    parser.add_argument("--threads", type=int, help="torch threads (torch's own choice)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure, print a table and a JSON line; gives what the line holds."""
    arguments = parse(argv)
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    result = measure(arguments)
    table = Table(
        title=f"Stage-2 training, {result['method']}, {result['image_size']} px, batch "
        f"{result['batch_size']}, {result['torch_threads']} torch threads"
    )
    table.add_column("")
    table.add_column("images/s", justify="right")
    table.add_column("of bare", justify="right")
    table.add_row("dxseg", f"{result['real_images_per_s']:.1f}", f"{result['ratio']:.2f}")
    table.add_row("bare loop", f"{result['bare_images_per_s']:.1f}", "1.00")
    Console().print(table)
    print(json.dumps(result))
    return result


if __name__ == "__main__":
    main(sys.argv[1:])

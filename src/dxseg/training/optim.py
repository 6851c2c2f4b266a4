"""AdamW with warm-up and cosine decay, and a learning rate for each part of the network."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging
from lightning.pytorch.utilities.types import LRSchedulerConfigType, OptimizerLRScheduler
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, LRScheduler, SequentialLR

from dxseg.config.stages import StageConfig


def build_optimizer(
    parts: Iterable[tuple[nn.Module, float]], config: StageConfig
) -> OptimizerLRScheduler:
    """Build the optimizer and the per-step schedule for Lightning.

    Args:
        parts: (module, factor on the learning rate); a parameter belongs to the first part that
            holds it. Parameters that need no gradient are left out.
        config: learning rate, weight decay, warm-up and length of the stage.
    """
    groups: list[dict[str, Any]] = []
    seen: set[int] = set()
    for module, factor in parts:
        fresh = [p for p in module.parameters() if p.requires_grad and id(p) not in seen]
        seen.update(id(p) for p in fresh)
        rate = config.learning_rate * factor
        # Norm scales and biases are not decayed, as is usual since Loshchilov and Hutter (2019).
        decayed = [p for p in fresh if p.ndim > 1]
        plain = [p for p in fresh if p.ndim <= 1]
        groups.append({"params": decayed, "lr": rate, "weight_decay": config.weight_decay})
        groups.append({"params": plain, "lr": rate, "weight_decay": 0.0})
    optimizer = torch.optim.AdamW([group for group in groups if group["params"]])
    schedule: LRSchedulerConfigType = {
        "scheduler": _schedule(optimizer, config),
        "interval": "step",
    }
    return {"optimizer": optimizer, "lr_scheduler": schedule}


def average_weights(config: StageConfig) -> list[pl.Callback]:
    """Lightning's moving average of the weights, if the stage has one."""
    return [EMAWeightAveraging(decay=config.ema_decay)] if config.ema_decay else []


def _schedule(optimizer: torch.optim.Optimizer, config: StageConfig) -> LRScheduler:
    warmup = min(config.warmup_steps, config.total_steps - 1)
    cosine = CosineAnnealingLR(optimizer, T_max=config.total_steps - warmup)
    if warmup == 0:
        return cosine
    ramp = LinearLR(optimizer, start_factor=1 / (warmup + 1), total_iters=warmup)
    return SequentialLR(optimizer, [ramp, cosine], milestones=[warmup])

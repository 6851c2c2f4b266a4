"""Schedule and parameter groups."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from dxseg.config.presets import load_config
from dxseg.config.stages import StageConfig
from dxseg.models.factory import Task, build_model
from dxseg.training.modules.segmentation import SegmentationModule
from dxseg.training.optim import build_optimizer


def built(parts: list[tuple[nn.Module, float]], **changes: Any) -> tuple[Any, Any]:
    made: Any = build_optimizer(parts, StageConfig(**changes))
    assert made["lr_scheduler"]["interval"] == "step"
    return made["optimizer"], made["lr_scheduler"]["scheduler"]


def rates(steps: int, **changes: Any) -> list[float]:
    """The learning rate of each step."""
    optimizer, schedule = built([(nn.Linear(2, 2), 1.0)], steps=steps, **changes)
    seen = []
    for _ in range(steps):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return seen


def test_warm_up_is_linear_and_the_cosine_ends_at_zero() -> None:
    seen = rates(100, steps_per_epoch=50, warmup_steps=10, learning_rate=0.01)
    assert seen[:11] == pytest.approx([0.01 * (1 + step) / 11 for step in range(11)])
    assert seen[10] == max(seen) == pytest.approx(0.01)
    cosine = [0.005 * (1 + math.cos(math.pi * step / 90)) for step in range(90)]
    assert seen[10:] == pytest.approx(cosine)
    assert seen[-1] < 1e-5


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 60))
@settings(max_examples=30, deadline=None)
def test_any_length_and_warm_up_stay_within_bounds(steps: int, epoch: int, warmup: int) -> None:
    config = StageConfig(steps=steps, steps_per_epoch=epoch, warmup_steps=warmup)
    total = config.total_steps
    assert steps <= total < steps + epoch
    assert total == config.max_epochs * config.epoch_steps
    seen = rates(total, steps_per_epoch=config.epoch_steps, warmup_steps=warmup, learning_rate=1.0)
    assert all(0 < rate <= 1 + 1e-9 for rate in seen)
    top = seen.index(max(seen))
    assert seen[: top + 1] == sorted(seen[: top + 1])
    assert seen[top:] == sorted(seen[top:], reverse=True)


def named_rates(module: nn.Module, optimizer: Any) -> dict[str, tuple[float, float]]:
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    return {
        names[id(parameter)]: (group["initial_lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }


@pytest.mark.parametrize("method", ["sks-evidence", "unet", "unetplusplus"])
@pytest.mark.parametrize("coarse_scale", [0.0, 0.1])
def test_every_trainable_parameter_is_in_one_group_at_its_rate(
    method: str, coarse_scale: float
) -> None:
    model = {
        "backbone": "mobilenetv3_small_050",
        "decoder_channels": [8] * 5,
        "coarse_learning_rate_scale": coarse_scale,
    }
    config = load_config("cpu", method, {"model": model}).model
    segmenter = build_model(config, Task(1, 1, 3), pretrained=False)
    stage = StageConfig(learning_rate=0.01, encoder_learning_rate_scale=0.5, weight_decay=0.2)
    module = SegmentationModule(segmenter, config, stage)
    optimizer = module.configure_optimizers()["optimizer"]  # type: ignore[index, call-overload]
    listed = [id(p) for group in optimizer.param_groups for p in group["params"]]
    trainable = {name: p for name, p in module.named_parameters() if p.requires_grad}
    assert len(listed) == len(set(listed))  # disjoint
    assert set(listed) == {id(p) for p in trainable.values()}  # complete
    encoder = {id(p) for p in segmenter.encoder.parameters()}
    for name, (rate, decay) in named_rates(module, optimizer).items():
        parameter = trainable[name]
        coarse = name.startswith("segmenter.coarse.")
        scale = coarse_scale if coarse else 0.5 if id(parameter) in encoder else 1.0
        assert rate == pytest.approx(0.01 * scale), name
        assert decay == (0.2 if parameter.ndim > 1 else 0.0), name


def test_initial_rates_are_kept_apart_by_the_schedule() -> None:
    optimizer, schedule = built([(nn.Linear(2, 2), 0.1), (nn.Linear(2, 2), 1.0)], warmup_steps=5)
    for _ in range(50):
        optimizer.step()
        schedule.step()
        slow, fast = (optimizer.param_groups[index]["lr"] for index in (0, 2))
        assert slow == pytest.approx(fast * 0.1)


def test_the_schedule_continues_from_its_state() -> None:
    def run(schedule: Any, optimizer: Any, steps: int) -> list[float]:
        seen = []
        for _ in range(steps):
            optimizer.step()
            schedule.step()
            seen.append(optimizer.param_groups[0]["lr"])
        return seen

    whole = built([(nn.Linear(2, 2), 1.0)], steps=40, steps_per_epoch=20)
    run(whole[1], whole[0], 25)
    fresh = built([(nn.Linear(2, 2), 1.0)], steps=40, steps_per_epoch=20)
    fresh[0].load_state_dict(whole[0].state_dict())
    fresh[1].load_state_dict(whole[1].state_dict())
    assert run(fresh[1], fresh[0], 15) == run(whole[1], whole[0], 15)
    assert torch.isfinite(torch.tensor(fresh[0].param_groups[0]["lr"]))

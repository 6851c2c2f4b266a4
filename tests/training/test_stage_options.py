"""What the options of a stage change."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dxseg.data.table.dataset import Dataset
from dxseg.training import stages
from dxseg.training.datamodule.stage_data import mask_pools
from dxseg.training.modules.segmentation import SegmentationModule
from dxseg.training.run_record import read_run
from trained_runs import metrics_of, same_weights, weights_of


def script_validation(
    monkeypatch: pytest.MonkeyPatch, figures: list[float]
) -> list[dict[str, torch.Tensor]]:
    """Let each epoch's validation find a given Dice; gives the weights that it looked at."""
    seen: list[dict[str, torch.Tensor]] = []

    def validate(self: SegmentationModule, batch: Any, batch_idx: int) -> None:
        if batch_idx == 0:
            state = self.segmenter.state_dict()
            seen.append({name: tensor.clone() for name, tensor in state.items()})
        self.log("val_dice", figures[self.current_epoch], batch_size=1)

    monkeypatch.setattr(SegmentationModule, "validation_step", validate)
    return seen


class TestStageOptions:
    def test_averaged_weights_end_the_stage_and_leave_the_training_alone(
        self, train: Callable[..., Path]
    ) -> None:
        plain = train()
        averaged = train(name="ema", stage2={"ema_decay": 0.9})
        assert metrics_of(plain)["train_loss"].equals(metrics_of(averaged)["train_loss"])
        assert not same_weights(plain, averaged)

    def test_training_stops_early(
        self, train: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        script_validation(monkeypatch, [0.2, 0.5, 0.4, 0.5, 0.9, 0.9])
        run = train(stage2={"steps": 6, "early_stopping_patience": 2})
        assert list(metrics_of(run)["val_dice"]) == [0.2, 0.5, 0.4, 0.5]

    def test_the_best_weights_are_kept(
        self, train: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen = script_validation(monkeypatch, [0.2, 0.9, 0.4])
        kept = weights_of(train(stage2={"steps": 3, "checkpoint": "best"}))
        assert all(torch.equal(kept[name], seen[1][name]) for name in kept)
        assert not all(torch.equal(kept[name], seen[2][name]) for name in kept)

    def test_accumulation_takes_more_batches_a_step(
        self, train: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        batches: list[int] = []
        step = SegmentationModule.training_step

        def counted(self: SegmentationModule, batch: Any, batch_idx: int) -> torch.Tensor:
            batches.append(len(batch["image"]))
            return step(self, batch, batch_idx)

        monkeypatch.setattr(SegmentationModule, "training_step", counted)
        run = train(stage2={"accumulate_grad_batches": 3})
        assert list(metrics_of(run)["step"]) == [1, 2]
        assert batches == [4] * 6

    def test_without_any_validation_the_last_weights_are_kept(
        self, train: Callable[..., Path], copied: Path
    ) -> None:
        dataset = Dataset.load(copied)
        dataset.cases["split"] = dataset.cases["split"].replace({"validation": "test"})
        dataset.save()
        run = train("unet-stage1", dataset=copied)
        assert set(metrics_of(run)) == {"epoch", "step", "train_loss"}

    def test_validation_of_lesion_free_images_alone(self, train: Callable[..., Path]) -> None:
        run = train(split={"validation_masks": 0})
        assert "val_dice" not in metrics_of(run)
        assert metrics_of(run)["val_false_positive_rate"].between(0, 1).all()
        assert read_run(run)["cases"]["validation_masks"] == 0

    def test_a_small_batch_keeps_a_lesion(self) -> None:
        pools = mask_pools(np.array([True, True, False]), 0.9, 2)
        assert [count for _, count in pools] == [1, 1]

    def test_workers_change_nothing(self, train: Callable[..., Path]) -> None:
        assert same_weights(train(), train(name="workers", data={"workers": 1}))

    def test_the_same_seed_gives_the_same_weights_and_another_gives_others(
        self, train: Callable[..., Path]
    ) -> None:
        first, again = train(name="a"), train(name="b")
        assert same_weights(first, again)
        assert not same_weights(first, train(name="c", seed=1))

    def test_unlabelled_images_are_left_out_of_stage_one(
        self, train: Callable[..., Path], copied: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        dataset = Dataset.load(copied)
        lesions = dataset.cases["label"] != "none"
        hidden = lesions & (np.arange(len(lesions)) % 2 == 0)
        dataset.cases.loc[hidden, "label"] = ""
        dataset.save()
        targets: list[torch.Tensor] = []
        step = stages.ClassificationModule.training_step

        def watched(self: Any, batch: Any, batch_idx: int) -> torch.Tensor:
            targets.append(batch["label"])
            return step(self, batch, batch_idx)

        monkeypatch.setattr(stages.ClassificationModule, "training_step", watched)
        train("unet-stage1", dataset=copied)
        assert (torch.cat(targets) >= 0).all()

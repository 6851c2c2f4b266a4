"""Self-training in whole runs: what it learns, what it may not read, where it goes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from dxseg.config.schema import RunConfig
from dxseg.data.batches.batches import BatchDataset
from dxseg.data.table.dataset import Dataset
from dxseg.errors import DxsegError, UsageError
from dxseg.models.factory import build_segmenter
from dxseg.training import sequence
from dxseg.training.datamodule.training_data import prepare_training_data
from dxseg.training.modules.self_training import SelfTrainingModule
from dxseg.training.run import train_run
from dxseg.training.run_record import read_run
from dxseg.training.run_splits import resolve_splits
from dxseg.training.stages import self_train
from dxseg.training.trainer import TrainerSettings

Configure = Callable[..., RunConfig]
STAGE = {"steps": 4, "steps_per_epoch": 2, "warmup_steps": 1}
STAGE2 = {"steps": 25, "steps_per_epoch": 25, "warmup_steps": 5, "learning_rate": 3e-3}
BUDGET = {"split": {"masks": 4}}
HEALTHY, MALIGNANT = 0, 2


def test_masks_beyond_the_budget_are_never_seen(disks: Path, configure: Configure) -> None:
    dataset = Dataset.load(disks)
    config = configure("unet-selftrained", **BUDGET)
    splits = resolve_splits(dataset, config, None)
    arrays = prepare_training_data(dataset, splits, config, ((0.5,), (0.5,))).label_train
    rows = list(range(len(arrays)))
    batch = BatchDataset(
        arrays, prepare_training_data(dataset, splits, config, ((0.5,), (0.5,))).preprocessing, None
    )[[(row, 0) for row in rows]]
    assert not batch["mask"][~batch["masked"]].any()
    lesions = batch["masked"] & (batch["label"] != HEALTHY)
    assert int(lesions.sum()) == 4
    assert batch["mask"][lesions].flatten(1).any(dim=1).all()
    assert batch["masked"][batch["label"] == HEALTHY].all()


def test_the_teacher_follows_once_per_optimizer_step(
    train: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not once per batch."""
    updates: list[int] = []
    monkeypatch.setattr(AveragedModel, "update_parameters", lambda *_: updates.append(1))
    train("unet-selftrained", self_training={"accumulate_grad_batches": 3}, **BUDGET)
    assert len(updates) == 2


class TestRuns:
    def test_it_learns(self, disks: Path, learned: Path, teach: Configure, tmp_path: Path) -> None:
        """Four masks, twenty labels: proposals are kept, and validation masks get better."""
        run = train_run(disks, tmp_path / "run", teach("unet-selftrained"), stage2_run=learned)
        assert 0.3 < run["self_training"]["kept_pseudo_labels"] <= 1
        assert run["self_training"]["val_dice"] > max(0.5, run["stage2"]["val_dice"])
        assert run["seconds"]["self_training"] > 0

    @pytest.mark.parametrize("method", ["unet-unimatch", "unet-bcp"])
    @pytest.mark.slow
    def test_rivals_learn(
        self, method: str, disks: Path, learned: Path, teach: Configure, tmp_path: Path
    ) -> None:
        run = train_run(disks, tmp_path / "run", teach(method), stage2_run=learned)
        assert run["self_training"]["kept_pseudo_labels"] == 1
        assert 0.2 < run["self_training"]["kept_pixels"] <= 1
        assert run["self_training"]["val_dice"] > max(0.4, run["stage2"]["val_dice"])

    @pytest.mark.parametrize("method", ["unet-unimatch", "unet-bcp"])
    @pytest.mark.slow
    def test_without_the_filter_no_label_of_an_image_without_a_mask_is_read(
        self, method: str, disks: Path, configure: Configure, tmp_path: Path
    ) -> None:
        """With other labels, unknown and lesion-free ones among them, the weights are the same."""
        weights = {}
        for label_filter in (False, True):
            stage = STAGE | {"steps": 2, "label_filter": label_filter}
            config = configure(method, self_training=stage, **BUDGET)
            dataset = Dataset.load(disks)
            splits = resolve_splits(dataset, config, None)
            data = prepare_training_data(dataset, splits, config, ((0.5,), (0.5,)))
            cases = data.label_train
            others = np.resize([HEALTHY, -1, MALIGNANT], len(cases))
            wrong = np.where(cases.mask_rows < 0, others, cases.labels)
            assert (wrong != cases.labels).sum() > 5
            for name, labels in (("right", cases.labels), ("wrong", wrong)):
                torch.manual_seed(0)
                network, _ = self_train(
                    replace(data, label_train=replace(cases, labels=labels)),
                    config,
                    tmp_path / f"{name}-{label_filter}",
                    TrainerSettings(config.device, config.seed),
                    build_segmenter(config.model, data.task, pretrained=False),
                )
                weights[name, label_filter] = torch.cat(
                    [p.detach().flatten() for p in network.parameters()]
                )
        assert torch.equal(weights["right", False], weights["wrong", False])
        assert not torch.equal(weights["right", True], weights["wrong", True])

    def test_killed_at_any_stage_it_ends_the_same(
        self,
        disks: Path,
        configure: Configure,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        config = configure("sks-evidence-selftrained", self_training=STAGE, **BUDGET)
        whole = tmp_path / "whole"
        train_run(disks, whole, config)

        class PulledPlugError(BaseException):
            pass

        step, calls = SelfTrainingModule.training_step, [0]

        def failing(self: Any, batch: Any, batch_idx: int) -> Tensor:
            calls[0] += 1
            if calls[0] == 4:  # in the second epoch
                raise PulledPlugError
            return step(self, batch, batch_idx)

        run = tmp_path / "run"
        with monkeypatch.context() as patch:
            patch.setattr(SelfTrainingModule, "training_step", failing)
            with pytest.raises(PulledPlugError):
                train_run(disks, run, config)
        with monkeypatch.context() as patch:  # what is finished is not trained again
            patch.setattr(sequence, "train_stage2", lambda *_: pytest.fail("stage 2 again"))
            train_run(disks, run, config)
        for name in ("stage2/model/model.safetensors", "model/model.safetensors"):
            mine, theirs = load_file(run / name), load_file(whole / name)
            assert [key for key in theirs if not torch.equal(mine[key], theirs[key])] == [], name
        assert not list(run.rglob("*.ckpt*"))

    def test_another_run_can_be_gone_on_from(
        self, disks: Path, configure: Configure, plain_run: Path, tmp_path: Path
    ) -> None:
        """The same weights as when stage 2 is trained here; and no label or mask is left over."""
        config = configure("unet-selftrained", self_training=STAGE, **BUDGET)
        train_run(disks, tmp_path / "own", config)
        run = train_run(disks, tmp_path / "taken", config, stage2_run=plain_run)
        assert run["stage2_from"] == str(plain_run)
        assert run["stage2"] == read_run(plain_run)["stage2"]
        mine, theirs = (
            load_file(tmp_path / name / "model" / "model.safetensors") for name in ("taken", "own")
        )
        assert [key for key in theirs if not torch.equal(mine[key], theirs[key])] == []

    @pytest.mark.parametrize(
        ("method", "changes", "message"),
        [
            ("unet-selftrained", {"seed": 1}, "other seed, splits"),
            ("unet-selftrained", {"data": {"lesion_free_fraction": 0.5}}, "other data"),
            ("unet", {}, "has no stage that could follow"),
        ],
    )
    def test_another_configuration_is_refused(
        self,
        method: str,
        changes: dict[str, Any],
        message: str,
        disks: Path,
        configure: Configure,
        plain_run: Path,
        tmp_path: Path,
    ) -> None:
        config = configure(method, **BUDGET, **changes)
        expected = UsageError if method == "unet" else DxsegError
        with pytest.raises(expected, match=message):
            train_run(disks, tmp_path / "run", config, stage2_run=plain_run)

    def test_a_batch_without_images_to_propose_for_is_all_masks(
        self, disks: Path, configure: Configure, tmp_path: Path
    ) -> None:
        config = configure("unet-selftrained", self_training=STAGE)
        run = train_run(disks, tmp_path / "run", config)
        assert "kept_pseudo_labels" not in run["self_training"]


@pytest.fixture(scope="module")
def plain_run(
    disks: Path,
    configure: Configure,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    output = tmp_path_factory.mktemp("plain") / "run"
    train_run(disks, output, configure("unet", **BUDGET))
    return output


@pytest.fixture(scope="module")
def learned(disks: Path, configure: Configure, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stage 2 that has learned something, for runs that go on from it."""
    output = tmp_path_factory.mktemp("learned") / "run"
    train_run(disks, output, configure("unet", data={"batch_size": 8}, stage2=STAGE2, **BUDGET))
    return output


@pytest.fixture
def teach(configure: Configure) -> Configure:
    """The configuration of a method that goes on from it."""
    stage = STAGE2 | {"steps": 30, "steps_per_epoch": 30, "ema_decay": 0.9}

    def make(method: str) -> RunConfig:
        changes = {"data": {"batch_size": 8}, "stage2": STAGE2, "self_training": stage}
        return configure(method, **changes, **BUDGET)

    return make

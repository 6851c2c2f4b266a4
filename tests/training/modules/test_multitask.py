"""C4: one branch that learns masks and labels together."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch

from dxseg.config.presets import load_config
from dxseg.config.schema import RunConfig
from dxseg.data.table.dataset import Dataset
from dxseg.inference.model_folder import read_info
from dxseg.inference.predictor import Predictor
from dxseg.models.factory import Task, build_coarse_branch, build_model
from dxseg.training.losses import LabelLoss
from dxseg.training.modules.multitask import MultitaskModule
from dxseg.training.run import train_run
from trained_runs import figures_on_test

Configure = Callable[..., RunConfig]


def batch(images: int, *, masks: torch.Tensor, labels: list[int]) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(images, 1, 64, 64, generator=generator)
    return {"image": image, "mask": masks, "label": torch.tensor(labels)}


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> MultitaskModule:
    changes = {"backbone": "lcnet_050", "decoder_channels": [8] * 5}
    config = load_config("cpu", "unet-multitask", {"model": changes})
    torch.manual_seed(0)
    segmenter = build_model(config.model, Task(1, 1, 3), pretrained=False).eval()
    # Untrained it gives every label the same logit, and no label would be wronger than another.
    segmenter.label_head.bias.data.copy_(torch.tensor([1.0, 0.0, -1.0]))  # type: ignore[union-attr, operator]
    module = MultitaskModule(
        segmenter, LabelLoss(torch.ones(3), multi_label=False), config.model, config.stage2
    )
    monkeypatch.setattr(module, "log_dict", lambda *_, **__: None)
    return module


def test_each_batch_teaches_its_own_loss(module: MultitaskModule) -> None:
    """The labels of the masked images and the masks of the labeled ones do not count."""
    full, empty = torch.ones(2, 1, 64, 64), torch.zeros(2, 1, 64, 64)
    masked = batch(2, masks=full, labels=[0, 0])
    labelled = batch(2, masks=empty, labels=[1, 2])
    with torch.no_grad():
        loss = module.training_step({"masks": masked, "labels": labelled}, 0)
        other_label = masked | {"label": torch.tensor([2, 1])}
        other_mask = labelled | {"mask": full}
        assert module.training_step({"masks": other_label, "labels": other_mask}, 0) == loss
        for changed in (
            {"masks": masked | {"mask": empty}, "labels": labelled},
            {"masks": masked, "labels": labelled | {"label": torch.tensor([0, 0])}},
        ):
            assert module.training_step(changed, 0) != loss


def test_the_label_head_starts_as_stage_one_ended() -> None:
    changes = {"backbone": "lcnet_050", "decoder_channels": [8] * 5, "encoder_init": "stage1"}
    config = load_config("cpu", "unet-multitask", {"model": changes}).model
    task = Task(1, 1, 3)
    stage1 = build_coarse_branch(config, task, pretrained=False).eval()
    student = build_model(config, task, stage1=stage1, pretrained=False).eval()
    x = torch.randn(2, 1, 64, 64)
    with torch.no_grad():
        named, wanted = student(x).label_logits, stage1(x).global_logits
    assert named is not None
    assert torch.allclose(named, wanted, atol=1e-6)


def test_masks_and_labels_are_both_learnt(
    disks: Path, configure: Configure, tmp_path: Path
) -> None:
    """Dice 0.6 and two labels of three right, in half the steps of both stages of the method."""
    stage = {"steps": 60, "steps_per_epoch": 20, "warmup_steps": 5, "learning_rate": 3e-3}
    config = configure("unet-multitask", data={"batch_size": 8}, stage2=stage)
    run = tmp_path / "run"
    train_run(disks, run, config)
    assert not (run / "stage1").exists()
    dice, accuracy = figures_on_test(Predictor.from_folder(run / "model"), Dataset.load(disks))
    assert dice > 0.6
    assert accuracy > 0.65
    assert read_info(run / "model").rule_out_threshold is not None
    table = pd.read_csv(run / "stage2" / "metrics.csv")
    for part in ("train_mask_loss", "train_label_loss"):
        assert table[part].iloc[-1] < table[part].iloc[0]

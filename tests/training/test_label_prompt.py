"""Training tells the network some labels and hides the others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from rich.console import Console

from dxseg.config.schema import ModelConfig, RunConfig, StageConfig
from dxseg.data.table.dataset import Dataset
from dxseg.models.segmentation_model import SegmentationModel, SegmenterOutput
from dxseg.training import stages
from dxseg.training.datamodule import gather, resolve_splits
from dxseg.training.segmentation_module import Stage2Module, drop_labels

NAN = float("nan")


def test_a_share_of_the_labels_is_told_and_unknown_ones_stay_unknown() -> None:
    torch.manual_seed(0)
    label = torch.arange(4000) % 4 - 1
    known = drop_labels(label, 0.3)
    told = known >= 0
    assert torch.equal(known[told], label[told])
    assert not told[label < 0].any()
    assert told[label >= 0].float().mean().item() == pytest.approx(0.3, abs=0.03)
    assert torch.equal(drop_labels(label, 1.0), label)
    assert drop_labels(label, 0.0) is None


def test_labels_of_one_image_are_told_together() -> None:
    torch.manual_seed(0)
    label = torch.tensor([[0.0, 1.0, 1.0]]).repeat(400, 1)
    known = drop_labels(label, 0.5)
    hidden = known.isnan().all(dim=1)
    assert torch.equal(known.isnan().any(dim=1), hidden)
    assert torch.equal(known[~hidden], label[~hidden])
    assert 100 < hidden.sum() < 300


class Listening(SegmentationModel):
    """Remembers what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[torch.Tensor | None] = []

    def _forward_padded(self, x: torch.Tensor, known: torch.Tensor | None) -> SegmenterOutput:
        self.told.append(known)
        return SegmenterOutput(x)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_training_tells_labels_and_validation_never(
    share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    segmenter = Listening()
    module = Stage2Module(segmenter, ModelConfig(), StageConfig(), 0, share)
    monkeypatch.setattr(module, "log", lambda *_, **__: None)
    label = torch.tensor([2, -1, 0])
    image = torch.zeros(3, 1, 32, 32)
    batch = {"image": image, "mask": torch.ones_like(image), "label": label}
    module.training_step(batch, 0)
    module.validation_step(batch, 0)
    trained, validated = segmenter.told
    assert validated is None
    assert trained is None if share == 0 else torch.equal(trained, label)


@pytest.mark.parametrize(("method", "share"), [("sks", 0.5), ("sks-no-labels", 0.0), ("unet", 0.0)])
def test_only_networks_that_learnt_labels_are_told_any(
    method: str,
    share: float,
    disks: Path,
    configure: Callable[..., RunConfig],
    quiet: Console,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    modules: list[Stage2Module] = []

    def fit(module: Stage2Module, *_: object, **__: object) -> dict[str, float]:
        modules.append(module)
        return {}

    monkeypatch.setattr(stages, "fit_stage", fit)
    config, dataset = configure(method, data={"cache_dir": str(tmp_path)}), Dataset.load(disks)
    material = gather(dataset, resolve_splits(dataset, config, None), config, ((0.5,), (0.25,)))
    stages.train_stage2(material, config, tmp_path, None, quiet)
    assert modules[0].label_prompt_prob == share

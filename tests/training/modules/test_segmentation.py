"""Training gives the network some labels as prompts, validation none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from dxseg.config.network import ModelConfig
from dxseg.config.schema import RunConfig
from dxseg.config.stages import StageConfig
from dxseg.data.table.dataset import Dataset
from dxseg.models.segmentation_model import SegmentationModel, SegmenterOutput
from dxseg.training import stages
from dxseg.training.datamodule.stage_data import StageData
from dxseg.training.datamodule.training_data import prepare_training_data
from dxseg.training.modules.segmentation import SegmentationModule
from dxseg.training.run_splits import resolve_splits
from dxseg.training.trainer import TrainerSettings


class Recording(SegmentationModel):
    """Records its prompts."""

    def __init__(self) -> None:
        super().__init__()
        self.prompts: list[torch.Tensor | None] = []

    def _forward_padded(
        self, x: torch.Tensor, label_prompt: torch.Tensor | None, _whole: object
    ) -> SegmenterOutput:
        self.prompts.append(label_prompt)
        return SegmenterOutput(x)


def test_training_gives_the_prompts_of_the_batch_and_validation_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    segmenter = Recording()
    module = SegmentationModule(segmenter, ModelConfig(), StageConfig())
    monkeypatch.setattr(module, "log", lambda *_, **__: None)
    label, prompt = torch.tensor([2, -1, 0]), torch.tensor([-1, -1, 0])
    image = torch.zeros(3, 1, 32, 32)
    batch = {"image": image, "mask": torch.ones_like(image), "label": label, "label_prompt": prompt}
    module.training_step(batch, 0)  # type: ignore[arg-type]
    module.validation_step(batch, 0)  # type: ignore[arg-type]
    trained, validated = segmenter.prompts
    assert validated is None
    assert trained is prompt


@pytest.mark.parametrize(
    ("method", "probability"), [("sks", 0.5), ("sks-no-labels", 0.0), ("unet", 0.0)]
)
def test_only_networks_that_learnt_labels_get_any(
    method: str,
    probability: float,
    disks: Path,
    configure: Callable[..., RunConfig],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trained_on: list[StageData] = []

    def fit(module: object, data: StageData, *_: object, **__: object) -> dict[str, float]:
        trained_on.append(data)
        return {}

    monkeypatch.setattr(stages, "fit_stage", fit)
    config, dataset = configure(method, data={"cache_dir": str(tmp_path)}), Dataset.load(disks)
    splits = resolve_splits(dataset, config, None)
    data = prepare_training_data(dataset, splits, config, ((0.5,), (0.25,)))
    settings = TrainerSettings(config.device, config.seed)
    stages.train_stage2(data, config, tmp_path, settings, None)
    prompts = [data.label_prompt_prob for data in trained_on]
    assert prompts == [probability]

"""Self-training: what the label lets through, who the teacher is, and whole runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from dxseg.config.network import ModelConfig
from dxseg.config.schema import RunConfig, SelfTrainingConfig
from dxseg.data.batches.batches import BatchDataset
from dxseg.data.table.dataset import Dataset
from dxseg.errors import DxsegError, UsageError
from dxseg.models.factory import Task
from dxseg.models.segmentation_model import SegmentationModel, SegmenterOutput
from dxseg.training import sequence
from dxseg.training.datamodule.training_data import prepare_training_data
from dxseg.training.losses import LabelLoss
from dxseg.training.modules.self_training import EVIDENCE_CUT, SelfTrainingModule
from dxseg.training.run import resolve_splits, train_run
from dxseg.training.run_record import read_run

Configure = Callable[..., RunConfig]
STAGE = {"steps": 6, "steps_per_epoch": 2, "warmup_steps": 1}
BUDGET = {"split": {"masks": 4}}
HEALTHY, BENIGN, MALIGNANT = 0, 1, 2
TASK = Task(channels=1, mask_classes=1, labels=3, lesion_free=(HEALTHY,))


class Constant(SegmentationModel):
    """Answers with the image itself as logits, times a weight, and with given evidence."""

    def __init__(self, evidence: Tensor | None = None) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))
        self.given = evidence

    @property
    def encoder(self) -> torch.nn.Module:
        return torch.nn.Identity()

    def _forward_padded(self, x: Tensor, *_: Any) -> SegmenterOutput:
        return SegmenterOutput(self.weight * x, None, self.given)


class Labelled(Constant):
    """The same with label logits, the same for every image."""

    def __init__(self) -> None:
        super().__init__()
        self.labels = torch.nn.Parameter(torch.tensor([0.0, 1.0, 2.0]))

    def _forward_padded(self, x: Tensor, *_: Any) -> SegmenterOutput:
        return SegmenterOutput(self.weight * x, self.labels.expand(len(x), 3))


def module(segmenter: SegmentationModel, **options: Any) -> SelfTrainingModule:
    config = SelfTrainingConfig(**options)
    return SelfTrainingModule(segmenter, ModelConfig(), config, TASK, prompt_teacher=False)


def flat(probability: float) -> Tensor:
    return torch.full((1, 32, 32), float(torch.logit(torch.tensor(probability))))


class TestProposals:
    @pytest.mark.parametrize(
        ("label", "probability", "kept"),
        [
            (BENIGN, 0.9, True),
            (MALIGNANT, 0.61, True),
            (BENIGN, 0.59, False),
            (MALIGNANT, 0.01, False),  # the label says that there is a lesion: "none" is wrong
            (-1, 0.9, True),
            (-1, 0.5, False),
            (-1, 0.01, True),  # sure of none, and no label against it
        ],
    )
    def test_the_label_filters(self, label: int, probability: float, kept: bool) -> None:
        images = flat(probability)[None]
        proposals, keep = module(Constant()).make_pseudo_labels(images, torch.tensor([label]))
        assert keep.tolist() == [kept]
        torch.testing.assert_close(proposals, torch.full((1, 1, 32, 32), probability))

    def test_no_image_without_a_mask(self) -> None:
        proposals, keep = module(Constant()).make_pseudo_labels(
            torch.zeros(0, 1, 32, 32), torch.zeros(0)
        )
        assert proposals.shape == (0, 1, 32, 32)
        assert keep.shape == (0,)

    def test_evidence_and_network_multiply(self) -> None:
        """Both experts' odds, evidence to a power and measured from the cut."""
        evidence = torch.full((1, 3, 8, 8), 0.0)
        evidence[:, BENIGN], evidence[:, MALIGNANT] = 0.3, 0.5
        evidence[:, HEALTHY] = 0.9  # says nothing about lesions
        images = flat(0.4)[None]
        proposals, _ = module(Constant(evidence), evidence_weight=0.5).make_pseudo_labels(
            images, torch.tensor([BENIGN])
        )
        excess = np.log(0.8 / 0.2) - EVIDENCE_CUT
        expected = np.log(0.4 / 0.6) + 0.5 * excess
        assert proposals.flatten()[0].item() == pytest.approx(1 / (1 + np.exp(-expected)), abs=1e-5)
        alone, _ = module(Constant(evidence), evidence_weight=0.0).make_pseudo_labels(
            images, torch.tensor([BENIGN])
        )
        assert alone.flatten()[0].item() == pytest.approx(0.4, abs=1e-5)


class TestTeacher:
    def test_it_is_the_moving_average_of_the_student(self) -> None:
        student = Constant()
        training = module(student, ema_decay=0.9)
        expected = 1.0
        for step, value in enumerate((1.0, 2.0, 5.0)):
            with torch.no_grad():
                student.weight.fill_(value)
            training.on_train_batch_end(None, {}, step)  # type: ignore[typeddict-item]
            expected = value if step == 0 else 0.9 * expected + 0.1 * value
        assert isinstance(training.teacher, Constant)
        assert training.teacher.weight.item() == pytest.approx(expected)

    def test_it_neither_learns_nor_trains(self) -> None:
        training = module(Constant()).train()
        assert training.segmenter.training
        assert not training.teacher.training
        assert not any(p.requires_grad for p in training.teacher.parameters())


@pytest.mark.filterwarnings("ignore:You are trying to `self.log")
def test_a_label_head_of_its_own_goes_on_learning() -> None:
    """Beside the masks: the loss is larger by the cross-entropy of the labels, -1 left out."""
    images = torch.stack([flat(0.9), flat(0.2), flat(0.7)])
    label = torch.tensor([BENIGN, HEALTHY, -1])
    batch: Any = {
        "image": images,
        "strong_image": images,
        "mask": torch.ones(3, 1, 32, 32),
        "masked": torch.tensor([True, True, True]),
        "label": label,
        "label_prompt": torch.full((3,), -1),
    }
    losses = []
    for label_loss in (None, LabelLoss(torch.ones(3), multi_label=False)):
        network = Labelled()
        training = SelfTrainingModule(
            network,
            ModelConfig(architecture="unet", label_head=True),
            SelfTrainingConfig(),
            TASK,
            prompt_teacher=False,
            label_loss=label_loss,
        )
        losses.append(training.training_step(batch, 0))
        losses[-1].backward()
        assert (network.labels.grad is not None) == (label_loss is not None)
    expected = torch.nn.functional.cross_entropy(
        torch.tensor([[0.0, 1.0, 2.0]] * 2), torch.tensor([BENIGN, HEALTHY])
    )
    assert (losses[1] - losses[0]).item() == pytest.approx(expected.item(), abs=1e-5)


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


class TestRuns:
    def test_it_learns(self, disks: Path, configure: Configure, tmp_path: Path) -> None:
        """Four masks, twenty labels: proposals are kept, and validation masks get better."""
        stage = {"steps": 40, "steps_per_epoch": 20, "warmup_steps": 5, "learning_rate": 3e-3}
        again = {"steps": 80, "steps_per_epoch": 20, "warmup_steps": 5, "learning_rate": 3e-3}
        config = configure(
            "unet-selftrained",
            data={"batch_size": 8},
            stage2=stage,
            self_training=again | {"ema_decay": 0.9},
            **BUDGET,
        )
        run = train_run(disks, tmp_path / "run", config)
        assert 0.3 < run["self_training"]["kept_pseudo_labels"] <= 1
        assert run["self_training"]["val_dice"] > max(0.5, run["stage2"]["val_dice"])
        assert run["seconds"]["self_training"] > 0

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
        self, disks: Path, configure: Configure, tmp_path: Path
    ) -> None:
        """The same weights as when stage 2 is trained here; and no label or mask is left over."""
        plain = configure("unet", self_training=None, **BUDGET)
        config = configure("unet-selftrained", self_training=STAGE, **BUDGET)
        train_run(disks, tmp_path / "plain", plain)
        train_run(disks, tmp_path / "own", config)
        run = train_run(disks, tmp_path / "taken", config, stage2_run=tmp_path / "plain")
        assert run["stage2_from"] == str(tmp_path / "plain")
        assert run["stage2"] == read_run(tmp_path / "plain")["stage2"]
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

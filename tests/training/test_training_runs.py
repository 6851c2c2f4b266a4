"""Whole runs on disks in noise: they learn, they refuse what is wrong, they read what they may."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from rich.console import Console
from safetensors.torch import load_file
from torchmetrics.classification import MulticlassAUROC, MultilabelAUROC

from dxseg.config import RunConfig
from dxseg.data.dataset import Dataset
from dxseg.data.readers import read_image
from dxseg.data.splits import read_splits
from dxseg.errors import DxsegError
from dxseg.inference.bundle import load_bundle
from dxseg.inference.predictor import Predictor
from dxseg.models.build import build_segmenter
from dxseg.models.sharing import divide
from dxseg.presets import arm_names, load_config, read_config
from dxseg.training import run as run_module
from dxseg.training import stages
from dxseg.training.batches import mask_pools
from dxseg.training.records import read_run
from dxseg.training.run import train_run
from dxseg.training.stage1 import MacroAUROC
from dxseg.training.stage2 import Stage2Module

Configure = Callable[..., RunConfig]
SCRATCH = "unet-scratch"
"""The arm for tests of stage 2 alone: no stage 1, no pretrained weights."""


@pytest.fixture
def train(disks: Path, configure: Configure, quiet: Console, tmp_path: Path) -> Callable[..., Path]:
    """Train a tiny run into ``tmp_path / name`` and give its folder."""

    def run(
        arm: str = SCRATCH,
        *,
        name: str = "run",
        dataset: Path = disks,
        stage1_run: Path | None = None,
        **changes: Any,
    ) -> Path:
        output = tmp_path / name
        config = configure(arm, **changes)
        train_run(dataset, output, config, stage1_run=stage1_run, console=quiet)
        return output

    return run


@pytest.fixture
def copied(disks: Path, tmp_path: Path) -> Path:
    """A copy of the dataset whose files a test may change."""
    copy = tmp_path / "copied"
    shutil.copytree(disks, copy, ignore=shutil.ignore_patterns(".cache"))
    return copy


def metrics_of(run: Path, stage: str = "stage2") -> pd.DataFrame:
    return pd.read_csv(run / stage / "metrics.csv")


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model" / "model.safetensors")


def same_weights(a: Path, b: Path) -> bool:
    mine, theirs = weights_of(a), weights_of(b)
    return mine.keys() == theirs.keys() and all(torch.equal(mine[n], theirs[n]) for n in mine)


def test_figures(predictor: Predictor, dataset: Dataset) -> tuple[float, float]:
    """Mean Dice on the lesions of the test split, and accuracy of the labels."""
    cases = dataset.cases[dataset.cases["split"] == "test"]
    predictions = predictor.predict([read_image(dataset.image_path(r)) for r in cases.itertuples()])
    dice, right = [], []
    for row, prediction in zip(cases.itertuples(), predictions, strict=True):
        mask = dataset.mask_path(row)
        if mask is not None:
            truth = np.asarray(Image.open(mask)) > 0
            found = prediction.mask > 0
            dice.append(2 * (truth & found).sum() / max(1, truth.sum() + found.sum()))
        labels = prediction.label_probabilities
        if labels:
            right.append(max(labels, key=lambda name: labels[name]) == row.label)
    return float(np.mean(dice)), float(np.mean(right)) if right else 0.0


test_figures.__test__ = False  # type: ignore[attr-defined]


class TestLearning:
    def test_test_images_are_segmented_and_named(self, finished: Path, disks: Path) -> None:
        """The bar: Dice 0.6 and two labels of three right; an untrained network fails both."""
        dataset = Dataset.load(disks)
        segmenter, info = load_bundle(finished / "model")
        dice, accuracy = test_figures(Predictor(segmenter, info), dataset)
        assert dice > 0.6
        assert accuracy > 0.65
        torch.manual_seed(0)
        task = segmenter_task(info)
        untrained = build_segmenter(info.model, task, pretrained=False).eval()
        dice, _ = test_figures(Predictor(untrained, info), dataset)
        assert dice < 0.4

    def test_losses_fall_and_validation_is_measured(self, finished: Path) -> None:
        first = metrics_of(finished, "stage1")
        assert list(first["epoch"]) == [0, 1, 2]
        assert list(first["step"]) == [20, 40, 60]
        assert first["train_loss"].iloc[-1] < first["train_loss"].iloc[0]
        assert first["val_accuracy"].iloc[-1] > 0.5  # chance is a third
        assert first["val_auroc"].between(0, 1).all()
        second = metrics_of(finished)
        assert second["train_loss"].iloc[-1] < second["train_loss"].iloc[0]
        assert second["val_dice"].iloc[-1] > 0.6
        assert second["val_false_positive_rate"].between(0, 1).all()
        assert {"val_loss"} <= set(first) & set(second)

    def test_a_run_leaves_its_record_and_no_checkpoints(self, finished: Path) -> None:
        assert not list(finished.rglob("*.ckpt*"))
        names = {path.name for path in finished.iterdir()}
        assert {"config.yaml", "splits.csv", "run.json", "stage1", "stage2", "model"} <= names
        record = read_run(finished)
        assert record["cases"]["train"] == 24
        assert record["cases"]["train_masks"] == 16
        assert record["cases"]["validation_masks"] == 6
        assert record["stage2"]["val_dice"] > 0.6
        config = read_config(finished / "config.yaml")
        assert config.arm == "sks-evidence"
        assert config.data.batch_size == 8

    def test_a_finished_run_is_returned_at_once(
        self, finished: Path, disks: Path, quiet: Console, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def forbidden(*_: Any, **__: Any) -> None:
            raise AssertionError("worked again")

        for name in ("gather", "_splits", "train_stage1", "train_stage2"):
            monkeypatch.setattr(run_module, name, forbidden)
        config = read_config(finished / "config.yaml")
        assert train_run(disks, finished, config, console=quiet) == read_run(finished)

    def test_the_frozen_coarse_branch_is_stage_one_to_the_bit(self, finished: Path) -> None:
        stage1 = load_file(finished / "stage1" / "coarse.safetensors")
        model = weights_of(finished)
        assert all(torch.equal(model[f"coarse.{name}"], stage1[name]) for name in stage1)


def test_shared_levels_are_stage_one_to_the_bit(train: Callable[..., Path], finished: Path) -> None:
    """Also where the rest of the coarse branch learns on."""
    changes = {"shared_stages": 2, "coarse_learning_rate_scale": 0.5}
    run = train("sks-evidence", stage1_run=finished, model=changes)
    segmenter, _ = load_bundle(run / "model")
    stage1 = load_file(finished / "stage1" / "coarse.safetensors")
    encoder = segmenter.coarse.encoder  # type: ignore[union-attr]
    shared = {
        tensor.data_ptr() for level in divide(encoder)[:2] for tensor in level.state_dict().values()
    }
    same: dict[bool, list[bool]] = {True: [], False: []}
    for name, tensor in encoder.state_dict().items():
        same[tensor.data_ptr() in shared].append(torch.equal(tensor, stage1[f"encoder.{name}"]))
    assert all(same[True])
    assert len(same[True]) > 10
    assert not all(same[False])


def segmenter_task(info: Any) -> Any:
    from dxseg.models.build import Task

    return Task(info.preprocessing.channels, len(info.mask_classes), len(info.labels))


@pytest.mark.parametrize("arm", arm_names())
def test_every_arm_trains(arm: str, train: Callable[..., Path], finished: Path) -> None:
    config = read_config(finished / "config.yaml")
    stage1 = finished if "stage1" in (config.model.encoder_init, config.model.coarse_init) else None
    run = train(arm, stage1_run=stage1)
    segmenter, info = load_bundle(run / "model")
    assert info.model.architecture == segmenter_architecture(arm)
    with torch.no_grad():
        assert segmenter(torch.zeros(1, 1, 64, 64)).isfinite().all()
    assert len(metrics_of(run)) == 2


def segmenter_architecture(arm: str) -> str:
    from dxseg.presets import load_config

    return load_config("cpu", arm).model.architecture


class TestRefusals:
    def test_another_configuration_in_the_same_folder(self, train: Callable[..., Path]) -> None:
        run = train()
        before = (run / "config.yaml").read_bytes()
        with pytest.raises(DxsegError, match=r"another configuration \(seed: 0 there, 1 asked\)"):
            train(seed=1)
        assert (run / "config.yaml").read_bytes() == before

    def test_another_dataset_in_the_same_folder(
        self, train: Callable[..., Path], copied: Path
    ) -> None:
        train()
        dataset = Dataset.load(copied)
        dataset.cases.loc[0, "label"] = "dark"
        dataset.save()
        with pytest.raises(DxsegError, match="another dataset"):
            train(dataset=copied)

    def test_a_folder_of_something_else(self, train: Callable[..., Path], tmp_path: Path) -> None:
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "thesis.tex").write_text("mine")
        with pytest.raises(DxsegError, match="not empty and not a run"):
            train()
        assert (tmp_path / "run" / "thesis.tex").read_text() == "mine"

    def test_a_stage_one_that_has_seen_the_test_cases(
        self, train: Callable[..., Path], finished: Path, copied: Path
    ) -> None:
        dataset = Dataset.load(copied)
        swapped = {"train": "test", "test": "train"}
        dataset.cases["split"] = dataset.cases["split"].replace(swapped)
        dataset.save()
        with pytest.raises(DxsegError, match=r"trained on \d\d cases .* validation or test"):
            train("unet-stage1", dataset=copied, stage1_run=finished)

    def test_a_stage_one_that_has_seen_the_patient_of_a_test_case(
        self, train: Callable[..., Path], finished: Path, copied: Path
    ) -> None:
        """The image itself was not in its training, another one of the same person was."""
        dataset = Dataset.load(copied)
        test = dataset.cases["split"] == "test"
        case = dataset.cases.index[dataset.cases["split"] == "train"][0]
        patient = dataset.cases.loc[test, "patient_id"].iloc[0]
        dataset.cases.loc[case, ["patient_id", "split"]] = [patient, "test"]
        dataset.save()
        with pytest.raises(DxsegError, match="trained on 2 cases"):
            train("unet-stage1", dataset=copied, stage1_run=finished)

    def test_a_stage_one_of_another_network(
        self, train: Callable[..., Path], finished: Path
    ) -> None:
        with pytest.raises(DxsegError, match="another backbone"):
            train("sks", stage1_run=finished, model={"decoder_channels": [8] * 5})

    def test_a_damaged_stage_one(
        self, train: Callable[..., Path], finished: Path, tmp_path: Path
    ) -> None:
        copy = tmp_path / "other"
        shutil.copytree(finished, copy)
        weights = copy / "stage1" / "coarse.safetensors"
        weights.write_bytes(weights.read_bytes()[:-4] + b"hurt")
        with pytest.raises(DxsegError, match=r"coarse\.safetensors"):
            train("unet-stage1", stage1_run=copy)
        weights.unlink()
        with pytest.raises(DxsegError, match=r"coarse\.safetensors"):
            train("unet-stage1", stage1_run=copy)

    def test_no_lesion_with_a_mask(self, train: Callable[..., Path], copied: Path) -> None:
        dataset = Dataset.load(copied)
        dataset.cases.loc[dataset.cases["split"] == "train", "mask"] = ""
        dataset.save()
        with pytest.raises(DxsegError, match="no training case with a lesion has a mask"):
            train(dataset=copied)

    @pytest.mark.parametrize("arm", ["sks", "unet-multitask"])
    def test_no_label_to_learn_from(
        self, arm: str, train: Callable[..., Path], copied: Path
    ) -> None:
        dataset = Dataset.load(copied)
        lesions = dataset.cases["label"] != "none"
        dataset.cases["label"] = ""
        dataset.cases.loc[lesions & (dataset.cases["split"] != "train"), "label"] = "dark"
        dataset.save()
        with pytest.raises(DxsegError, match="need image-level labels, and no training case"):
            train(arm, dataset=copied)

    def test_a_training_that_diverges(self, train: Callable[..., Path]) -> None:
        wild = {"steps": 6, "steps_per_epoch": 3, "learning_rate": 1e30, "warmup_steps": 0}
        with pytest.raises(DxsegError, match="diverged"):
            train(stage2=wild)

    @pytest.mark.parametrize("choice", [{"select": "best"}, {"early_stopping_patience": 1}])
    def test_a_choice_by_validation_without_validation_masks(
        self, train: Callable[..., Path], choice: dict[str, Any]
    ) -> None:
        with pytest.raises(DxsegError, match="stage2: select 'best' and early stopping"):
            train(stage2=choice, split={"validation_masks": 0})

    def test_a_choice_by_validation_without_two_labels(
        self, train: Callable[..., Path], copied: Path
    ) -> None:
        dataset = Dataset.load(copied)
        held_out = (dataset.cases["split"] == "validation") & (dataset.cases["label"] != "dark")
        dataset.cases.loc[held_out, "split"] = "test"
        dataset.save()
        with pytest.raises(DxsegError, match="stage1: select 'best'"):
            train("sks", dataset=copied, stage1={"select": "best"})


class TestWhatIsRead:
    def test_hidden_masks_and_test_cases_are_never_read(
        self, train: Callable[..., Path], copied: Path
    ) -> None:
        """Their files are garbage, and training does not notice."""
        budget = {"masks": 4, "validation_masks": 2}
        clean = train("unet-stage1", split=budget)
        splits = read_splits(clean / "splits.csv", Dataset.load(copied))
        assert (splits["use_mask"] & (splits["split"] == "train")).sum() == 4 + 8  # lesion-free too
        dataset = Dataset.load(copied)
        for case, split, use in zip(
            dataset.cases.itertuples(), splits["split"], splits["use_mask"], strict=True
        ):
            mask = dataset.mask_path(case)
            if mask is not None and (split == "test" or not use):
                mask.write_bytes(b"not to be read")
            if split == "test":
                dataset.image_path(case).write_bytes(b"not to be read")
        dirty = train("unet-stage1", name="dirty", dataset=copied, split=budget)
        assert same_weights(clean, dirty)

    def test_a_fraction_of_masks(self, train: Callable[..., Path]) -> None:
        run = train(split={"masks": 0.25})
        assert read_run(run)["cases"]["train_masks"] == 4


def script_validation(
    monkeypatch: pytest.MonkeyPatch, figures: list[float]
) -> list[dict[str, torch.Tensor]]:
    """Let each epoch's validation find a given Dice; gives the weights that it looked at."""
    seen: list[dict[str, torch.Tensor]] = []

    def validate(self: Stage2Module, batch: Any, batch_idx: int) -> None:
        if batch_idx == 0:
            state = self.segmenter.state_dict()
            seen.append({name: tensor.clone() for name, tensor in state.items()})
        self.log("val_dice", figures[self.current_epoch], batch_size=1)

    monkeypatch.setattr(Stage2Module, "validation_step", validate)
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
        kept = weights_of(train(stage2={"steps": 3, "select": "best"}))
        assert all(torch.equal(kept[name], seen[1][name]) for name in kept)
        assert not all(torch.equal(kept[name], seen[2][name]) for name in kept)

    def test_accumulation_takes_more_batches_a_step(
        self, train: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        batches: list[int] = []
        step = Stage2Module.training_step

        def counted(self: Stage2Module, batch: Any, batch_idx: int) -> torch.Tensor:
            batches.append(len(batch["image"]))
            return step(self, batch, batch_idx)

        monkeypatch.setattr(Stage2Module, "training_step", counted)
        run = train(stage2={"accumulate": 3})
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
        material = SimpleNamespace(
            lesion_free_train=np.array([True, True, False]), held_out_train=np.zeros(3, bool)
        )
        config = load_config("cpu", "unet", {"data": {"lesion_free_share": 0.9}})
        pools = mask_pools(material, config, 2)
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
        step = stages.Stage1Module.training_step

        def watched(self: Any, batch: Any, batch_idx: int) -> torch.Tensor:
            targets.append(batch["label"])
            return step(self, batch, batch_idx)

        monkeypatch.setattr(stages.Stage1Module, "training_step", watched)
        train("unet-stage1", dataset=copied)
        assert (torch.cat(targets) >= 0).all()


def test_several_labels_an_image(train: Callable[..., Path], copied: Path) -> None:
    dataset = Dataset.load(copied)
    spec = dataset.spec.model_copy(update={"multi_label": True})
    cases = dataset.cases.copy()
    cases.loc[cases.index[cases["label"] == "dark"][:3], "label"] = "bright;dark"
    cases.loc[cases.index[1], "label"] = ""
    Dataset.create(copied, spec, cases)
    run = train("sks-evidence", dataset=copied)
    table = metrics_of(run, "stage1")
    assert table["val_auroc"].between(0, 1).all()
    assert "val_accuracy" not in table
    assert load_bundle(run / "model")[1].multi_label


class TestMacroAUROC:
    def batches(self, metric: Any, scores: torch.Tensor, target: torch.Tensor) -> float:
        for part in range(0, len(scores), 7):
            metric.update(scores[part : part + 7], target[part : part + 7])
        return float(metric.compute())

    def test_agrees_with_torchmetrics_where_every_label_occurs(self) -> None:
        generator = torch.Generator().manual_seed(0)
        scores = torch.randn(60, 3, generator=generator).softmax(1)
        target = torch.randint(0, 3, (60,), generator=generator)
        onehot = torch.nn.functional.one_hot(target, 3)
        theirs = self.batches(MulticlassAUROC(3), scores, target)
        assert self.batches(MacroAUROC(), scores, onehot) == pytest.approx(theirs)
        several = torch.randint(0, 2, (60, 3), generator=generator)
        theirs = self.batches(MultilabelAUROC(3), scores, several)
        assert self.batches(MacroAUROC(), scores, several) == pytest.approx(theirs)

    def test_a_label_that_is_absent_does_not_count(self) -> None:
        scores = torch.tensor([[0.9, 0.1, 0.0], [0.8, 0.1, 0.1], [0.1, 0.7, 0.2]])
        present = torch.tensor([[1, 0, 0], [1, 0, 0], [0, 1, 0]])
        assert self.batches(MacroAUROC(), scores, present) == 1

    def test_one_label_alone_has_no_auroc(self) -> None:
        assert np.isnan(self.batches(MacroAUROC(), torch.rand(3, 2), torch.tensor([[1, 0]] * 3)))

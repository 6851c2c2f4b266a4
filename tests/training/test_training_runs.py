"""Whole runs on disks in noise: they learn, and every method trains."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from safetensors.torch import load_file

import dxseg
from dxseg.config import DEFAULT_METHOD
from dxseg.config.presets import load_config, method_names, read_config
from dxseg.data.table.dataset import Dataset
from dxseg.evaluation.evaluate import evaluate_run, open_run
from dxseg.inference.model_folder import load_model_folder
from dxseg.inference.predictor import Predictor
from dxseg.models.factory import build_model
from dxseg.models.shared_encoder import split_into_stages
from dxseg.training import run as run_module
from dxseg.training.run import train_run
from dxseg.training.run_record import read_run
from trained_runs import figures_on_test, metrics_of, weights_of


class TestLearning:
    def test_test_images_are_segmented_and_named(self, finished: Path, disks: Path) -> None:
        """The bar: Dice 0.6 and two labels of three right; an untrained network fails both."""
        dataset = Dataset.load(disks)
        segmenter, info = load_model_folder(finished / "model")
        dice, accuracy = figures_on_test(Predictor(segmenter, info), dataset)
        assert dice > 0.6
        assert accuracy > 0.65
        torch.manual_seed(0)
        task = segmenter_task(info)
        untrained = build_model(info.model, task, pretrained=False).eval()
        dice, _ = figures_on_test(Predictor(untrained, info), dataset)
        assert dice < 0.4

    def test_losses_fall_and_validation_is_measured(self, finished: Path) -> None:
        first = metrics_of(finished, "stage1")
        assert list(first["epoch"]) == [0, 1, 2]
        assert list(first["step"]) == [15, 30, 45]
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
        assert config.method == "sks-evidence"
        assert config.data.batch_size == 8

    def test_a_finished_run_is_returned_at_once(
        self, finished: Path, disks: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def forbidden(*_: Any, **__: Any) -> None:
            raise AssertionError("worked again")

        for name in ("prepare_training_data", "run_splits", "train_stage1", "train_stages"):
            monkeypatch.setattr(run_module, name, forbidden)
        config = read_config(finished / "config.yaml")
        assert train_run(disks, finished, config) == read_run(finished)

    def test_stage_1_learns_the_label_of_every_training_image(
        self, finished: Path, disks: Path
    ) -> None:
        record = json.loads((finished / "stage1" / "stage1.json").read_text("utf-8"))
        cases = Dataset.load(disks).cases
        assert record["case_ids"] == cases.loc[cases["split"] == "train", "case_id"].tolist()

    def test_the_frozen_coarse_branch_is_stage_one_to_the_bit(self, finished: Path) -> None:
        stage1 = load_file(finished / "stage1" / "coarse.safetensors")
        model = weights_of(finished)
        assert all(torch.equal(model[f"coarse.{name}"], stage1[name]) for name in stage1)


def test_shared_levels_are_stage_one_to_the_bit(train: Callable[..., Path], finished: Path) -> None:
    """Also where the rest of the coarse branch learns on."""
    changes = {"shared_encoder_levels": 2, "coarse_learning_rate_scale": 0.5}
    run = train("sks-evidence", stage1_run=finished, model=changes)
    segmenter, _ = load_model_folder(run / "model")
    stage1 = load_file(finished / "stage1" / "coarse.safetensors")
    encoder = segmenter.coarse.encoder  # type: ignore[union-attr]
    shared = {
        tensor.data_ptr()
        for level in split_into_stages(encoder)[:2]
        for tensor in level.state_dict().values()
    }
    same: dict[bool, list[bool]] = {True: [], False: []}
    for name, tensor in encoder.state_dict().items():
        same[tensor.data_ptr() in shared].append(torch.equal(tensor, stage1[f"encoder.{name}"]))
    assert all(same[True])
    assert len(same[True]) > 10
    assert not all(same[False])


def segmenter_task(info: Any) -> Any:
    from dxseg.models.factory import Task

    return Task(info.preprocessing.channels, len(info.mask_classes), len(info.labels))


@pytest.mark.parametrize("method", method_names())
def test_every_method_trains(method: str, train: Callable[..., Path], finished: Path) -> None:
    plain = load_config("cpu", method)
    run = train(method, stage1_run=finished if plain.model.requires_stage1 else None)
    segmenter, info = load_model_folder(run / "model")
    deployed = plain.model if plain.student is None else plain.model.student
    assert info.model.architecture == deployed.architecture
    with torch.no_grad():
        assert segmenter(torch.zeros(1, 1, 64, 64)).mask_logits.isfinite().all()
    assert len(metrics_of(run)) == 2


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
    assert load_model_folder(run / "model")[1].multi_label


def test_labels_that_all_mean_a_lesion(train: Callable[..., Path], copied: Path) -> None:
    """Benign or malignant, and no normal image: nothing can be gated, ruled in or filtered."""
    dataset = Dataset.load(copied)
    spec = dataset.spec.model_copy(update={"labels": ["bright", "dark"], "lesion_free": []})
    Dataset.create(copied, spec, dataset.cases[dataset.cases["label"] != "none"])
    run = train(DEFAULT_METHOD, dataset=copied)
    info = load_model_folder(run / "model")[1]
    assert (info.labels, info.rule_out_threshold, info.rule_in_threshold) == (
        ["bright", "dark"],
        None,
        None,
    )
    summary = evaluate_run(run, *open_run(run), resamples=50).summary
    assert summary["dice_all"] == summary["dice_lesion"]
    assert (summary["false_positive_rate"], summary["auroc_label"]) == (None, None)
    told = evaluate_run(run, *open_run(run), label_prompts=True, resamples=50).summary
    assert told["counts"]["missed_lesion_images"] == 0


class Recorder(pl.Callback):
    """Records the folders of the stages that it is called in."""

    def __init__(self) -> None:
        self.stages: list[str] = []

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        self.stages.append(Path(trainer.default_root_dir).name)


def test_a_logger_and_callbacks_of_a_user_are_used_in_every_stage(
    disks: Path, configure: Callable[..., Any], tmp_path: Path
) -> None:
    """Through `dxseg.train`, whose overrides are those of the tiny configuration."""
    config = configure("sks-selftrained")
    logger, recorder = CSVLogger(tmp_path / "logs"), Recorder()
    dxseg.train(
        disks,
        output=tmp_path / "run",
        method="sks-selftrained",
        overrides=config.model_dump(exclude={"method"}),
        logger=logger,
        callbacks=[recorder],
    )
    assert recorder.stages == ["stage1", "stage2", "self_training"]
    assert list((tmp_path / "logs").rglob("metrics.csv"))
    assert not list((tmp_path / "run").rglob("events.*"))

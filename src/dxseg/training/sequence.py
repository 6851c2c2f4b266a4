"""The stages after stage 1, one after another; a stage before the last keeps its network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

import pandas as pd
import torch
from lightning.fabric import Fabric

from dxseg.config.network import ModelConfig
from dxseg.config.schema import DeviceConfig, RunConfig
from dxseg.data.table.dataset import Dataset
from dxseg.inference.model_folder import INFO_FILE, load_model_folder, save_model_folder
from dxseg.io.progress import console, reporting
from dxseg.models.coarse_branch import CoarseBranch
from dxseg.models.segmentation_model import SegmentationModel
from dxseg.models.segmenter_with_classifier import SegmenterWithClassifier, without_classifier
from dxseg.training.datamodule.training_data import TrainingData
from dxseg.training.pseudo_labels import (
    PSEUDO_LABELS_FILE,
    PseudoLabels,
    Teacher,
    make_pseudo_labels,
)
from dxseg.training.run_folder import model_info
from dxseg.training.stages import self_train, train_stage2, train_student
from dxseg.training.trainer import TrainerSettings


@dataclass(frozen=True)
class Work:
    """What all stages of a run work on."""

    dataset: Dataset
    splits: pd.DataFrame
    data: TrainingData
    config: RunConfig
    output: Path
    settings: TrainerSettings
    fabric: Fabric


@dataclass
class Trained:
    """What the stages of a run have led to.

    Attributes:
        network: of the last stage.
        teachers: from other runs, in the place of a network of this one.
        record: the last metrics of each stage, and the images that a student learned from.
        seconds: that each stage took here; 0 if it was finished before.
    """

    network: SegmentationModel | None = None
    teachers: Sequence[Teacher] = ()
    record: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)


def train_stages(
    work: Work, stages: Sequence[str], trained: Trained, stage1: CoarseBranch | None
) -> Trained:
    """Train the stages of a run that are not finished.

    Args:
        work: what they work on.
        stages: names of the stages, of `RunConfig.stages`.
        trained: what comes before the first of them.
        stage1: trained classifier, if the run builds on one.

    Returns:
        The network of the last stage, with the records of all.
    """
    for name in stages:
        started = monotonic()
        finished = work.output / name / "model"
        if (finished / INFO_FILE).is_file():
            network, info = load_model_folder(finished)
            trained.record[name] = info.training[name]
        else:
            network, record = _train_stage(work, name, trained, stage1)
            trained.record |= record
            if name != stages[-1]:
                _keep_network(work, name, network, trained.record)
        trained.network, trained.teachers = network, ()
        trained.seconds[name] = monotonic() - started
    return trained


def _train_stage(
    work: Work, name: str, before: Trained, stage1: CoarseBranch | None
) -> tuple[SegmentationModel, dict[str, Any]]:
    data, config, folder, settings = work.data, work.config, work.output / name, work.settings
    if name == "stage2":
        network, metrics = train_stage2(data, config, folder, settings, stage1)
        return _with_classifier(network, stage1, config.model), {name: metrics}
    if name == "self_training":
        assert before.network is not None, "self-training follows stage 2"
        segmenter = without_classifier(before.network)
        network, metrics = self_train(data, config, folder, settings, segmenter)
        classifier = getattr(before.network, "coarse", None)
        return _with_classifier(network, classifier, config.model), {name: metrics}
    teachers = before.teachers
    if before.network is not None:
        teachers = [Teacher(without_classifier(before.network), data.preprocessing)]
    labels = _pseudo_labels(work, folder / PSEUDO_LABELS_FILE, teachers)
    network, metrics = train_student(data, config, folder, settings, labels, stage1)
    network = _with_classifier(network, stage1, config.model.student)
    return network, {name: metrics, "training_images": labels.counts}


def _with_classifier(
    segmenter: SegmentationModel, classifier: CoarseBranch | None, model: ModelConfig
) -> SegmentationModel:
    """The segmenter, which masks have trained, with the stage-1 classifier that its model keeps."""
    if not model.classifier:
        return segmenter
    assert classifier is not None, "such a model requires a stage 1"
    return SegmenterWithClassifier(segmenter, classifier)


def _pseudo_labels(work: Work, path: Path, teachers: Sequence[Teacher]) -> PseudoLabels:
    """The pseudo-labels of a student, made by the first process for all."""
    config = work.config
    assert config.student is not None, "a stage with pseudo-labels is that of a student"
    with work.fabric.rank_zero_first(), reporting(console, "Pseudo-labels") as report:
        labels = make_pseudo_labels(
            teachers,
            work.data,
            path,
            report,
            peak=config.student.pseudo_label_peak,
            label_prompts=config.model.has_label_head,
            device=_device(config.device),
        )
    for teacher in teachers:
        teacher.network.to("cpu")
    return labels


def _keep_network(work: Work, name: str, network: SegmentationModel, record: Any) -> None:
    """Save the network of a stage that is followed by another."""
    work.fabric.barrier()  # until all have read the checkpoints
    if work.fabric.is_global_zero:
        info = model_info(work.config, work.dataset, work.data, stage=name)
        info = info.model_copy(update={"training": info.training | record})
        save_model_folder(work.output / name / "model", network, info)


def _device(device: DeviceConfig) -> str:
    """Where a teacher computes: as Lightning would choose, but one GPU at most."""
    wanted = device.accelerator in ("auto", "gpu", "cuda")
    return "cuda" if wanted and torch.cuda.is_available() else "cpu"

"""The end of a run: thresholds, the bundle, the record."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from dxseg.config.schema import RunConfig
from dxseg.data.table.dataset import Dataset
from dxseg.inference.model_folder import ModelInfo, save_model_folder
from dxseg.io.atomic import sha256_file, write_json_atomic
from dxseg.models.segmentation_model import SegmentationModel
from dxseg.training.calibration import calibrate
from dxseg.training.datamodule import Material
from dxseg.training.run_record import RUN_FILE, machine, versions
from dxseg.training.stages import remove_checkpoints


def finish_run(
    output: Path,
    segmenter: SegmentationModel,
    config: RunConfig,
    dataset: Dataset,
    splits: pd.DataFrame,
    material: Material,
    further: dict[str, Any],
) -> dict[str, Any]:
    """Choose temperatures and thresholds, write ``model/`` and ``run.json``, clean up.

    Args:
        output: folder of the run.
        segmenter: trained.
        config: of the run.
        dataset: it was trained on.
        splits: of the run.
        material: of the run.
        further: keys of ``run.json`` that only the caller knows.

    Returns:
        What ``run.json`` holds.
    """
    info = model_info(config, dataset, material)
    info, calibration = calibrate(
        segmenter,
        info,
        material,
        sensitivity=config.rule_out_sensitivity,
        specificity=config.rule_in_specificity,
    )
    info = save_model_folder(output / "model", segmenter, info)
    run = {
        "method": config.method,
        "seed": config.seed,
        "dataset": str(dataset.root),
        "dataset_name": dataset.spec.name,
        "dataset_digest": dataset.digest(),
        "splits_sha256": sha256_file(output / "splits.csv"),
        "pixels_sha256": material.pixels_sha256,
        "weights_sha256": info.weights_sha256,
        "cases": _count_cases(dataset, splits),
        "parameters": sum(p.numel() for p in segmenter.parameters()),
        "rule_out_threshold": info.rule_out_threshold,
        "rule_in_threshold": info.rule_in_threshold,
        "calibration": calibration,
        **further,
        "versions": versions(),
        "machine": machine(config.device),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    write_json_atomic(output / RUN_FILE, run)
    for stage in ("stage2", "self_training"):
        remove_checkpoints(output / stage)
    return run


def model_info(config: RunConfig, dataset: Dataset, material: Material) -> ModelInfo:
    """What ``model.json`` says of a run's network; the gate is not chosen yet."""
    spec = dataset.spec
    return ModelInfo(
        model=config.model,
        preprocessing=material.preprocessing,
        labels=spec.labels,
        lesion_free=spec.lesion_free,
        multi_label=spec.multi_label,
        mask_classes=spec.mask_classes,
        slicing=spec.slicing,
        training={"method": config.method, "seed": config.seed, "dataset": spec.name},
    )


def _count_cases(dataset: Dataset, splits: pd.DataFrame) -> dict[str, int]:
    """How many cases each split has and how many masks were allowed, lesion-free not counted."""
    counts = {str(name): int(count) for name, count in splits["split"].value_counts().items()}
    masks = splits["use_mask"].to_numpy() & ~dataset.lesion_free.to_numpy()
    for split in ("train", "validation"):
        counts[f"{split}_masks"] = int((masks & splits["split"].eq(split).to_numpy()).sum())
    return counts

"""The protocol of a run, as its report shows it."""

from __future__ import annotations

from typing import Any

from dxseg.config.schema import RunConfig
from dxseg.data.table.spec import DatasetSpec
from dxseg.reports.metric_columns import MISSING


def protocol(
    record: dict[str, Any], evaluation: dict[str, Any], spec: DatasetSpec, config: RunConfig
) -> list[tuple[str, str]]:
    """What is needed to repeat a run, as names and values; what is not recorded is left out.

    Args:
        record: `run.json`.
        evaluation: `evaluation.json`.
        spec: `dataset.yaml`.
        config: `config.yaml`.
    """
    model = config.model
    cases, seconds = record.get("cases", {}), record.get("seconds", {})
    splits = [f"{cases[name]} {name}" for name in ("train", "validation", "test") if name in cases]
    if cases.get("dropped"):
        splits.append(f"{cases['dropped']} dropped (near-duplicates with contradicting labels)")
    skips = [name for name, used in model.skips.model_dump().items() if used]
    rows = [
        (
            "Dataset",
            f"{spec.name}; {spec.modality}; labels {', '.join(spec.labels)}",
        ),
        ("Provenance", spec.provenance),
        ("Images", ", ".join(splits)),
        ("Masks used in training", str(cases.get("train_masks", MISSING))),
        ("Masks used in validation", str(cases.get("validation_masks", MISSING))),
        ("Means over", f"{evaluation['averaged_by']}s; intervals resample patients or groups"),
        ("Network", f"{model.architecture} on {model.backbone}, {config.data.image_size} px"),
        ("Skips", ", ".join(skips).replace("_", " ") if model.architecture == "sks" else ""),
        ("Parameters", f"{record['parameters']:,}" if "parameters" in record else ""),
        ("Length of training", _training_length(config)),
        ("Training time", ", ".join(f"{key}: {value:.0f} s" for key, value in seconds.items())),
        ("Seed", f"{config.seed}; of the split: {config.split.split_seed}"),
        ("Threshold", str(evaluation.get("threshold", ""))),
        ("Weights (SHA-256)", str(evaluation.get("weights_sha256", ""))[:16]),
        ("Dataset (SHA-256)", str(record.get("dataset_digest", ""))[:16]),
        ("Versions", ", ".join(f"{k} {v}" for k, v in record.get("versions", {}).items())),
    ]
    return [(key, value) for key, value in rows if value]


def _training_length(config: RunConfig) -> str:
    stage1, self_training = config.stage1, config.self_training
    length = f"{stage1.steps} steps" if stage1.steps else f"{stage1.epochs:g} epochs of the labels"
    parts = [f"{length} in stage 1" if config.model.requires_stage1 else "no stage 1"]
    parts.append(f"{config.stage2.steps} steps in stage 2")
    if self_training is not None:
        parts.append(f"{self_training.steps} steps in self-training")
    return f"{', '.join(parts)}; batches of {config.data.batch_size}"

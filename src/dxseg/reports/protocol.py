"""The protocol of a run, as its report shows it."""

from __future__ import annotations

from typing import Any

from dxseg.config import stage_title
from dxseg.config.schema import RunConfig
from dxseg.config.stages import StageConfig
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
        ("Length of training", _training_length(record, config)),
        ("Training time", ", ".join(f"{key}: {value:.0f} s" for key, value in seconds.items())),
        ("Seed", f"{config.seed}; of the split: {config.split.split_seed}"),
        ("Threshold", str(evaluation.get("threshold", ""))),
        ("Weights (SHA-256)", str(evaluation.get("weights_sha256", ""))[:16]),
        ("Dataset (SHA-256)", str(record.get("dataset_digest", ""))[:16]),
        ("Versions", ", ".join(f"{k} {v}" for k, v in record.get("versions", {}).items())),
    ]
    return [(key, value) for key, value in rows if value]


def _training_length(record: dict[str, Any], config: RunConfig) -> str:
    trained = [name for name in record.get("seconds", {}) if name != "stage1"]
    names = ["stage1", *trained] if config.model.requires_stage1 else trained
    parts = [f"{stage_title(name)}: {_steps(record, config, name)}" for name in names]
    return f"{', '.join(parts)}; batches of {config.data.batch_size}" if parts else ""


def _steps(record: dict[str, Any], config: RunConfig, name: str) -> str:
    """The steps that a stage took, as recorded; else those that were set."""
    if record.get(f"{name}_from") is not None:
        return "of another run"
    recorded = record.get(name, {}).get("step")
    if recorded is not None:
        return f"{recorded:.0f} steps"
    stage: StageConfig = getattr(config, name.rstrip("0123456789") if "student" in name else name)
    return f"{stage.steps} steps" if stage.steps else f"{config.stage1.epochs:g} epochs"

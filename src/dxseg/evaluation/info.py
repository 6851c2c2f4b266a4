"""`dxseg info`: describe a dataset, a run or a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from dxseg.data.table.dataset import Dataset
from dxseg.errors import DxsegError
from dxseg.inference.hub import local_copy
from dxseg.inference.onnx_suffix import is_onnx
from dxseg.training.run_record import read_run


def describe(path: str | Path) -> dict[str, Any]:
    """Describe a dataset, a run, a model folder or an exported model.

    Args:
        path: Its folder or file, or `hf-hub:OWNER/NAME`.

    Raises:
        DxsegError: The path is none of them.
    """
    folder = local_copy(path)
    if is_onnx(folder):
        from dxseg.inference.onnx_file import read_onnx

        model = read_onnx(folder)
        return model.info.model_dump(mode="json") | {"number_format": model.number_format}
    if (folder / "dataset.yaml").is_file():
        return _describe_dataset(Dataset.load(folder))
    if (folder / "config.yaml").is_file():
        return read_run(folder)
    if (folder / "model.json").is_file():
        from dxseg.inference.model_folder import load_model_folder

        return load_model_folder(folder)[1].model_dump(mode="json")
    raise DxsegError(
        f"{folder}: not a dataset (dataset.yaml), a run (config.yaml) or a model (model.json); "
        "give a folder with one of these files"
    )


def _describe_dataset(dataset: Dataset) -> dict[str, Any]:
    cases = dataset.cases
    labels = cases["label"].where(cases["label"].ne(""), "(none)").value_counts()
    return {
        "name": dataset.spec.name,
        "modality": dataset.spec.modality,
        "cases": len(dataset),
        "labels": {str(label): int(count) for label, count in labels.items()},
        "lesion_free": dataset.spec.lesion_free,
        "mask_classes": dataset.spec.mask_classes,
        "masks": int(cases["mask"].ne("").sum()),
        "patients": int(cases["patient_id"].replace("", pd.NA).nunique()),
        "volumes": int(cases["volume_id"].replace("", pd.NA).nunique()),
        "channels": dataset.spec.channels,
        "provenance": dataset.spec.provenance,
        "digest": dataset.digest(),
    }

"""Every parser of models, runs and tables about them meets damaged files: read, or our error."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from safetensors.torch import save

from damage import attack, changed, damaged
from dxseg import export_onnx
from dxseg.errors import DxsegError
from dxseg.evaluation.cases import COLUMNS
from dxseg.evaluation.runs import load_run
from dxseg.inference.files.inputs import PredictionInput
from dxseg.inference.label_prompt import join_labels
from dxseg.inference.model_folder import INFO_FILE, WEIGHTS_FILE, load_model_folder, read_info
from dxseg.inference.onnx_file import read_onnx
from dxseg.training.checkpoints import CheckpointFiles, read_checkpoint
from dxseg.training.run_record import STAGE1_RECORD, read_run
from dxseg.training.stage1_folder import load_stage1
from onnx_models import make_model_folder

LABELS = b"file,label\na.png,benign\n./b.png,normal\nc,malignant\n"
RUN = {
    "method": "unet",
    "seed": 0,
    "dataset": "data",
    "cases": {"train": 3},
    "versions": {"torch": "2"},
    "stage2": {"val_dice": 0.5},
}
EVALUATION = {"averaged_by": "image", "units": {"distance": "px"}, "counts": {"images": 2}}


@dataclass
class Whole:
    """Whole files of a kind, and how they are parsed where they lie."""

    folder: Path
    name: str
    parse: Callable[[Path], object]
    files: list[bytes] = field(default_factory=list)
    trees: list[Any] = field(default_factory=list)


def model_folder(folder: Path) -> Path:
    return make_model_folder(folder / "model", "sks-evidence")


def info_file(folder: Path) -> Whole:
    tree = json.loads((model_folder(folder) / INFO_FILE).read_text())
    return Whole(
        folder / "model", INFO_FILE, lambda path: load_model_folder(path.parent), trees=[tree]
    )


def weights_file(folder: Path) -> Whole:
    """Damaged with the digest that fits, so that the parser behind it is reached."""
    model = model_folder(folder)
    info = json.loads((model / INFO_FILE).read_text())

    def parse(path: Path) -> object:
        info["weights_sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
        (path.parent / INFO_FILE).write_text(json.dumps(info))
        return load_model_folder(path.parent)

    small = save({"encoder.weight": torch.zeros(3, 2)})
    return Whole(model, WEIGHTS_FILE, parse, [(model / WEIGHTS_FILE).read_bytes(), small])


def onnx_file(folder: Path) -> Whole:
    pytest.importorskip("onnx")
    export_onnx(model_folder(folder), output=folder / "m.onnx")
    return Whole(folder, "m.onnx", read_onnx, [(folder / "m.onnx").read_bytes()])


def label_table(folder: Path) -> Whole:
    info = read_info(model_folder(folder))
    items = [PredictionInput(f"{name}.png", folder / f"{name}.png") for name in "abc"]
    return Whole(folder, "labels.csv", lambda path: join_labels(path, items, info), [LABELS])


def run_file(folder: Path) -> Whole:
    return Whole(folder, "run.json", lambda path: read_run(path.parent), trees=[RUN])


def evaluation_file(folder: Path) -> Whole:
    (folder / "run.json").write_text(json.dumps(RUN))
    (folder / "per_image.csv").write_bytes(per_image())
    return Whole(folder, "evaluation.json", lambda path: load_run(path.parent), trees=[EVALUATION])


def per_image() -> bytes:
    rows = pd.DataFrame([dict.fromkeys(COLUMNS, 0.5) | {"case_id": name} for name in "ab"])
    return rows.to_csv(index=False).encode()


def per_image_file(folder: Path) -> Whole:
    (folder / "run.json").write_text(json.dumps(RUN))
    (folder / "evaluation.json").write_text(json.dumps(EVALUATION))
    return Whole(folder, "per_image.csv", lambda path: load_run(path.parent), [per_image()])


def stage1_file(folder: Path) -> Whole:
    """Weights of another network lie beside it: what is refused last."""
    (folder / "coarse.safetensors").write_bytes(save({"x": torch.zeros(2)}))
    model = json.loads((model_folder(folder) / INFO_FILE).read_text())["model"]
    record = {
        "model": model,
        "task": {"channels": 1, "mask_classes": 1, "labels": 3},
        "image_size": 64,
        "case_ids": ["a", "b"],
        "metrics": {"val_loss": 0.5},
        "weights_sha256": hashlib.sha256((folder / "coarse.safetensors").read_bytes()).hexdigest(),
    }

    def parse(path: Path) -> None:
        with pytest.raises(DxsegError):
            load_stage1(path.parent)

    return Whole(folder, STAGE1_RECORD, parse, trees=[record])


def checkpoint_file(folder: Path) -> Whole:
    content = {
        "state_dict": {"weight": torch.arange(6.0)},
        "global_step": 7,
        "callbacks": {"MetricsTable": {"rows": [{"epoch": 0.0}]}},
    }
    CheckpointFiles().save_checkpoint(content, folder / "last.ckpt")
    return Whole(folder, "last.ckpt", read_checkpoint, [(folder / "last.ckpt").read_bytes()])


KINDS = {
    "model.json": info_file,
    "model.safetensors": weights_file,
    "ONNX": onnx_file,
    "table of known labels": label_table,
    "run.json": run_file,
    "evaluation.json": evaluation_file,
    "per_image.csv": per_image_file,
    "stage1.json": stage1_file,
    "checkpoint": checkpoint_file,
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("examples", [12, pytest.param(1500, marks=pytest.mark.slow)])
def test_damaged_models_and_records_are_read_or_refused(
    kind: str, examples: int, tmp_path: Path
) -> None:
    whole = KINDS[kind](tmp_path)
    files = [*whole.files, *(json.dumps(tree).encode() for tree in whole.trees)]
    (whole.folder / whole.name).write_bytes(files[0])
    whole.parse(whole.folder / whole.name)  # else the damage would be done to what is refused

    @settings(max_examples=examples, derandomize=True, database=None)
    @given(content=damaged(files) | changed(whole.trees) if whole.trees else damaged(files))
    def run(content: bytes) -> None:
        attack(whole.folder / whole.name, content, whole.parse)

    run()

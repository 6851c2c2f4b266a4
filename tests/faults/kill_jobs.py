"""What the kill harness does and kills: one function a verb, and what it must leave behind.

Each is called as `work(inputs, folder)` in a process of its own; called again, it goes on.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from dxseg import check, experiment, predict
from dxseg.commands.imports import import_folder
from dxseg.config.presets import load_config
from dxseg.data.batches.pixel_cache import cached_images
from dxseg.data.table.dataset import Dataset
from dxseg.experiments.results import COST
from dxseg.inference.model_folder import load_model_folder
from dxseg.models import weights
from dxseg.training.run import train_run
from dxseg.training.stage1_folder import load_stage1

Content = dict[str, Any]

STAGE = {"steps": 6, "steps_per_epoch": 2, "warmup_steps": 1}
NETWORK = {"backbone": "lcnet_050", "decoder_channels": [16, 16, 8, 8, 8]}
CHANGES = {
    "model": NETWORK,
    "data": {"image_size": 64, "batch_size": 4},
    "split": {"masks": 6, "validation_masks": 2},
    "stage1": STAGE,
    "stage2": STAGE,
}
STUDY = {
    "name": "killed",
    "dataset": "phantoms",
    "masks": [4],
    "folds": 2,
    "methods": ["unet-scratch", "sks-evidence"],
    "reference": "unet-scratch",
    "resamples": 100,
    "set": {name: CHANGES[name] for name in ("model", "data", "stage1", "stage2")},
}


@dataclass(frozen=True)
class Job:
    """A verb under fire.

    Attributes:
        work: Does it, or goes on with it.
        content: What is there when it is done; two runs are the same if these are equal.
        sound: Asserts that a killed state holds nothing that is wrong but looks right, given what
            `content` is expected to be.
        place: What was being done, by what is there.
        kills: Of 50.
    """

    work: Callable[[Path, Path], None]
    content: Callable[[Path], Content]
    sound: Callable[[Path, Content], None]
    kills: int
    place: Callable[[Path], str] = lambda _folder: ""


def files(folder: Path) -> Content:
    """Bytes of what is shown."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    }


def whole_or_absent(name: str) -> Callable[[Path, Content], None]:
    """Once the file of that name is there, everything is."""

    def check(folder: Path, expected: Content) -> None:
        if (folder / name).exists():
            assert files(folder) == expected

    return check


def do_import(inputs: Path, folder: Path) -> None:
    if not (folder / "dataset.yaml").exists():  # else it is done, and would be refused
        import_folder(inputs / "tree", folder)


def do_check(inputs: Path, folder: Path) -> None:
    check(inputs / "phantoms", output=folder, workers=1)


def checked(folder: Path) -> Content:
    return json.loads((folder / "check.json").read_text())  # type: ignore[no-any-return]


def check_sound(folder: Path, expected: Content) -> None:
    if (folder / "check.json").exists():
        assert checked(folder) == expected


def do_cache(inputs: Path, folder: Path) -> None:
    dataset = Dataset.load(inputs / "phantoms")
    cached_images(dataset, dataset.cases, 256, folder)


def cache_sound(folder: Path, expected: Content) -> None:
    assert files(folder) in ({}, expected)


def do_train(inputs: Path, folder: Path) -> None:
    weights.load_pretrained = lambda _: False  # the small backbone's weights are on the hub
    config = load_config("cpu", "sks-evidence-selftrained", CHANGES | {"self_training": STAGE})
    train_run(inputs / "phantoms", folder, config)


def trained(folder: Path) -> Content:
    run = json.loads((folder / "run.json").read_text())
    for key in ("seconds", "finished"):
        del run[key]
    for stage in ("stage1", "stage2", "self_training"):
        del run[stage]["seconds"]
    names = [f"{stage}/metrics.csv" for stage in ("stage1", "stage2", "self_training")]
    names += ["stage1/coarse.safetensors", "stage2/model/model.safetensors", "splits.csv"]
    names += ["model/model.safetensors", "model/model.json", "config.yaml"]
    content = {name: (folder / name).read_bytes() for name in names}
    assert not list(folder.rglob("*.ckpt*")), "what is only for going on is removed"
    return content | {"run.json": run}


def train_sound(folder: Path, expected: Content) -> None:
    if (folder / "stage1" / "stage1.json").exists():
        load_stage1(folder / "stage1")
    for model in (folder / "stage2" / "model", folder / "model"):
        if (model / "model.json").exists():
            load_model_folder(model)
    if (folder / "run.json").exists():
        assert trained(folder) == expected


def train_place(folder: Path) -> str:
    for name, place in (
        ("run.json", "end"),
        ("model/model.json", "model"),
        ("self_training", "self-training"),
        ("stage2", "stage 2"),
        ("stage1", "stage 1"),
        ("splits.csv", "cache"),
    ):
        if (folder / name).exists():
            return place
    return "start"


def do_compare(inputs: Path, folder: Path) -> None:
    weights.load_pretrained = lambda _: False
    experiment(inputs / "experiment.yaml", output=folder)


def compared(folder: Path) -> Content:
    table = pd.read_csv(folder / "results.csv")
    times = [name for name in COST if name.endswith(("seconds", "ms"))]
    assert table["status"].eq("done").all(), table["error"].tolist()
    return {"results": table.drop(columns=times).to_csv()}


def compare_sound(folder: Path, _expected: Content) -> None:
    if (folder / "results.csv").exists():
        pd.read_csv(folder / "results.csv")
    for info in folder.rglob("model.json"):
        load_model_folder(info.parent)


def do_predict(inputs: Path, folder: Path) -> None:
    predict(inputs / "model", inputs / "phantoms" / "images", output=folder, batch_size=2)


def predicted(folder: Path) -> Content:
    content = files(folder)
    lines = content.pop("predictions.csv").decode().splitlines()
    return content | {"rows": sorted(lines)}


def predict_sound(folder: Path, expected: Content) -> None:
    """A row promises that its mask is there; nothing else is a mask."""
    if not (folder / "predictions.csv").exists():
        return
    lines = (folder / "predictions.csv").read_text().splitlines(keepends=True)
    for line in lines[1:]:
        if line.endswith("\n"):  # a torn last row is known as such
            name = next(pd.read_csv(io.StringIO(lines[0] + line)).itertuples()).name
            mask = folder / "masks" / Path(name).with_suffix(".png")
            assert line.rstrip("\n") in expected["rows"]
            assert np.asarray(Image.open(mask)).size


JOBS = {
    "import": Job(do_import, files, whole_or_absent("dataset.yaml"), 7),
    "check": Job(do_check, checked, check_sound, 6),
    "cache": Job(do_cache, files, cache_sound, 6),
    "training": Job(do_train, trained, train_sound, 14, train_place),
    "compare": Job(do_compare, compared, compare_sound, 4),
    "predict": Job(do_predict, predicted, predict_sound, 7),
}

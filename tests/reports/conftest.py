"""Small evaluated runs: a dataset of 48-pixel images, an untrained network, real evaluation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from dxseg.config.network import ModelConfig
from dxseg.config.schema import RunConfig
from dxseg.data.preprocessing import Preprocessing
from dxseg.data.splits.split_table import write_splits
from dxseg.data.table.dataset import Dataset, DatasetSpec
from dxseg.evaluation.evaluate import evaluate_run, open_run
from dxseg.inference.model_folder import save_model_folder
from dxseg.inference.model_info import ModelInfo
from dxseg.io.atomic import write_json_atomic
from dxseg.models.factory import Task, build_model

METRICS = (
    "epoch,step,train_loss,val_loss,val_dice\n0,9,1.0,,\n0,9,,1.2,0.1\n1,19,0.8,,\n1,19,,1.0,0.3\n"
)
MODEL = ModelConfig(
    backbone="test_efficientnet", decoder_channels=(8, 8, 4, 4, 4), encoder_init="random"
)


def make_dataset(root: Path, images: int, label: str, provenance: str) -> Dataset:
    generator = np.random.default_rng(0)
    rows = []
    (root / "images").mkdir(parents=True)
    for index in range(images):
        pixels = generator.integers(0, 80, (48, 40 + index % 7), dtype=np.uint8)
        mask = np.zeros_like(pixels)
        free = index % 4 == 3
        if not free:
            mask[10:30, 8:30] = 255
            pixels[mask > 0] += 120
            Image.fromarray(mask).save(root / "images" / f"m{index}.png")
        Image.fromarray(pixels).save(root / "images" / f"i{index}.png")
        rows.append(
            {
                "case_id": f"MRN-SECRET-{index}",
                "image": f"images/i{index}.png",
                "mask": "" if free else f"images/m{index}.png",
                "label": "normal" if free else label,
            }
        )
    spec = DatasetSpec(
        name="set & <i>match</i>",
        labels=["normal", label],
        lesion_free=["normal"],
        provenance=provenance,
    )
    return Dataset.create(root, spec, pd.DataFrame(rows))


@pytest.fixture(scope="session")
def make_run(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    datasets: dict[tuple[object, ...], Dataset] = {}

    def make(
        method: str = "sks-evidence",
        seed: int = 0,
        images: int = 16,
        label: str = "mass",
        provenance: str = "a scanner",
        evaluate: bool = True,
    ) -> Path:
        key = (images, label, provenance)
        if key not in datasets:
            root = tmp_path_factory.mktemp("home-of-dr-x") / "data"
            datasets[key] = make_dataset(root, images, label, provenance)
        data = datasets[key]
        run = tmp_path_factory.mktemp("run")
        torch.manual_seed(seed + len(method))
        info = ModelInfo(
            model=MODEL,
            preprocessing=Preprocessing(image_size=64, channels=1, mean=(0.5,), std=(0.25,)),
            labels=data.spec.labels,
            lesion_free=data.spec.lesion_free,
        )
        save_model_folder(run / "model", build_model(MODEL, Task(1, 1, 2), pretrained=False), info)
        splits = pd.DataFrame(
            {
                "case_id": data.cases["case_id"],
                "group": range(images),
                "split": ["train", *["test"] * (images - 1)],
                "fold": pd.array([0, *[pd.NA] * (images - 1)], dtype="Int64"),
                "use_mask": True,
            }
        )
        write_splits(run / "splits.csv", splits)
        config = RunConfig(method=method, seed=seed, model=MODEL)
        (run / "config.yaml").write_text(config.to_yaml())
        for stage in ("stage1", "stage2"):
            (run / stage).mkdir()
            (run / stage / "metrics.csv").write_text(METRICS)
        record = {
            "method": method,
            "seed": seed,
            "dataset": str(data.root),
            "cases": {"train": 1, "test": images - 1, "train_masks": 1, "validation_masks": 0},
            "seconds": {"stage1": 1.0, "stage2": 2.0},
            "versions": {"dxseg": "0.1.0"},
            "finished": "2026-01-02T03:04:05+00:00",
        }
        write_json_atomic(run / "run.json", record)
        if evaluate:
            evaluate_run(run, *open_run(run), resamples=50)
        return run

    return make

"""A task that a network learns in seconds: bright and dark disks on noise."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import plain_backbone  # noqa: F401 - registers it
from dxseg.config.presets import OPTIONAL_STAGES, load_config, merge
from dxseg.config.schema import RunConfig
from dxseg.data.table.dataset import Dataset, DatasetSpec

SIZE = 64
SPLITS = {"train": 24, "validation": 9, "test": 6}
LABELS = ["none", "bright", "dark"]

SHORT = {"steps": 2, "steps_per_epoch": 1, "warmup_steps": 1}
TINY: dict[str, Any] = {
    "model": {"backbone": "plain_convolutions", "decoder_channels": [16, 16, 8, 8, 8]},
    "data": {"image_size": SIZE, "batch_size": 4},
    "stage1": SHORT,
    "stage2": SHORT,
}
"""A run of seconds: two optimizer steps a stage."""
SCRATCH = "unet-scratch"
"""The method for tests of stage 2 alone: no stage 1, no pretrained weights."""


@pytest.fixture(scope="session", autouse=True)
def without_hub() -> Iterator[None]:
    """Random weights where pretrained ones are asked for: the small backbone's are on the hub."""
    from dxseg.models import weights

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(weights, "load_pretrained", lambda _: False)
        yield


def make_disks(root: Path) -> Dataset:
    """Write the images; labels go round, so every split has all three."""
    generator = np.random.default_rng(0)
    y, x = np.mgrid[:SIZE, :SIZE]
    rows = []
    for index, split in enumerate(s for s, count in SPLITS.items() for _ in range(count)):
        label = LABELS[index % 3]
        image = generator.normal(120, 15, (SIZE, SIZE))
        row, column = generator.uniform(18, SIZE - 18, 2)
        disk = (y - row) ** 2 + (x - column) ** 2 < generator.uniform(9, 13) ** 2
        image[disk] += {"none": 0, "bright": 90, "dark": -90}[label]
        case = f"{split}{index:02}"
        for folder in ("images", "masks"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        pixels = image.clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(root / f"images/{case}.png")
        mask = "" if label == "none" else f"masks/{case}.png"
        if mask:
            Image.fromarray(disk.astype(np.uint8) * 255).save(root / mask)
        rows.append((case, f"images/{case}.png", mask, label, case, split))
    columns = ["case_id", "image", "mask", "label", "patient_id", "split"]
    spec = DatasetSpec(name="disks", labels=LABELS, lesion_free=["none"])
    return Dataset.create(root, spec, pd.DataFrame(rows, columns=columns))


@pytest.fixture(scope="session")
def disks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dataset; tests that change files copy it first."""
    return make_disks(tmp_path_factory.mktemp("disks") / "data").root


@pytest.fixture(scope="session")
def configure() -> Callable[..., RunConfig]:
    """A tiny configuration of a method, with changes."""

    def make(method: str = "sks-evidence", **changes: Any) -> RunConfig:
        plain = load_config("cpu", method)
        later = {name: SHORT for name in OPTIONAL_STAGES if getattr(plain, name) is not None}
        return load_config("cpu", method, merge(TINY, later, changes))

    return make


@pytest.fixture(scope="session")
def finished(
    disks: Path,
    configure: Callable[..., RunConfig],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A run of the method that really learned; not to be written to."""
    from dxseg.training.run import train_run

    stage = {"steps": 45, "steps_per_epoch": 15, "warmup_steps": 5, "learning_rate": 3e-3}
    config = configure(data={"batch_size": 8}, stage1=stage, stage2=stage)
    run = tmp_path_factory.mktemp("finished") / "run"
    train_run(disks, run, config)
    return run


@pytest.fixture
def train(disks: Path, configure: Callable[..., RunConfig], tmp_path: Path) -> Callable[..., Path]:
    """Train a tiny run into ``tmp_path / name`` and give its folder."""
    from dxseg.training.run import train_run

    def run(
        method: str = SCRATCH,
        *,
        name: str = "run",
        dataset: Path = disks,
        stage1_run: Path | None = None,
        **changes: Any,
    ) -> Path:
        output = tmp_path / name
        config = configure(method, **changes)
        train_run(dataset, output, config, stage1_run=stage1_run)
        return output

    return run


@pytest.fixture
def copied(disks: Path, tmp_path: Path) -> Path:
    """A copy of the dataset whose files a test may change."""
    copy = tmp_path / "copied"
    shutil.copytree(disks, copy, ignore=shutil.ignore_patterns(".cache"))
    return copy

"""A small clean dataset that tests spoil."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from PIL import Image

from dxseg import check
from dxseg.data.table.dataset import Dataset, DatasetSpec
from dxseg.quality.findings import CheckReport, Finding

SIDE = 40  # pixels of every picture


@dataclasses.dataclass
class Folder:
    """A dataset being made: six cases of six patients, two of each label."""

    root: Path
    table: pd.DataFrame
    spec: dict[str, Any]

    @staticmethod
    def scene(seed: int, height: int = SIDE, width: int = SIDE) -> NDArray[np.uint8]:
        """Return a smooth random picture, (height, width)."""
        coarse = Image.fromarray(np.random.default_rng(seed).integers(0, 255, (7, 7), np.uint8))
        return np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))

    @staticmethod
    def disc(radius: float = 8, row: int = SIDE // 2) -> NDArray[np.uint8]:
        """Return a mask of 0 and 255 with one round lesion."""
        rows, columns = np.mgrid[:SIDE, :SIDE]
        inside = np.hypot(rows - row, columns - SIDE // 2) < radius
        return inside.astype(np.uint8) * np.uint8(255)

    def image(self, name: str, pixels: NDArray[Any]) -> Path:
        """Write a picture over an image or a mask."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
        return path

    def set(self, case: str, **values: Any) -> None:
        """Change a case, or add it."""
        if case not in set(self.table["case_id"]):
            new = {"case_id": case, "image": f"{case}.png", "patient_id": case}
            self.table = pd.concat([self.table, pd.DataFrame([new])], ignore_index=True).fillna("")
        for column, value in values.items():
            if column not in self.table:
                self.table[column] = ""
            self.table.loc[self.table["case_id"] == case, column] = value

    def save(self) -> Dataset:
        return Dataset.create(self.root, DatasetSpec(**self.spec), self.table)

    def check(self, **options: Any) -> CheckReport:
        self.save()
        return check(self.root, **{"workers": 1, **options})


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    labels = ["normal", "normal", "benign", "benign", "malignant", "malignant"]
    spec = {"name": "small", "labels": ["normal", "benign", "malignant"]}
    made = Folder(
        tmp_path / "data", pd.DataFrame({"case_id": []}), {**spec, "lesion_free": ["normal"]}
    )
    for number, label in enumerate(labels):
        name = f"c{number}"
        made.image(f"{name}.png", made.scene(number))
        if label != "normal":
            made.image(f"{name}_mask.png", made.disc(row=15 + number))
        made.set(name, label=label, mask="" if label == "normal" else f"{name}_mask.png")
    return made


@pytest.fixture
def codes() -> Callable[[CheckReport], dict[str, Finding]]:
    """The findings of a report by code, without what every small dataset has."""
    return lambda report: {f.code: f for f in report.findings if f.code != "label-rare"}

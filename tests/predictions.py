"""What `dxseg predict` wrote, as the tests read it."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from PIL import Image


def table(output: Path) -> dict[str, dict[str, str]]:
    with (output / "predictions.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len({row["name"] for row in rows}) == len(rows), "one row an image"
    return {row["name"]: row for row in rows}


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as opened:
        return np.array(opened)


def files_below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}

"""Time and memory of a large table: read, validate, split, select masks, write, read back.

    python benchmarks/million_rows.py
    python benchmarks/million_rows.py --rows 100000

Generates a dataset of a million rows (a third as many patients, a few per cent with a mask; no
images are needed) and then runs the steps of `dxseg split --masks`. The aim for a million rows is
less than 60 s and 4 GiB. Each step is timed once; the peak is that of the whole process, which
includes generating the table unless `--dataset` is an existing one.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dxseg.data.splits.holdout import make_splits
from dxseg.data.splits.mask_budget import choose_masks
from dxseg.data.splits.split_table import read_splits, write_splits
from dxseg.data.table.dataset import Dataset, DatasetSpec

LABELS = ("normal", "benign", "malignant")
MASKED = 0.03
UNLABELLED = 0.05


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--masks", type=int, default=1000, help="training masks that may be used")
    parser.add_argument("--dataset", type=Path, help="made here once, and used again if it exists")
    args = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.dataset or Path(scratch) / "dataset"
        made = (folder / "dataset.yaml").is_file()
        if not made:
            make_dataset(folder, args.rows)
        result = measure(folder, Path(scratch) / "splits.csv", args.masks)
    result["peak_includes_making"] = not made
    for name, seconds in result["seconds"].items():
        print(f"{name:<24}{seconds:8.2f} s")
    print(f"{'peak memory':<24}{result['peak_gib']:8.2f} GiB")
    print(json.dumps(result))
    return result


def make_dataset(folder: Path, rows: int) -> None:
    """Write a table of patients with a handful of images each; nothing else."""
    rng = np.random.default_rng(0)
    label = rng.choice(LABELS, rows).astype(object)
    masked = (rng.random(rows) < MASKED) & (label != "normal")
    label[rng.random(rows) < UNLABELLED] = ""
    number = pd.Series(range(rows)).astype(str)
    name = "images/" + number + ".png"
    cases = pd.DataFrame(
        {
            "case_id": "case" + number,
            "image": name,
            "mask": ("masks/" + number + ".png").where(masked, ""),
            "label": label,
            "patient_id": [f"P{patient}" for patient in rng.integers(0, rows // 3 + 1, rows)],
            "spacing_y": 0.1,
            "spacing_x": 0.1,
        }
    )
    spec = DatasetSpec(name="million", labels=list(LABELS), lesion_free=["normal"])
    Dataset.create(folder, spec, cases)


def measure(folder: Path, splits: Path, masks: int) -> dict[str, Any]:
    """Do each step once, in the order of `dxseg split` and `dxseg train`."""
    seconds: dict[str, float] = {}

    def timed(name: str, step: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        value = step()
        seconds[name] = time.perf_counter() - start
        return value

    dataset = timed("read and validate", lambda: Dataset.load(folder))
    table = timed("split", lambda: make_splits(dataset))
    chosen = timed(
        "choose masks",
        lambda: choose_masks(dataset, table, train_masks=masks, validation_masks=None, seed=0),
    )
    timed("write splits.csv", lambda: write_splits(splits, chosen))
    timed("read splits.csv", lambda: read_splits(splits, dataset))
    timed("digest", dataset.digest)
    seconds["all"] = sum(seconds.values())
    return {
        "benchmark": "million_rows",
        "rows": len(dataset),
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
        "peak_gib": round(peak_gib(), 3),
    }


def peak_gib() -> float:
    """Most memory that this process ever held; macOS counts bytes, Linux KiB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


if __name__ == "__main__":
    main()

"""Time of `dxseg import folder` on 10,000 images, against another checkout.

    git worktree add ../before 34b2f44
    python benchmarks/import_folder.py --against ../before

Generates images of two diagnoses with masks beside a third of them (small ones: reading headers and
pairing names is what is timed), and imports them alternately with this checkout and the other. The
aim is a ratio of at most 1.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

HERE = Path(__file__).resolve().parents[1]
_TIMED = """
import sys, time
from dxseg.commands.imports import import_folder
start = time.perf_counter()
report = import_folder(sys.argv[1], sys.argv[2])
print(time.perf_counter() - start, report.images, report.masks)
"""


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--against", type=Path, help="another checkout; else only this one")
    args = parser.parse_args(arguments)
    checkouts = {"here": HERE} | ({"against": args.against} if args.against else {})
    seconds: dict[str, list[float]] = {name: [] for name in checkouts}
    with tempfile.TemporaryDirectory() as scratch:
        make_images(Path(scratch) / "in", args.images)
        for number in range(args.rounds):
            for name, checkout in checkouts.items():
                out = Path(scratch) / f"{name}{number}"
                seconds[name].append(time_import(checkout, Path(scratch) / "in", out))
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    result: dict[str, Any] = {"images": args.images, "seconds": medians}
    if args.against:
        result["ratio"] = medians["here"] / medians["against"]
    for name, median in medians.items():
        print(f"{name:<10}{median:8.2f} s")
    print(json.dumps(result))
    return result


def make_images(folder: Path, images: int) -> None:
    """Write images of noise, named as BUSI names them, and masks of a square."""
    rng = np.random.default_rng(0)
    mask = np.zeros((48, 64), np.uint8)
    mask[10:20, 10:30] = 255
    for number in range(images):
        label = ("benign", "malignant")[number % 2]
        path = folder / label / f"{label} ({number}).png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (48, 64), np.uint8)).save(path, compress_level=1)
        if number % 3 == 0:
            Image.fromarray(mask).save(path.with_name(f"{path.stem}_mask.png"))


def time_import(checkout: Path, source: Path, destination: Path) -> float:
    """Import in a process of its own, which uses the code of a checkout."""
    done = subprocess.run(
        [sys.executable, "-c", _TIMED, str(source), str(destination)],
        env={**os.environ, "PYTHONPATH": str(checkout.resolve() / "src")},
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout.split()[0])


if __name__ == "__main__":
    main()

"""Time and memory of `dxseg import` and `dxseg check` on many images.

    python benchmarks/check_scale.py
    python benchmarks/check_scale.py --images 1000 --workers 2

Generates gray PNGs (smooth random images with speckle; every twentieth is a brightened copy of an
earlier one; every third has a mask) and a table of them, decodes them one by one with Pillow,
imports the table, checks the dataset, and checks it again with the cache of the first check.
Generating the images is not timed. Prints one line of JSON: seconds and images per second of each
step, the ratio of the import and of the first check to decoding alone in one process, the peak
memory of the parent and of the largest worker, and whether every copy was found.
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
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from PIL import Image

import dxseg
from dxseg.io.parallel import count_workers
from dxseg.quality.findings import CheckReport

COPY_EVERY, MASK_EVERY = 20, 3
Made = TypeVar("Made")
COLUMNS = {name: name for name in ("image", "mask", "label")}


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--side", type=int, default=256, help="pixels of each image")
    parser.add_argument("--workers", type=int, help="processes; one a core if absent")
    args = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        listed, planted = make_images(Path(folder), args.images, args.side)
        root = Path(folder) / "dataset"
        files = sorted((Path(folder) / "images").iterdir())

        def check() -> CheckReport:
            return dxseg.check(root, workers=args.workers)

        seconds = {"decode": timed(lambda: decode(files))[0]}
        seconds["import"], _ = timed(lambda: dxseg.import_csv(listed, root, columns=COLUMNS))
        seconds["check"], _ = timed(check)
        seconds["check again"], report = timed(check)
    found = next((f.count for f in report.findings if f.code == "duplicates-near"), 0)
    result = {
        "benchmark": "check_scale",
        "images": args.images,
        "side": args.side,
        "workers": count_workers(args.workers),
        "seconds": {step: round(value, 1) for step, value in seconds.items()},
        "images_per_s": {step: round(args.images / value, 1) for step, value in seconds.items()},
        "ratio": {
            step: round(seconds["decode"] / seconds[step], 3) for step in ("import", "check")
        },
        "peak_mb": peak_mb(resource.RUSAGE_SELF),
        "peak_mb_worker": peak_mb(resource.RUSAGE_CHILDREN),
        "planted": planted,
        "found": found,
    }
    print(json.dumps(result))
    return result


def timed(work: Callable[[], Made]) -> tuple[float, Made]:
    start = time.perf_counter()
    made = work()
    return time.perf_counter() - start, made


def decode(files: list[Path]) -> None:
    """The least that whoever looks at the pixels has to do."""
    for path in files:
        with Image.open(path) as image:
            image.load()


def make_images(root: Path, images: int, side: int) -> tuple[Path, int]:
    """Write images and their table; gives the table and how many are a copy or have one."""
    random = np.random.default_rng(0)
    disc = np.hypot(*np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]) < 0.3
    (root / "images").mkdir()
    Image.fromarray(disc.astype(np.uint8) * np.uint8(255)).save(root / "mask.png")
    rows, originals = [], set()
    for number in range(images):
        if number % COPY_EVERY == COPY_EVERY - 1:
            original = int(random.integers(number // COPY_EVERY + 1)) * COPY_EVERY
            originals |= {original, number}
            with Image.open(root / "images" / f"{original}.png") as source:
                pixels = np.asarray(source) * 0.8 + 30
        else:
            coarse = Image.fromarray(random.integers(0, 255, (8, 8)).astype(np.uint8))
            smooth = np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC))
            pixels = smooth * random.rayleigh(0.8, (side, side))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(
            root / "images" / f"{number}.png", compress_level=1
        )
        rows.append(
            {
                "image": f"images/{number}.png",
                "mask": "" if number % MASK_EVERY else "mask.png",
                "label": ("benign", "malignant", "")[number % MASK_EVERY],
            }
        )
    pd.DataFrame(rows).to_csv(root / "list.csv", index=False)
    return root / "list.csv", len(originals)


def peak_mb(whose: int) -> int:
    """The highest resident memory so far, of this process or of the largest that has ended."""
    # Linux counts in KiB, macOS in bytes.
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return round(resource.getrusage(whose).ru_maxrss / unit)


if __name__ == "__main__":
    main()

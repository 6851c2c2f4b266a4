"""How long `dxseg check` takes on many images, and how much memory.

    python benchmarks/check_scale.py
    python benchmarks/check_scale.py --images 1000 --workers 2

makes a dataset of grey PNGs (smooth random pictures with speckle; every twentieth is a brightened
copy of an earlier one; every third has a mask), checks it, and checks it again with what the first
check kept. Making the images is not timed. Prints one line of JSON: seconds of both checks, images
a second, the peak memory of the parent and of the largest worker, and whether every planted copy
was found.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image
from rich.console import Console

from dxseg.data.dataset import Dataset, DatasetSpec
from dxseg.data.parallel import count_workers
from dxseg.doctor.check import check_dataset

COPY_EVERY, MASK_EVERY = 20, 3


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--side", type=int, default=256, help="pixels of each image")
    parser.add_argument("--workers", type=int, help="processes; one a core if absent")
    args = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        root, planted = make_images(Path(folder), args.images, args.side)
        seconds = []
        for _ in range(2):
            start = time.perf_counter()
            report = check_dataset(root, workers=args.workers, console=Console(stderr=True))
            seconds.append(time.perf_counter() - start)
    found = next((f.count for f in report.findings if f.code == "duplicates-near"), 0)
    result = {
        "benchmark": "check_scale",
        "images": args.images,
        "side": args.side,
        "workers": count_workers(args.workers),
        "seconds": round(seconds[0], 1),
        "seconds_again": round(seconds[1], 1),
        "images_per_s": round(args.images / seconds[0], 1),
        "peak_mb": peak_mb(resource.RUSAGE_SELF),
        "peak_mb_worker": peak_mb(resource.RUSAGE_CHILDREN),
        "planted": planted,
        "found": found,
    }
    print(json.dumps(result))
    return result


def make_images(root: Path, images: int, side: int) -> tuple[Path, int]:
    """Write the dataset; gives its folder and how many images are a copy or have one."""
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
                "case_id": str(number),
                "image": f"images/{number}.png",
                "mask": "" if number % MASK_EVERY else "mask.png",
                "label": ("benign", "malignant", "")[number % MASK_EVERY],
            }
        )
    spec = DatasetSpec(name="scale", labels=["benign", "malignant"])
    return Dataset.create(root, spec, pd.DataFrame(rows)).root, len(originals)


def peak_mb(whose: int) -> int:
    """The highest resident memory so far, of this process or of the largest that has ended."""
    # Linux counts in KiB, macOS in bytes.
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return round(resource.getrusage(whose).ru_maxrss / unit)


if __name__ == "__main__":
    main()

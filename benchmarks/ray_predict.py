"""What Ray costs: `dxseg predict --engine ray` with one and more workers against the engine itself.

The same model (random weights) and the same phantoms: N images are links to a few files, so that a
disk of any size will do. The in-process engine writes masks and predictions.csv, no overlays; Ray
writes predictions.parquet. Times are of whole calls: with Ray, of its start, of the loading of the
model in each worker and the end. A second call with half of the images tells the cost of an image:
the difference of the calls by the difference of their images; what is left is paid once a call.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

from rich.console import Console
from rich.table import Table

from dxseg.data.phantom import make_phantoms
from dxseg.inference.archive import predict_archive
from dxseg.inference.predict import predict_files
from predict_throughput import make_bundle

PHANTOMS = 32


def link_images(folder: Path, sources: Sequence[Path], count: int) -> Path:
    """A folder of so many images."""
    folder.mkdir()
    for index in range(count):
        os.link(sources[index % len(sources)], folder / f"{index:07}.png")
    return folder


def seconds(call: Callable[[], Any]) -> float:
    started = perf_counter()
    call()
    return perf_counter() - started


def measure(images: int, size: int, workers: Sequence[int], work: Path) -> list[dict[str, Any]]:
    """One row an engine."""
    bundle = make_bundle(work / "model", "sks-evidence", size, 1)
    sources = sorted((make_phantoms(work / "data", images=PHANTOMS, size=size).root).rglob("*.png"))
    sources = [path for path in sources if path.parent.name == "images"]
    all_, half = (
        link_images(work / f"in{count}", sources, count) for count in (images, images // 2)
    )
    sides: dict[str, Callable[[Path, Path], Any]] = {
        "in process": lambda inputs, out: predict_files(inputs, bundle, out, overlays=False)
    }
    for count in workers:
        sides[f"ray, workers {count}"] = lambda inputs, out, count=count: predict_archive(
            inputs, bundle, out, workers=count
        )
    rows = []
    for name, side in sides.items():
        short = seconds(lambda side=side, name=name: side(half, work / f"{name} half"))
        long = seconds(lambda side=side, name=name: side(all_, work / f"{name} all"))
        per_image = (long - short) / (images - images // 2)
        once = long - per_image * images
        rows.append({"engine": name, "seconds": long, "per_image": per_image, "once": once})
    return rows


def main(arguments: Sequence[str] | None = None) -> list[dict[str, Any]]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--size", type=int, default=128, help="side of images and network, pixels")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--json", type=Path, help="also write the rows there")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as work:
        rows = measure(options.images, options.size, options.workers, Path(work))
    table = Table("engine", "seconds", "ms an image", "to in process", "paid once, s")
    for row in rows:
        ratio = row["per_image"] / rows[0]["per_image"]
        table.add_row(
            row["engine"],
            f"{row['seconds']:.1f}",
            f"{1000 * row['per_image']:.1f}",
            f"{ratio:.2f}",
            f"{row['once']:.1f}",
        )
    Console().print(table)
    if options.json is not None:
        options.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    return rows


if __name__ == "__main__":
    main(sys.argv[1:])

"""Unit costs of predicting a large image collection, for docs/explanation/ten-million.md.

On a few phantoms linked under many names: milliseconds of each step for one image on one thread
(read; resize, network, back; row and mask; Parquet); the cost of each name in the main process, in
a plan of `--names` names, without predicting any; and the size of a file and of a result on disk.
The network is a very small one with random weights, or with `--network whole` that of the preset
cpu. Ray is not started: its cost is measured by ray_predict.py.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from time import process_time
from typing import Any

import pandas as pd
import torch
from rich.console import Console
from rich.table import Table

from command import parser_of
from dxseg.data.readers.images import read_image
from dxseg.data.readers.masks import read_mask
from dxseg.data.table.dataset import Dataset
from dxseg.inference.files.png import encode_png, mask_levels
from dxseg.inference.model_folder import read_info
from dxseg.inference.predictor import Predictor
from dxseg.inference.ray.inputs import archive_items
from dxseg.inference.ray.parquet import MASK, RESULTS, finished, write_part
from dxseg.inference.ray.predict import PART_IMAGES
from dxseg.inference.ray.worker import archive_row
from predict_memory import NETWORKS, make_model_folder, many_images, resident_mb


def per_image(work: Callable[[], object], count: int) -> float:
    """Milliseconds of the processor."""
    begun = process_time()
    work()
    return round(1000 * (process_time() - begun) / count, 3)


def measure_steps(images: Path, model_folder: Path, folder: Path, count: int) -> dict[str, float]:
    """What each step costs for one image, one after the other, on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    predictor = Predictor.from_folder(model_folder)
    info = predictor.info
    files = sorted(images.iterdir())[:count]
    read = [read_image(path) for path in files]
    predictions = predictor.predict(read)
    rows: list[dict[str, Any]] = []

    def describe() -> None:
        for path, said in zip(files, predictions, strict=True):
            rows.append(archive_row(path.name, str(path), said, info))

    steps = {
        "read": per_image(lambda: [read_image(path) for path in files], len(files)),
        "resize, network, back": per_image(lambda: predictor.predict(read), len(files)),
        "row and mask": per_image(describe, len(files)),
        "Parquet": per_image(lambda: write_part(folder / "p.parquet", rows, info), len(files)),
    }
    torch.set_num_threads(threads)
    return steps


def bytes_of_results(folder: Path, model_folder: Path) -> dict[str, float]:
    """What the file of a phantom, and a right result in Parquet, take."""
    info = read_info(model_folder)
    dataset = Dataset.load(folder / "phantoms")
    known = ~dataset.lesion_free.to_numpy()
    files = [dataset.image_path(row) for row in dataset.cases[known].itertuples()]
    masks = [dataset.mask_path(row) for row in dataset.cases[known].itertuples()]
    rows = [
        {
            "name": path.name,
            "source": str(path),
            MASK: encode_png(mask_levels(read_mask(mask, 1), 1)),
        }
        for path, mask in zip(files, masks, strict=True)
        if mask is not None
    ]
    write_part(folder / "true.parquet", rows, info)
    return {
        "image": round(statistics.mean(path.stat().st_size for path in files)),
        "result": round((folder / "true.parquet").stat().st_size / len(rows)),
    }


def measure_master(folder: Path, model_folder: Path, names: int) -> dict[str, float]:
    """What listing, planning and going on cost for each name, in microseconds and bytes."""
    info = Predictor.from_folder(model_folder).info
    table = folder / "names.parquet"
    paths = [f"site-{number % 97:02}/{number:08}.png" for number in range(names)]
    pd.DataFrame({"image": paths}).to_parquet(table)
    results = folder / RESULTS
    results.mkdir()
    for start in range(0, names, PART_IMAGES):
        write_part(results / f"part-{start:08}.parquet", _bare_rows(folder, paths, start), info)
    before, begun = resident_mb(), process_time()
    items = archive_items([table])
    wanted = {item.name: (str(item.source), "") for item in items}
    listed, held = process_time(), (resident_mb() - before) * 2**20
    done = finished(results, wanted)
    if len(done) != names:
        raise SystemExit(f"{len(done)} of {names} results were found")
    return {
        "list_us": round(1e6 * (listed - begun) / names, 2),
        "find_done_us": round(1e6 * (process_time() - listed) / names, 2),
        "held_bytes": round(held / names),
    }


def _bare_rows(folder: Path, paths: Sequence[str], start: int) -> list[dict[str, Any]]:
    return [
        {"name": path, "source": str(folder / path), "label_prompt": "", MASK: b""}
        for path in paths[start : start + PART_IMAGES]
    ]


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = parser_of(__doc__)
    parser.add_argument("--native", type=int, default=64, help="side of the files (64)")
    parser.add_argument("--size", type=int, default=64, help="side of the network's input (64)")
    parser.add_argument("--network", choices=tuple(NETWORKS), default="tiny")
    parser.add_argument("--images", type=int, default=64, help="images to time each step with (64)")
    parser.add_argument("--names", type=int, default=100_000, help="names in the plan (100000)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure, print tables and a JSON line; gives what the line holds."""
    arguments = parse(argv)
    result: dict[str, Any] = {"benchmark": "archive_units", **vars(arguments)}
    result |= {"cores": os.cpu_count(), "load": round(os.getloadavg()[0], 1)}
    with tempfile.TemporaryDirectory(prefix="dxseg-bench-") as name:
        folder = Path(name)
        images = many_images(folder, arguments.images, arguments.native)
        model_folder = make_model_folder(
            folder / "model", arguments.size, NETWORKS[arguments.network]
        )
        result["steps_ms"] = measure_steps(images, model_folder, folder, arguments.images)
        result["bytes"] = bytes_of_results(folder, model_folder)
        result["master"] = measure_master(folder, model_folder, arguments.names)
    titles = {
        "One image, ms of one thread": "steps_ms",
        "One name": "master",
        "Bytes": "bytes",
    }
    for title, key in titles.items():
        table = Table(title=title, show_header=False)
        for step, value in result[key].items():
            table.add_row(step, f"{value:g}")
        Console().print(table)
    print(json.dumps(result))
    return result


if __name__ == "__main__":
    main(sys.argv[1:])

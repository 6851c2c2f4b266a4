"""Resident memory of `dxseg predict` over many images.

One call of `predict_files`, as in `dxseg predict`: decode, resize, network, resize back, then a
mask, an overlay and a row of predictions.csv per image. The files are a few phantoms linked under
many names, so that every file is opened and decoded. The network is the method (sks) with a very
small encoder and random weights, since its memory does not depend on the number of images.

The resident set is read after a tenth, a half and all of the images; memory is constant if the last
is about the first. All images have one size: with larger ones it grows until the largest is read.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import process_time
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from command import parser_of
from dxseg.config.presets import load_config
from dxseg.data.preprocessing import Preprocessing
from dxseg.inference.files.predict import predict_files
from dxseg.inference.model_folder import ModelInfo, save_model_folder
from dxseg.inference.predictor import Predictor
from dxseg.models.factory import Task, build_model
from dxseg.models.heads import LESION_PRIOR
from dxseg.phantoms.ultrasound import make_phantoms

METHOD = "sks"
TINY: dict[str, Any] = {"backbone": "test_efficientnet", "decoder_channels": [8, 8, 4, 4, 4]}
NETWORKS: dict[str, dict[str, Any]] = {"tiny": TINY, "whole": {}}
"""By name, what makes of the method's network the one that is measured."""
PHANTOMS = 50
SHARES = (0.1, 0.5, 1.0)


def make_model_folder(folder: Path, size: int, changes: Mapping[str, Any] = TINY) -> Path:
    """The method with random weights, around a very small encoder unless changes say otherwise."""
    model = load_config("cpu", METHOD, {"model": dict(changes)}).model
    info = ModelInfo(
        threshold=LESION_PRIOR,  # untrained networks mark about half of an image then
        model=model,
        preprocessing=Preprocessing(image_size=size, channels=1, mean=(0.5,), std=(0.25,)),
        labels=["normal", "benign", "malignant"],
    )
    save_model_folder(folder, build_model(model, Task(1, 1, 3), pretrained=False), info)
    return folder


def many_images(folder: Path, count: int, size: int) -> Path:
    """A folder of `count` names for a few phantoms."""
    dataset = make_phantoms(folder / "phantoms", images=min(count, PHANTOMS), size=size)
    sources = [dataset.image_path(row) for row in dataset.cases.itertuples()]
    images = folder / "images"
    images.mkdir()
    for number in range(count):
        (images / f"{number:06}.png").hardlink_to(sources[number % len(sources)])
    return images


def resident_mb() -> float:
    """This process's resident set, as Linux tells it."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Predict all images in one call."""
    marks = {max(1, round(share * arguments.images)) for share in SHARES}
    memory: dict[str, float] = {}

    def note(done: int, _all: int) -> None:
        if done in marks:
            memory[str(done)] = round(resident_mb(), 1)

    with tempfile.TemporaryDirectory(prefix="dxseg-bench-") as name:
        folder = Path(name)
        images = many_images(folder, arguments.images, arguments.size)
        model_folder = make_model_folder(folder / "model", arguments.size)
        begun = process_time()
        predictor = Predictor.from_folder(model_folder, backend=arguments.backend)
        summary = predict_files(predictor, [images], folder / "out", progress=note)
        seconds = process_time() - begun
    first, *_, last = memory.values()
    return {
        "benchmark": "predict_memory",
        "images": arguments.images,
        "predicted": summary.done,
        "image_size": arguments.size,
        "backend": arguments.backend or "torch",
        "torch_threads": torch.get_num_threads(),
        "cpu_seconds": round(seconds, 1),
        "memory_mb": memory,
        "last_of_first": round(last / first, 3),
    }


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = parser_of(__doc__)
    parser.add_argument("--images", type=int, default=10_000, help="images in all (10000)")
    parser.add_argument("--size", type=int, default=64, help="side of images and input (64)")
    parser.add_argument("--backend", help="as of dxseg predict (torch)")
    parser.add_argument("--threads", type=int, help="torch threads (torch's own choice)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure, print a table and a JSON line; gives what the line holds."""
    arguments = parse(argv)
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    result = measure(arguments)
    table = Table(
        title=f"Memory of predict, {result['images']} images of {result['image_size']} px, "
        f"{result['backend']}"
    )
    for heading in ("images done", "resident, MB", "of the first"):
        table.add_column(heading, justify="right")
    first = next(iter(result["memory_mb"].values()))
    for done, resident in result["memory_mb"].items():
        table.add_row(done, f"{resident:.1f}", f"{resident / first:.3f}")
    Console().print(table)
    print(json.dumps(result))
    return result


if __name__ == "__main__":
    main(sys.argv[1:])

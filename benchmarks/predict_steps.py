"""CPU time of `dxseg predict`: each step for one image, on one thread.

The steps of `dxseg.inference.pipeline`, one after the other on phantoms: read the file, fit it to
the network's input, the network (with intensities and sigmoid), back to the image's size with the
decision rules, the mask as PNG, the row of predictions.csv. CPU milliseconds, medians over rounds,
which are robust on a busy machine; `dxseg predict` itself runs them in parallel threads.

`--ways` and networks (random weights, both methods) are those of inference_backends.py.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from time import process_time
from typing import Any, TypeVar

import torch
from rich.console import Console
from rich.table import Table

from command import parser_of
from dxseg.data.readers.images import read_image
from dxseg.inference.files.png import write_mask_png
from dxseg.inference.files.table import image_values
from dxseg.inference.load import load_backend
from dxseg.inference.pipeline import InferencePipeline
from dxseg.phantoms.ultrasound import make_phantoms
from eager_loop import BATCH
from inference_backends import WAYS, chosen, make_models

Result = TypeVar("Result")


class Clock:
    """Milliseconds of the processor for one image, by step."""

    def __init__(self, images: int) -> None:
        self.images = images
        self.steps: dict[str, float] = {}

    def time(self, step: str, work: Callable[[], Result]) -> Result:
        """Do a step; what it has taken adds up."""
        begun = process_time()
        result = work()
        taken = 1000 * (process_time() - begun) / self.images
        self.steps[step] = self.steps.get(step, 0.0) + taken
        return result


def one_round(files: Sequence[Path], pipeline: InferencePipeline, mask: Path) -> dict[str, float]:
    """All files once, as many at a time as `dxseg predict` takes."""
    clock, info = Clock(len(files)), pipeline.info
    for start in range(0, len(files), BATCH):
        some = files[start : start + BATCH]
        images = clock.time("read", lambda some=some: [read_image(path) for path in some])
        batch = clock.time("fit", lambda images=images: [pipeline.preprocess(i) for i in images])
        outputs = clock.time("network", lambda batch=batch: pipeline.forward(batch))
        for item, output in zip(batch, outputs, strict=True):
            found = clock.time(
                "back", lambda item=item, output=output: pipeline.postprocess(item, output)
            )
            clock.time("mask PNG", lambda found=found: write_mask_png(mask, found.mask, 1))
            clock.time("row", lambda found=found: image_values(found, info))
    return clock.steps


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    sides = {}
    with tempfile.TemporaryDirectory(prefix="dxseg-bench-") as name:
        folder = Path(name)
        data = make_phantoms(folder / "data", images=arguments.images, size=arguments.native)
        files = [data.image_path(row) for row in data.cases.itertuples()]
        models = make_models(folder, data.root, arguments.size, data.spec.channels)
        for method, kinds in models.items():
            for way in arguments.ways:
                backend, precision, _ = WAYS[way]
                loaded, info = load_backend(chosen(kinds, way), backend, "cpu", precision)
                pipeline = InferencePipeline(loaded, info, BATCH)
                rounds = [
                    one_round(files, pipeline, folder / "mask.png")
                    for _ in range(arguments.rounds + 1)
                ][1:]  # the first warms up
                sides[f"{method}, {way}"] = {
                    step: round(statistics.median(one[step] for one in rounds), 2)
                    for step in rounds[0]
                }
    return {
        "benchmark": "predict_steps",
        "images": arguments.images,
        "native": arguments.native,
        "image_size": arguments.size,
        "rounds": arguments.rounds,
        "ms": sides,
    }


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = parser_of(__doc__)
    parser.add_argument("--images", type=int, default=48, help="images a round (48)")
    parser.add_argument("--native", type=int, default=512, help="side of the files, pixels (512)")
    parser.add_argument("--size", type=int, default=256, help="side of the network's input (256)")
    parser.add_argument(
        "--ways", nargs="+", choices=WAYS, default=["torch", "openvino int8"], metavar="WAY"
    )
    parser.add_argument("--rounds", type=int, default=3, help="rounds (3)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure, print a table and a JSON line; gives what the line holds."""
    arguments = parse(argv)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        result = measure(arguments)
    finally:
        torch.set_num_threads(threads)
    sides = result["ms"]
    table = Table(title="ms of the processor for one image, one thread")
    for heading in ("", *sides):
        table.add_column(heading, justify="right" if heading else "left")
    for step in next(iter(sides.values())):
        table.add_row(step, *(f"{steps[step]:.1f}" for steps in sides.values()))
    table.add_row("sum", *(f"{sum(steps.values()):.1f}" for steps in sides.values()))
    Console().print(table)
    print(json.dumps(result))
    return result


if __name__ == "__main__":
    main(sys.argv[1:])

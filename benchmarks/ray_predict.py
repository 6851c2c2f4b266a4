"""`dxseg predict --engine ray` against the single-process engine.

Sides, on the same files with the same network, alternately within each round: `predict_files` as
`dxseg predict --no-overlays` calls it, and `predict_archive` with each number of workers. The
files are a few phantoms linked under many names, so that every file is opened and decoded; the
network is a very small one with random weights (as in predict_memory.py), so that the cost of the
engine is visible, or with `--network whole` that of the preset cpu.

Two times are reported. Wall-clock seconds from the first report of progress to the end, which
include the start of the workers (`first part` is the time of the first results). CPU seconds of
this process and all its children, including Ray's own processes; on a busy machine only these are
reliable, because Ray lowers the priority of its workers. `later` excludes the time until the first
part is done, which many images make small. Ratios are medians over rounds.

Ray is started once, beforehand (`ray start`). Its workers share the machine's cores as threads, as
in a call.

One more table: the cost of a part in Ray Data, with a worker that does nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Lock, Thread
from time import perf_counter
from typing import Any

from rich.console import Console
from rich.table import Table

from command import parser_of
from dxseg.inference.files.predict import predict_files
from dxseg.inference.predictor import Predictor
from dxseg.inference.ray.cluster import running_ray
from dxseg.inference.ray.predict import PART_IMAGES, predict_archive
from predict_memory import NETWORKS, make_model_folder, many_images

IN_PROCESS = "in-process"
READ_AGAIN = 0.2
"""Seconds between two readings of what the processor did."""


class Processor:
    """Seconds of the processor that this process and all that it starts have used.

    Read again and again, since what Ray ends takes its count with it.
    """

    def __init__(self) -> None:
        """Begin to read."""
        self._spent: dict[tuple[int, str], int] = {}
        self._lock, self._over = Lock(), Event()
        Thread(target=self._keep_reading, daemon=True).start()

    def seconds(self) -> float:
        """Up to now."""
        with self._lock:
            self._read()
            return sum(self._spent.values()) / os.sysconf("SC_CLK_TCK")

    def stop(self) -> None:
        """Read no more."""
        self._over.set()

    def _keep_reading(self) -> None:
        while not self._over.wait(READ_AGAIN):
            self.seconds()

    def _read(self) -> None:
        found: dict[int, tuple[int, str, int]] = {}
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = path.read_text().rpartition(")")[2].split()
            except OSError:
                continue  # it has ended
            found[int(path.parent.name)] = int(fields[1]), fields[19], sum(map(int, fields[11:13]))
        ours, before = {os.getpid()}, 0
        while len(ours) > before:
            before = len(ours)
            ours |= {process for process, (parent, *_) in found.items() if parent in ours}
        for process in ours:
            _, born, ticks = found[process]
            self._spent[process, born] = ticks  # a number may be given to another process later


@contextmanager
def started_ray(workers: int) -> Iterator[float]:
    """Ray for all rounds; gives the seconds it took to start."""
    begun = perf_counter()
    with running_ray(workers):
        yield perf_counter() - begun


def run_side(
    workers: int, images: Path, model_folder: Path, output: Path, processor: Processor
) -> dict[str, float]:
    """Predict all images once; 0 workers are the engine of this process."""
    ticks: list[tuple[float, float, int]] = []

    def note(done: int, every: int) -> None:
        if len(ticks) < 2 or done == every:  # before the first part, after it, and the end
            ticks.append((perf_counter(), processor.seconds(), done))

    if workers:
        options = {"precision": "float32", "flip": False}
        summary = predict_archive(
            model_folder, options, [images], output, workers=workers, progress=note
        )
    else:
        predictor = Predictor.from_folder(model_folder)
        summary = predict_files(predictor, [images], output, overlays=False, progress=note)
    if summary.failed:
        raise SystemExit(f"{workers} workers: {len(summary.failed)} failed")
    (begun, before, _), (first, soon, some), (ended, after, done) = ticks[0], ticks[1], ticks[-1]
    return {
        "wall_s": ended - begun,
        "first_part_s": first - begun,
        "first_part_cpu_s": soon - before,
        "cpu_ms": 1000 * (after - before) / done,
        "later_cpu_ms": 1000 * (after - soon) / max(1, done - some),
    }


def measure_parts(count: int, processor: Processor) -> dict[str, float]:
    """What Ray Data costs for a part that nothing is done with, in milliseconds."""
    import ray.data

    class Idle:  # in here it is sent to workers as code, which cannot import this script
        def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
            return {"size": batch["size"]}

    ray.data.DataContext.get_current().enable_progress_bars = False
    part = json.dumps(
        [[f"site/{i:08}.png", f"/archive/site/{i:08}.png", ""] for i in range(PART_IMAGES)]
    )
    rows = [{"part": part, "size": PART_IMAGES}] * count
    spent, begun = processor.seconds(), perf_counter()
    plan = ray.data.from_items(rows, override_num_blocks=count)
    planned = perf_counter()
    answers = plan.map_batches(Idle, batch_size=1, concurrency=1, num_cpus=1)
    if sum(1 for _ in answers.iter_rows()) != count:
        raise SystemExit("Ray Data has lost a part")
    return {
        "parts": count,
        "plan_ms": round(1000 * (planned - begun) / count, 2),
        "wall_ms": round(1000 * (perf_counter() - begun) / count, 2),
        "cpu_ms": round(1000 * (processor.seconds() - spent) / count, 2),
    }


def measure_engines(
    images: Path, model_folder: Path, arguments: argparse.Namespace
) -> dict[str, Any]:
    sides = {
        IN_PROCESS: 0,
        **{f"ray, {n} {'worker' if n == 1 else 'workers'}": n for n in arguments.workers},
    }
    found: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
    processor = Processor()
    with started_ray(max(arguments.workers)) as start, tempfile.TemporaryDirectory() as name:
        for turn in range(arguments.rounds):
            for side, workers in sides.items():
                output = Path(name, f"{turn}-{workers}")
                found[side].append(run_side(workers, images, model_folder, output, processor))
        parts = measure_parts(arguments.parts, processor)
    medians = {
        side: {key: round(statistics.median(run[key] for run in runs), 2) for key in runs[0]}
        for side, runs in found.items()
    }
    processor.stop()
    base = found[IN_PROCESS]
    ratios = {
        side: {
            key: round(
                statistics.median(a[key] / b[key] for a, b in zip(runs, base, strict=True)), 3
            )
            for key in ("cpu_ms", "later_cpu_ms")
        }
        for side, runs in found.items()
    }
    return {
        "ray_start_seconds": round(start, 1),
        "sides": medians,
        "of_in_process": ratios,
        "idle_part": parts,
    }


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = parser_of(__doc__)
    parser.add_argument("--images", type=int, default=10_000, help="images of a side (10000)")
    parser.add_argument("--native", type=int, default=64, help="side of the files (64)")
    parser.add_argument("--size", type=int, default=64, help="side of the network's input (64)")
    parser.add_argument("--network", choices=tuple(NETWORKS), default="tiny")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="of Ray (1 2)")
    parser.add_argument("--rounds", type=int, default=1, help="turns of all sides (1)")
    parser.add_argument("--parts", type=int, default=1000, help="parts without work (1000)")
    return parser.parse_args(argv)


def tables(result: dict[str, Any]) -> Iterator[Table]:
    engines = result["engines"]
    table = Table(
        title=f"{result['images']} images, Ray started in {engines['ray_start_seconds']} s"
    )
    headings = ("", "images/s", "first part, s", "cpu ms/image", "ratio", "later", "ratio")
    for heading in headings:
        table.add_column(heading, justify="right" if heading else "left")
    for side, told in engines["sides"].items():
        ratios = engines["of_in_process"][side]
        table.add_row(
            side,
            f"{result['images'] / told['wall_s']:.1f}",
            f"{told['first_part_s']:.1f}",
            f"{told['cpu_ms']:.2f}",
            f"{ratios['cpu_ms']:.2f}",
            f"{told['later_cpu_ms']:.2f}",
            f"{ratios['later_cpu_ms']:.2f}",
        )
    yield table
    table = Table(title="One part, nothing done with it", show_header=False)
    for step, value in engines["idle_part"].items():
        table.add_row(step, f"{value:g}")
    yield table


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure, print tables and a JSON line; gives what the line holds."""
    arguments = parse(argv)
    shown = ("images", "native", "size", "network", "rounds")
    result: dict[str, Any] = {"benchmark": "ray_predict"}
    result |= {name: getattr(arguments, name) for name in shown}
    result |= {"cores": os.cpu_count(), "load": round(os.getloadavg()[0], 1)}
    with tempfile.TemporaryDirectory(prefix="dxseg-bench-") as name:
        folder = Path(name)
        images = many_images(folder, arguments.images, arguments.native)
        model_folder = make_model_folder(
            folder / "model", arguments.size, NETWORKS[arguments.network]
        )
        result["engines"] = measure_engines(images, model_folder, arguments)
    for table in tables(result):
        Console().print(table)
    print(json.dumps(result))
    return result


if __name__ == "__main__":
    main(sys.argv[1:])

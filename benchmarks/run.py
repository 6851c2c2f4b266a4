"""All throughput benchmarks in one run, as one table of ratios, and a history of such runs.

    python benchmarks/run.py
    python benchmarks/run.py --only startup check_scale
    python benchmarks/run.py --history benchmarks/history.jsonl

Each benchmark runs in its own process, one after the other, so that memory and threads of one do
not affect another; `--help` of each describes it. A ratio is the speed of dxseg divided by that of
its peer, both measured alternately in that process: ratios are more robust to load than rates.

`--history` appends a line of JSON to a file: date (UTC), commit ("+" if files differ from it), a
description of the machine, its load before the run, the settings (full or tiny) and the ratios. The
column `before` has the ratios of the last line of the same machine and settings. The exit code is 1
if a benchmark failed, but not if an aim is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

HERE = Path(__file__).resolve().parent
Result = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        name: What was measured; also the key of the history, so it must not change.
        value: The rate or the time, as text.
        ratio: Speed relative to the peer.
        peer: What it is compared with.
        aim: The aim, as text.
    """

    name: str
    value: str
    ratio: float
    peer: str
    aim: str = ""


def training(result: Result) -> Iterator[Row]:
    value = f"{result['real_images_per_s']:.1f} images/s"
    yield Row(f"train, {result['method']}", value, result["ratio"], "bare loop", "0.90")


def backends(result: Result) -> Iterator[Row]:
    for method, aim in (("unet", "8"), ("sks", "4")):
        eager = f"{method}, torch"
        rate = f"{result['images_per_s'][eager]:.1f} images/s"
        yield Row(f"predict, {method}", rate, result["of_eager"][eager], "eager loop")
        sides = [side for side in result["of_eager"] if side.startswith(f"{method}, ")]
        best = max(sides, key=lambda side: result["of_eager"][side])
        backend = best.removeprefix(f"{method}, ")
        value = f"{result['images_per_s'][best]:.1f} images/s, {backend}"
        ratio = result["of_eager"][best]
        yield Row(f"predict, {method}, fastest backend", value, ratio, "eager loop", aim)


def import_and_check(result: Result) -> Iterator[Row]:
    for command in ("import", "check"):
        rate = result["images_per_s"][command]
        yield Row(command, f"{rate:.1f} images/s", result["ratio"][command], "decoding alone")


def startup(result: Result) -> Iterator[Row]:
    seconds = result["seconds"]["dxseg --help"]
    yield Row("dxseg --help", f"{seconds:.2f} s", result["ratio"], "bare Python", "0.5 s")


@dataclass(frozen=True)
class Bench:
    """A benchmark script, its rows, and the options with which it takes seconds."""

    rows: Callable[[Result], Iterator[Row]]
    tiny: str


SMALL = "--size 32 --rounds 1 --threads 1"
BENCHES = {
    "train_throughput": Bench(training, f"{SMALL} --batch 2 --steps 1"),
    "inference_backends": Bench(backends, f"{SMALL} --images 3 --native 64"),
    "check_scale": Bench(import_and_check, "--images 60 --side 64 --workers 1"),
    "startup": Bench(startup, "--rounds 1"),
}


def run_script(name: str, options: list[str]) -> Result:
    """What the last line of a benchmark says.

    Raises:
        ChildProcessError: It failed; the message is its own last word.
    """
    done = subprocess.run(
        [sys.executable, HERE / f"{name}.py", *options], capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"ended with {done.returncode}"]
        raise ChildProcessError(said[-1])
    result: Result = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def commit() -> str:
    """The commit that is measured, with "+" where files differ from it."""
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--abbrev=10", "--exclude=*", "--dirty=+"],
            cwd=HERE,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()


def machine() -> str:
    """Describe processor, cores, system and Python."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        named = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = named[0].partition(":")[2].strip() if named else model
    python = platform.python_version()
    return f"{model}, {os.cpu_count()} cores, {platform.system()}, Python {python}"


def last_ratios(history: Path | None, machine: str, settings: str) -> dict[str, float]:
    """Read the ratios of the last line that is comparable with this run; empty without one."""
    ratios: dict[str, float] = {}
    if history is None or not history.is_file():
        return ratios
    for line in history.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        if (record["machine"], record["settings"]) == (machine, settings):
            ratios = record["ratios"]
    return ratios


def table_of(rows: list[Row], before: dict[str, float]) -> Table:
    table = Table(title="Speed relative to the peer")
    for heading in ("", "value", "ratio", "of", "aim", "before"):
        table.add_column(heading, justify="right" if heading in ("ratio", "before") else "left")
    for row in rows:
        old = f"{before[row.name]:.2f}" if row.name in before else ""
        table.add_row(row.name, row.value, f"{row.ratio:.2f}", row.peer, row.aim, old)
    return table


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=BENCHES, default=list(BENCHES))
    parser.add_argument("--tiny", action="store_true", help="only check that all run, in seconds")
    parser.add_argument("--history", type=Path, help="add a line to this file")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> Result:
    """Measure, print a table and a JSON line, append the line to the history; return it."""
    arguments = parse(argv)
    record: Result = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": machine(),
        "load": round(os.getloadavg()[0], 1),
        "settings": "tiny" if arguments.tiny else "full",
    }
    rows: list[Row] = []
    failed: dict[str, str] = {}
    for name in arguments.only:
        bench = BENCHES[name]
        print(f"{name} ...", file=sys.stderr, flush=True)
        try:
            rows += bench.rows(run_script(name, bench.tiny.split() if arguments.tiny else []))
        except ChildProcessError as error:
            failed[name] = str(error)
    before = last_ratios(arguments.history, record["machine"], record["settings"])
    Console().print(table_of(rows, before))
    for name, reason in failed.items():
        print(f"{name} failed: {reason}")
    record |= {"ratios": {row.name: row.ratio for row in rows}, "failed": failed}
    line = json.dumps(record)
    print(line)
    if arguments.history is not None:
        with arguments.history.open("a", encoding="utf-8") as stream:
            stream.write(f"{line}\n")
    return record


if __name__ == "__main__":
    sys.exit(1 if main(sys.argv[1:])["failed"] else 0)

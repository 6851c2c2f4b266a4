"""Every benchmark of throughput in one run, as one table of ratios, and a history of such runs.

    python benchmarks/run.py
    python benchmarks/run.py --only startup check_scale
    python benchmarks/run.py --history benchmarks/history.jsonl

Each benchmark is a process of its own, one after the other, so that none finds another's memory or
threads; what each measures, its `--help` says. A ratio is how many times as fast as its peer dxseg
is, both measured in turns in that process: ratios survive a busy machine better than rates do.

`--history` adds a line of JSON to a file: date (UTC), commit ("+" where files differ from it), the
machine in words, its load before the run, the settings (full or tiny) and the ratios. The column
`before` holds the ratios of the last line of the same machine and settings. Ends with 1 if a
benchmark failed; an aim that is missed is for the reader.
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
        name: What was measured; the key of the history, so it stays the same.
        figure: The rate or the time itself, in words.
        ratio: Times as fast as the peer.
        peer: What it is compared with.
        aim: What is hoped for, in words.
    """

    name: str
    figure: str
    ratio: float
    peer: str
    aim: str = ""


def training(result: Result) -> Iterator[Row]:
    figure = f"{result['real_images_per_s']:.1f} images/s"
    yield Row(f"train, {result['method']}", figure, result["ratio"], "bare loop", "0.90")


def backends(result: Result) -> Iterator[Row]:
    for method, aim in (("unet", "8"), ("sks", "4")):
        eager = f"{method}, torch"
        rate = f"{result['images_per_s'][eager]:.1f} images/s"
        yield Row(f"predict, {method}", rate, result["of_eager"][eager], "eager loop")
        sides = [side for side in result["of_eager"] if side.startswith(f"{method}, ")]
        best = max(sides, key=lambda side: result["of_eager"][side])
        backend = best.removeprefix(f"{method}, ")
        figure = f"{result['images_per_s'][best]:.1f} images/s, {backend}"
        ratio = result["of_eager"][best]
        yield Row(f"predict, {method}, fastest backend", figure, ratio, "eager loop", aim)


def import_and_check(result: Result) -> Iterator[Row]:
    for verb in ("import", "check"):
        rate = result["images_per_s"][verb]
        yield Row(verb, f"{rate:.1f} images/s", result["ratio"][verb], "decoding alone")


def startup(result: Result) -> Iterator[Row]:
    seconds = result["seconds"]["dxseg --help"]
    yield Row("dxseg --help", f"{seconds:.2f} s", result["ratio"], "bare Python", "0.5 s")


@dataclass(frozen=True)
class Bench:
    """A script beside this one, its rows, and the options by which it ends within seconds."""

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
    """Processor, cores, system and Python, in words."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        named = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = named[0].partition(":")[2].strip() if named else model
    python = platform.python_version()
    return f"{model}, {os.cpu_count()} cores, {platform.system()}, Python {python}"


def last_ratios(history: Path | None, machine: str, settings: str) -> dict[str, float]:
    """Those of the last line that may be compared with this run; none without one."""
    ratios: dict[str, float] = {}
    if history is None or not history.is_file():
        return ratios
    for line in history.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        if (record["machine"], record["settings"]) == (machine, settings):
            ratios = record["ratios"]
    return ratios


def table_of(rows: list[Row], before: dict[str, float]) -> Table:
    table = Table(title="Times as fast as the peer")
    for heading in ("", "figure", "ratio", "of", "aim", "before"):
        table.add_column(heading, justify="right" if heading in ("ratio", "before") else "left")
    for row in rows:
        old = f"{before[row.name]:.2f}" if row.name in before else ""
        table.add_row(row.name, row.figure, f"{row.ratio:.2f}", row.peer, row.aim, old)
    return table


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=BENCHES, default=list(BENCHES))
    parser.add_argument("--tiny", action="store_true", help="seconds each: to see that they run")
    parser.add_argument("--history", type=Path, help="add a line to this file")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> Result:
    """Measure, print a table and a JSON line, keep the line; gives what it holds."""
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

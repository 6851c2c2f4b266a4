"""Seconds of `dxseg --help`, against a Python that starts and does nothing.

Both are separate processes, started alternately; a first round fills the disk's cache and is not
counted. Ratios and seconds are medians over rounds. The aim is less than 0.5 s: the command line
imports torch and similar packages only in the commands that need them.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from time import perf_counter
from typing import Any

SIDES = {
    "dxseg --help": [
        "from dxseg.commands.app import main; main()",
        "--help",
    ],  # as the command's script
    "bare Python": ["pass"],
}


def seconds_of(words: list[str]) -> float:
    started = perf_counter()
    subprocess.run([sys.executable, "-c", *words], check=True, stdout=subprocess.DEVNULL)
    return perf_counter() - started


def measure(rounds: int) -> dict[str, Any]:
    """Run all rounds."""
    seconds: dict[str, list[float]] = {side: [] for side in SIDES}
    for number in range(rounds + 1):
        for side, words in SIDES.items():
            elapsed = seconds_of(words)
            if number:
                seconds[side].append(elapsed)
    ratios = [b / d for d, b in zip(*seconds.values(), strict=True)]
    return {
        "benchmark": "startup",
        "rounds": rounds,
        "seconds": {side: round(statistics.median(v), 3) for side, v in seconds.items()},
        "ratio": round(statistics.median(ratios), 3),
    }


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure, print two lines and a JSON line; gives what the last one holds."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=10, help="rounds of both sides (10)")
    result = measure(parser.parse_args(argv).rounds)
    for side, seconds in result["seconds"].items():
        print(f"{side:<14}{seconds:7.3f} s")
    print(json.dumps(result))
    return result


if __name__ == "__main__":
    main(sys.argv[1:])

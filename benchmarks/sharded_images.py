"""Images in shards (`dxseg.data.batches.shards`) against the memory map: cost of a read.

    python benchmarks/sharded_images.py

Keeps the same images (phantoms fitted to the network's size, repeated) as a memory map and as
shards in another folder of the same disk, and reads them one by one:

- memory map: in random order;
- shards, all kept: the same, once everything was fetched;
- shards, windows: in the order that stage 1 draws, with local space for a part of them, so that
  every shard is fetched, digested and dropped once an epoch;
- shards, random: in random order with the same space, which fetches a shard for nearly every image;
  only a few are read.

Seconds are of the processor, since a machine busy with other work would count too: what a network
between the disk and the shards costs is not in them, but how much is fetched is told. Figures are
medians over the rounds, in which all ways of reading take turns.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from dxseg.data.batches import shard_writer
from dxseg.data.batches.pixel_cache import cached_images
from dxseg.data.batches.shard_sampler import ShardPoolSampler, Windows
from dxseg.data.batches.shard_writer import sharded_images
from dxseg.data.batches.shards import Images, ShardedImages
from dxseg.phantoms.ultrasound import make_phantoms

PHANTOMS = 100
RANDOM_READS = 100
"""With shards that do not fit, each image costs a shard."""


@dataclass(frozen=True)
class Counted(ShardedImages):
    """Shards that count what they fetch."""

    fetched: list[str] = field(default_factory=list)

    def _fetch(self, name: str) -> None:
        self.fetched.append(name)
        super()._fetch(name)


@dataclass(frozen=True)
class Way:
    """Images, and the rows of an epoch in the order in which they are read."""

    images: Images
    order: Callable[[int], Sequence[int]]


def in_windows(images: ShardedImages, epoch: int) -> list[int]:
    """All rows once, as stage 1 draws them."""
    rows = np.arange(images.shape[0])
    windows = Windows(images.shards_of(rows), images.window())
    sampler = ShardPoolSampler([(rows, 1)], len(rows), 0, windows)
    sampler.set_epoch(epoch)
    return [row for batch in sampler for row, _ in batch]


def read_some(way: Way, epoch: int) -> tuple[float, float]:
    """Microseconds an image, and fetches for a thousand of them."""
    rows, fetched = way.order(epoch), getattr(way.images, "fetched", [])
    before, started = len(fetched), process_time()
    for row in rows:
        np.array(way.images[row])
    seconds = process_time() - started
    return 1e6 * seconds / len(rows), 1000 * (len(fetched) - before) / len(rows)


def make_ways(folder: Path, arguments: argparse.Namespace) -> dict[str, Way]:
    """Write the images twice; shards that are read differently have local space of their own."""
    count, size = arguments.images, arguments.size
    dataset = make_phantoms(folder / "phantoms", images=min(PHANTOMS, count), size=size)
    cases = dataset.cases.iloc[np.resize(np.arange(len(dataset.cases)), count)]
    mapped = cached_images(dataset, cases, size, folder)
    shards = sharded_images(dataset, cases, size, str(folder / "far"), folder, 2**50)
    manifest = shards.manifest
    room = max(2, int(arguments.kept * manifest.count)) * manifest.shard_bytes

    def kept(name: str, room: int) -> Counted:
        return Counted(shards.url, manifest, folder / name, room)

    def permuted(epoch: int) -> list[int]:
        return np.random.default_rng(epoch).permutation(count).tolist()

    windows = kept("windows", room)
    return {
        "memory map": Way(mapped, permuted),
        "shards, all kept": Way(kept("all", 2**50), permuted),
        "shards, windows": Way(windows, lambda epoch: in_windows(windows, epoch)),
        "shards, random": Way(kept("random", room), lambda epoch: permuted(epoch)[:RANDOM_READS]),
    }


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Every way of reading, in turns; a first epoch fills what is kept and is not counted."""
    shard_writer.SHARD_BYTES = int(arguments.shard_mb * 2**20)
    found: dict[str, list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory(prefix="dxseg-bench-") as name:
        ways = make_ways(Path(name), arguments)
        for epoch in range(arguments.rounds + 1):
            for name, way in ways.items():
                found.setdefault(name, []).append(read_some(way, epoch))
        manifest = ways["shards, windows"].images.manifest
    medians = {name: np.median(figures[1:], axis=0) for name, figures in found.items()}
    return {
        "benchmark": "sharded_images",
        "images": arguments.images,
        "image_size": arguments.size,
        "rounds": arguments.rounds,
        "shards": manifest.count,
        "kept": max(2, int(arguments.kept * manifest.count)),
        "us_an_image": {name: round(float(us), 1) for name, (us, _) in medians.items()},
        "fetches_per_1000": {name: round(float(n), 1) for name, (_, n) in medians.items()},
    }


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=10_000, help="images (10,000)")
    parser.add_argument("--size", type=int, default=128, help="side in pixels (128)")
    parser.add_argument("--shard-mb", type=float, default=4.0, help="MiB of a shard (4)")
    parser.add_argument("--kept", type=float, default=0.25, help="part that is kept (0.25)")
    parser.add_argument("--rounds", type=int, default=3, help="epochs that are timed (3)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure, print a table and a JSON line; gives what the line holds."""
    result = measure(parse(argv))
    table = Table(
        title=f"{result['images']} images of {result['image_size']} px; "
        f"{result['kept']} of {result['shards']} shards kept"
    )
    for heading in ("", "us an image", "fetches per 1000"):
        table.add_column(heading, justify="right" if heading else "left")
    for name, microseconds in result["us_an_image"].items():
        table.add_row(name, str(microseconds), str(result["fetches_per_1000"][name]))
    Console().print(table)
    print(json.dumps(result))
    return result


if __name__ == "__main__":
    main(sys.argv[1:])

"""Sharded formats for archives that do not fit a disk, against the memory map that dxseg keeps.

    python benchmarks/streaming_formats.py
    python benchmarks/streaming_formats.py --formats memory_map webdataset

Writes records (the pixels of a phantom fitted to the network's size, and their row) in each format
and reads them in shuffled order, in this process, 16 a batch. Told are, for each format:

- MB on disk, seconds to write, images a second of an epoch (the median over rounds). Seconds are of
  the processor, of this process with all its threads, since a busy machine would count too;
  litdata writes in a process of its own, which is not counted;
- reached: how far, on average, an epoch brings a record from its place in the archive, as a part of
  what a true shuffle does; below 1, neighbours of the archive stay neighbours in training;
- once: whether an epoch holds every record exactly once; same: whether the same seed gives the
  same order;
- resumed: whether a reader that is made anew with the state saved in the middle of an epoch gives
  exactly the rest (webdataset has no state: it reads again what was read);
- random access: images a second by row in a random order, which is how dxseg draws its batches.

None of the three libraries is a dependency: install what is to be compared. One that is absent, or
cannot do what is asked, says so in its row.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from dxseg.data.preprocessing import fit_image
from dxseg.data.readers.read import read_image
from dxseg.phantoms.ultrasound import make_phantoms

PHANTOMS = 100
BATCH = 16
SHARD_MB = 4
Record = dict[str, Any]


class MemoryMap:
    """What `dxseg.data.batches.pixel_cache` keeps, drawn in random order."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "images.npy"

    def write(self, images: NDArray[np.uint8]) -> None:
        """Write all records."""
        np.save(self.path, images)

    def epoch(self, seed: int, skip: int = 0) -> Iterator[list[int]]:
        """Rows of each batch, from the batch `skip` on."""
        images = np.load(self.path, mmap_mode="r")
        rows = np.random.default_rng(seed).permutation(len(images))
        for start in range(skip * BATCH, len(rows), BATCH):
            some = rows[start : start + BATCH]
            np.stack([images[row] for row in some])
            yield some.tolist()

    resume = epoch

    def get(self, rows: list[int]) -> None:
        """Read records by row."""
        images = np.load(self.path, mmap_mode="r")
        for row in rows:
            np.array(images[row])


def litdata_record(row: int, path: str) -> Record:
    return {"row": row, "image": np.array(np.load(path, mmap_mode="r")[row])}


class LitData:
    """litdata's chunks; its loader keeps a state."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, images: NDArray[np.uint8]) -> None:
        """Write all records."""
        import litdata

        source = self.folder.with_suffix(".npy")
        np.save(source, images)
        litdata.optimize(
            fn=partial(litdata_record, path=str(source)),
            inputs=list(range(len(images))),
            output_dir=str(self.folder),
            chunk_bytes=SHARD_MB * 2**20,
            num_workers=1,
        )
        source.unlink()

    def _loader(self, seed: int) -> Any:
        import litdata

        dataset = litdata.StreamingDataset(str(self.folder), shuffle=True, seed=seed)
        return litdata.StreamingDataLoader(dataset, batch_size=BATCH, num_workers=0)

    def epoch(self, seed: int) -> Iterator[list[int]]:
        """Rows of each batch of one epoch."""
        for batch in self._loader(seed):
            yield batch["row"].tolist()

    def resume(self, seed: int, skip: int) -> Iterator[list[int]]:
        """Rows of the batches that are left once so many were seen."""
        before = self._loader(seed)
        batches = iter(before)
        for _ in range(skip):
            next(batches)
        state = before.state_dict()
        after = self._loader(seed)
        after.load_state_dict(state)
        for batch in after:
            yield batch["row"].tolist()

    def get(self, rows: list[int]) -> None:
        """Read records by row."""
        import litdata

        dataset = litdata.StreamingDataset(str(self.folder), shuffle=False)
        for row in rows:
            assert dataset[row]["row"] == row


class Mosaic:
    """mosaicml-streaming's MDS shards; its loader keeps a state."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, images: NDArray[np.uint8]) -> None:
        """Write all records."""
        from streaming import MDSWriter

        columns = {"row": "int", "image": "ndarray"}
        limit = SHARD_MB * 2**20
        with MDSWriter(out=str(self.folder), columns=columns, size_limit=limit) as writer:
            for row, image in enumerate(images):
                writer.write({"row": row, "image": image})

    def _loader(self, seed: int) -> Any:
        from streaming import StreamingDataLoader, StreamingDataset
        from streaming.base.util import clean_stale_shared_memory

        clean_stale_shared_memory()
        dataset = StreamingDataset(
            local=str(self.folder), shuffle=True, shuffle_seed=seed, batch_size=BATCH
        )
        return StreamingDataLoader(dataset, batch_size=BATCH, num_workers=0)

    epoch = LitData.epoch
    resume = LitData.resume

    def get(self, rows: list[int]) -> None:
        """Read records by row."""
        dataset = self._loader(0).dataset
        for row in rows:
            assert dataset[row]["row"] == row


class WebDataset:
    """Tar files and a shuffle buffer; no state, no access by row."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, images: NDArray[np.uint8]) -> None:
        """Write all records."""
        import webdataset

        self.folder.mkdir(parents=True)
        pattern = str(self.folder / "%05d.tar")
        with webdataset.ShardWriter(pattern, maxsize=SHARD_MB * 2**20, verbose=0) as writer:
            for row, image in enumerate(images):
                writer.write({"__key__": str(row), "image.npy": image})

    def epoch(self, seed: int) -> Iterator[list[int]]:
        """Rows of each batch of one epoch."""
        import webdataset

        shards = sorted(str(path) for path in self.folder.glob("*.tar"))
        pipeline = webdataset.WebDataset(shards, shardshuffle=len(shards), seed=seed)
        # The buffer of its examples.
        pipeline = pipeline.shuffle(1000, seed=seed).decode().to_tuple("__key__", "image.npy")
        for keys, _ in pipeline.batched(BATCH):
            yield [int(key) for key in keys]

    def resume(self, seed: int, skip: int) -> Iterator[list[int]]:
        """By the same seed, reading again what was read: there is no state."""
        for number, rows in enumerate(self.epoch(seed)):
            if number >= skip:
                yield rows


FORMATS: dict[str, Callable[[Path], Any]] = {
    "memory_map": MemoryMap,
    "litdata": LitData,
    "mosaicml-streaming": Mosaic,
    "webdataset": WebDataset,
}


def make_images(folder: Path, count: int, size: int) -> NDArray[np.uint8]:
    """Phantoms, repeated to the number wanted: (N, size, size, 1)."""
    dataset = make_phantoms(folder, images=min(PHANTOMS, count), size=size)
    paths = [dataset.image_path(row) for row in dataset.cases.itertuples()]
    some = np.stack([fit_image(read_image(path), size)[0] for path in paths])
    return np.resize(some, (count, *some.shape[1:]))


def reached(rows: list[int]) -> float:
    """Mean distance of a record from its place, over that of a random permutation."""
    places = np.abs(np.arange(len(rows)) - np.array(rows))
    return float(places.mean() / (len(rows) / 3))


def measure_format(name: str, folder: Path, images: NDArray[np.uint8], rounds: int) -> Record:
    """All figures of one format."""
    made = FORMATS[name](folder)
    started = process_time()
    made.write(images)
    figures: Record = {"write_seconds": round(process_time() - started, 2)}
    written = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    figures["mb"] = round(written / 2**20, 1)
    seconds, orders = [], []
    for _ in range(rounds + 1):
        started = process_time()
        orders.append([row for batch in made.epoch(seed=1) for row in batch])
        seconds.append(process_time() - started)
    rate = statistics.median(len(images) / elapsed for elapsed in seconds[1:])
    whole = orders[0]
    figures["images_per_s"] = round(rate, 1)
    figures["reached"] = round(reached(whole), 3)
    figures["once"] = sorted(whole) == list(range(len(images)))
    figures["same"] = all(order == whole for order in orders)
    skip = len(images) // BATCH // 2
    rest = [row for batch in made.resume(1, skip) for row in batch]
    figures["resumed"] = rest == whole[skip * BATCH :]
    if hasattr(made, "get"):
        rows = np.random.default_rng(2).permutation(len(images))[:500].tolist()
        started = process_time()
        made.get(rows)
        figures["by_row_per_s"] = round(len(rows) / (process_time() - started), 1)
    return figures


def measure(arguments: argparse.Namespace) -> Record:
    """Every format, one after the other; what fails is told in its place."""
    results: Record = {}
    with tempfile.TemporaryDirectory(prefix="dxseg-bench-") as name:
        images = make_images(Path(name) / "phantoms", arguments.images, arguments.size)
        for format_name in arguments.formats:
            folder = Path(name) / format_name
            if format_name == "memory_map":
                folder.mkdir()
            try:
                results[format_name] = measure_format(format_name, folder, images, arguments.rounds)
            except ModuleNotFoundError as error:
                results[format_name] = {"absent": str(error)}
    return {
        "benchmark": "streaming_formats",
        "images": arguments.images,
        "image_size": arguments.size,
        "rounds": arguments.rounds,
        "formats": results,
    }


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=5000, help="records (5000)")
    parser.add_argument("--size", type=int, default=128, help="side in pixels (128)")
    parser.add_argument("--rounds", type=int, default=3, help="epochs that are timed (3)")
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=list(FORMATS))
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> Record:
    """Measure, print a table and a JSON line; gives what the line holds."""
    result = measure(parse(argv))
    names = ("images_per_s", "by_row_per_s", "reached", "once", "same", "resumed", "mb")
    table = Table(title=f"{result['images']} images of {result['image_size']} px")
    for heading in ("", *names, "write_seconds"):
        table.add_column(heading, justify="right" if heading else "left")
    for name, figures in result["formats"].items():
        if "absent" in figures:
            table.add_row(name, figures["absent"])
        else:
            values = (figures.get(key, "") for key in (*names, "write_seconds"))
            table.add_row(name, *(str(value) for value in values))
    Console().print(table)
    print(json.dumps(result))
    return result


if __name__ == "__main__":
    main(sys.argv[1:])

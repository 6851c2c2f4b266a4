"""Resident memory of `dxseg predict` over many images, or over volumes.

One call of `predict_files`, as in `dxseg predict`: decode, resize, network, resize back, then a
mask, an overlay and a row of predictions.csv per image. The files are a few phantoms linked under
many names, so that every file is opened and decoded. The network is the method (sks) with a very
small encoder and random weights, since its memory does not depend on the number of images.

The resident set is read after a tenth, a half and all of the images; memory is constant if the last
is about the first. All images have one size: with larger ones it grows until the largest is read.

`--volumes 10` predicts phantoms of CT in a row instead, 512 x 512 x 300 voxels of NIfTI, with a
student (one branch with a label head), or with `--model RUN`, which was trained on CT. The resident
set is read every 50 ms: its peak over each volume, and the seconds and CPU seconds of each.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import nibabel
import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from command import parser_of
from dxseg.config.presets import load_config
from dxseg.data.preprocessing import Preprocessing
from dxseg.data.readers.slicing import WINDOWS, Slicing
from dxseg.inference.files.predict import predict_files
from dxseg.inference.model_folder import find_model_folder, save_model_folder
from dxseg.inference.model_info import ModelInfo
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
STUDENT: dict[str, Any] = {"architecture": "unet", "encoder_init": "random", "label_head": True}
LIVER = Slicing(axis="axial", window=WINDOWS["liver"])


def make_model_folder(
    folder: Path, size: int, changes: Mapping[str, Any] = TINY, slicing: Slicing | None = None
) -> Path:
    """The method with random weights, around a very small encoder unless changes say otherwise."""
    model = load_config("cpu", METHOD, {"model": dict(changes)}).model
    info = ModelInfo(
        threshold=LESION_PRIOR,  # untrained networks mark about half of an image then
        model=model,
        preprocessing=Preprocessing(image_size=size, channels=1, mean=(0.5,), std=(0.25,)),
        labels=["normal", "benign", "malignant"],
        slicing=slicing,
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


class PeakMemory:
    """The highest resident set since it was last asked for, read by a thread."""

    def __init__(self) -> None:
        self._peak = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.05):
            self._peak = max(self._peak, resident_mb())

    def take(self) -> float:
        """Megabytes; starts anew."""
        peak, self._peak = max(self._peak, resident_mb()), 0.0
        return round(peak, 1)


def make_scan(path: Path, size: int, slices: int) -> None:
    """A phantom of CT: a body with a liver and a tumour in noise, in Hounsfield units."""
    random = np.random.default_rng(0)
    y, x = (np.indices((size, size)) / size - 0.5) * 2
    body = (x / 0.9) ** 2 + (y / 0.7) ** 2 < 1
    liver = ((x + 0.3) / 0.4) ** 2 + (y / 0.45) ** 2 < 1
    tumour = (x + 0.3) ** 2 + y**2 < 0.01
    plane = np.where(body, 20, -1000) + 85 * liver - 45 * tumour
    voxels = np.empty((size, size, slices), np.int16, order="F")
    for index in range(slices):
        voxels[:, :, index] = plane + random.normal(0, 15, plane.shape)
    nibabel.Nifti1Image(voxels, np.diag([-0.7, -0.7, 1.5, 1.0])).to_filename(path)


def measure_volumes(arguments: argparse.Namespace) -> dict[str, Any]:
    """Predict all volumes in one call."""
    peaks: list[float] = []
    seconds: list[float] = []
    used: list[float] = []
    with tempfile.TemporaryDirectory(prefix="dxseg-bench-") as name, PeakMemory() as memory:
        folder = Path(name)
        scan = folder / "scan.nii"
        make_scan(scan, arguments.side, arguments.slices)
        (folder / "scans").mkdir()
        for number in range(arguments.volumes):
            (folder / "scans" / f"{number:02}.nii").hardlink_to(scan)
        if arguments.model is None:
            model = make_model_folder(folder / "model", arguments.size, STUDENT, LIVER)
        else:
            model = find_model_folder(arguments.model)
        predictor = Predictor.from_folder(model, backend=arguments.backend)
        before, last = memory.take(), 0
        begun, begun_cpu = perf_counter(), process_time()

        def note(done: int, _all: int) -> None:
            nonlocal last
            # A second time when the files and the row of a volume are written.
            if done == last == (len(peaks) + 1) * arguments.slices:
                peaks.append(memory.take())
                seconds.append(round(perf_counter() - begun - sum(seconds), 1))
                used.append(round(process_time() - begun_cpu - sum(used), 1))
            last = done

        summary = predict_files(predictor, [folder / "scans"], folder / "out", progress=note)
    return {
        "benchmark": "predict_memory",
        "volumes": arguments.volumes,
        "predicted": summary.done,
        "shape": [arguments.side, arguments.side, arguments.slices],
        "image_size": predictor.info.preprocessing.image_size,
        "backend": arguments.backend or "torch",
        "torch_threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 1),
        "before_mb": before,
        "peak_mb": peaks,
        "seconds": seconds,
        "cpu_seconds": used,
        "last_of_first": round(peaks[-1] / peaks[0], 3),
    }


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
    parser.add_argument("--volumes", type=int, help="volumes in all, in place of images")
    parser.add_argument("--side", type=int, default=512, help="side of a slice of a volume (512)")
    parser.add_argument("--slices", type=int, default=300, help="slices of a volume (300)")
    parser.add_argument("--model", type=Path, help="a run, in place of random weights")
    parser.add_argument("--backend", help="as of dxseg predict (torch)")
    parser.add_argument("--threads", type=int, help="torch threads (torch's own choice)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure, print a table and a JSON line; gives what the line holds."""
    arguments = parse(argv)
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    if arguments.volumes is None:
        result = measure(arguments)
        title = f"{result['images']} images of {result['image_size']} px"
        headings, memory = ["images done", "resident, MB"], result["memory_mb"]
        rows = [[done, f"{resident:.1f}"] for done, resident in memory.items()]
    else:
        result = measure_volumes(arguments)
        title = f"{result['volumes']} volumes of {' x '.join(map(str, result['shape']))}"
        headings = ["volume", "peak, MB", "seconds", "CPU seconds"]
        columns = (result[name] for name in ("peak_mb", "seconds", "cpu_seconds"))
        rows = [[str(n), *map(str, row)] for n, row in enumerate(zip(*columns, strict=True), 1)]
    table = Table(title=f"Memory of predict, {title}, {result['backend']}")
    for heading in headings:
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(*row)
    Console().print(table)
    print(json.dumps(result))
    return result


if __name__ == "__main__":
    main(sys.argv[1:])

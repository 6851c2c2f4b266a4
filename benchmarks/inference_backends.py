"""Images per second of `dxseg predict` on each backend, end to end, against an eager U-Net loop.

Sides, all on the same files with the same encoder, decoder widths and input size, alternately
within each round:

- eager: a short script around segmentation-models-pytorch, eight images at a time: open with PIL,
  resize, tensor, U-Net under `no_grad`, sigmoid, resize back, mask PNG. Its ratio is 1.00.
- eager, exported: the same loop around that U-Net's own ONNX export in ONNX Runtime.
- unet and sks (one branch and two): `predict_files` as `dxseg predict --no-overlays` calls
  it, on every backend; decoding, resizing that keeps the aspect ratio, label probabilities, a mask
  PNG and a row of predictions.csv. With `--overlays` it renders the overlays too.

The network alone is measured too (one batch of eight in memory). A distilled student
of `dxseg distill` is the architecture unet, so the row unet is its row too. Weights are random,
which is the worst case for outlines and PNG sizes; the int8 models are calibrated on the same
images, since accuracy is not measured here. Ratios are medians over rounds.

`--nnunet PYTHON` is the Python of an environment with nnU-Net v2: its predictor then predicts the
first images too, with the network it plans for them (see nnunet_seconds.py), once per round.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

import dxseg
from command import parser_of
from dxseg import export_onnx
from dxseg.config.presets import load_config
from dxseg.data.preprocessing import Preprocessing
from dxseg.data.table.dataset import Dataset
from dxseg.inference.files.predict import predict_files
from dxseg.inference.load import load_backend
from dxseg.inference.model_folder import save_model_folder
from dxseg.inference.model_info import ModelInfo
from dxseg.inference.predictor import Predictor
from dxseg.models.encoder import PyramidEncoder
from dxseg.models.factory import Task, build_model
from dxseg.models.heads import LESION_PRIOR
from dxseg.phantoms.ultrasound import make_phantoms
from eager_loop import BATCH, Network, eager_networks, plain_loop

METHODS = ("unet", "sks")
NNUNET_IMAGES = 8
# Backend, precision, and whether the int8 file is used.
WAYS = {
    "torch": ("torch", "float32", False),
    "torch bfloat16": ("torch", "bfloat16", False),
    "onnxruntime": ("onnxruntime", "float32", False),
    "onnxruntime int8": ("onnxruntime", "float32", True),
    "openvino": ("openvino", "float32", False),
    "openvino bfloat16": ("openvino", "bfloat16", False),
    "openvino int8": ("openvino", "float32", True),
}
# A processor without AMX or AVX512-BF16 emulates bfloat16, several times slower than float32.
USUAL_WAYS = [way for way, (_, precision, _) in WAYS.items() if precision == "float32"]
_UNTIMED = 6  # batches
CLOCKS = {"wall": perf_counter, "cpu": process_time}


def make_models(
    folder: Path, dataset: Path, size: int, channels: int
) -> dict[str, dict[str, Path]]:
    """For each method a model folder, its export and its int8 export."""
    models = {}
    for method in METHODS:
        model = load_config("cpu", method).model
        encoder = PyramidEncoder(model.backbone, channels)
        info = ModelInfo(
            threshold=LESION_PRIOR,  # untrained networks mark about half of an image then
            model=model,
            preprocessing=Preprocessing(
                image_size=size, channels=channels, mean=encoder.mean, std=encoder.std
            ),
            labels=["normal", "benign", "malignant"],
        )
        torch.manual_seed(0)
        model_folder = folder / method
        save_model_folder(model_folder, build_model(model, Task(channels, 1, 3)), info)
        plain, small = folder / f"{method}.onnx", folder / f"{method}.int8.onnx"
        export_onnx(model_folder, output=plain)
        export_onnx(model_folder, output=small, int8=True, calibration=[dataset], max_dice_loss=1.0)
        models[method] = {"model_folder": model_folder, "float32": plain, "int8": small}
    return models


def timed(work: Callable[[], object], clock: Callable[[], float]) -> float:
    started = clock()
    work()
    return clock() - started


def predict_seconds(
    files: list[Path],
    model: Path,
    way: str,
    output: Path,
    overlays: bool,
    clock: Callable[[], float],
) -> float:
    """Seconds of `predict_files` after it has loaded the model."""
    backend, precision, _ = WAYS[way]
    ticks: list[float] = []
    predictor = Predictor.from_folder(model, batch_size=BATCH, backend=backend, precision=precision)
    predict_files(
        predictor,
        files,
        output,
        overlays=overlays,
        progress=lambda *_: ticks.append(clock()),
    )
    return clock() - ticks[0]


def chosen(models: dict[str, Path], way: str) -> Path:
    backend, _, int8 = WAYS[way]
    if backend == "torch":
        return models["model_folder"]
    return models["int8" if int8 else "float32"]


def measure_alone(
    models: dict[str, dict[str, Path]],
    eager: dict[str, Network],
    shape: tuple[int, ...],
    arguments: argparse.Namespace,
) -> dict[str, list[float]]:
    """Seconds of one batch, by side."""
    x = np.random.default_rng(0).standard_normal(shape, np.float32)
    sides: dict[str, Callable[[], object]] = {
        side: (lambda network=network: network(x)) for side, network in eager.items()
    }
    for method in models:
        for way in arguments.ways:
            backend, precision, _ = WAYS[way]
            loaded, _ = load_backend(chosen(models[method], way), backend, "cpu", precision)
            sides[f"{method}, {way}"] = lambda loaded=loaded: loaded.forward(torch.from_numpy(x))
    return in_turns(sides, arguments.rounds, CLOCKS[arguments.clock])


def in_turns(
    sides: dict[str, Callable[[], object]], rounds: int, clock: Callable[[], float]
) -> dict[str, list[float]]:
    """Seconds of each side in each round.

    A side is not timed before it has got its memory again: after other sides, PyTorch takes twice
    its time for some batches.
    """
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(rounds):
        for side, work in sides.items():
            for _ in range(_UNTIMED):
                work()
            seconds[side].append(timed(work, clock))
    return seconds


def measure_whole(
    files: list[Path],
    models: dict[str, dict[str, Path]],
    eager: dict[str, Network],
    folder: Path,
    arguments: argparse.Namespace,
) -> dict[str, list[float]]:
    """Seconds of all files, by side."""
    clock = CLOCKS[arguments.clock]
    seconds: dict[str, list[float]] = {}
    for number in range(arguments.rounds + 1):
        for side, network in eager.items():
            output = folder / f"{number}-{side}"
            work = timed(lambda n=network, o=output: plain_loop(files, n, o, arguments.size), clock)
            seconds.setdefault(side, []).append(work)
        for method in models:
            for way in arguments.ways:
                side = f"{method}, {way}"
                model, output = chosen(models[method], way), folder / f"{number}-{side}"
                elapsed = predict_seconds(files, model, way, output, arguments.overlays, clock)
                seconds.setdefault(side, []).append(elapsed)
    return {side: values[1:] for side, values in seconds.items()}


def nnunet_seconds(
    data: Dataset, files: list[Path], folder: Path, arguments: argparse.Namespace
) -> dict[str, list[float]]:
    """Seconds that nnU-Net would take for all files, in each round, by what the first ones took."""
    some = files[:NNUNET_IMAGES]
    raw, listed, splits = folder / "Dataset001_bench", folder / "images.txt", folder / "splits.csv"
    listed.write_text("\n".join(str(path) for path in some), encoding="utf-8")
    dxseg.split(data.root, output=splits)
    dxseg.export_nnunet(data.root, raw, splits=splits)
    script = Path(__file__).with_name("nnunet_seconds.py")
    command = [arguments.nnunet, script, raw, listed]
    if arguments.threads is not None:
        command += ["--threads", str(arguments.threads)]
    seconds: dict[str, list[float]] = {}
    for _ in range(arguments.rounds):
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        for side, taken in json.loads(done.stdout.splitlines()[-1]).items():
            value = taken[arguments.clock] * len(files) / len(some)
            seconds.setdefault(side, []).append(value)
    return seconds


def ratios(seconds: dict[str, list[float]]) -> dict[str, float]:
    """How many times as fast as the eager loop, the median over rounds."""
    eager = seconds["eager"]
    return {
        side: round(statistics.median(e / s for e, s in zip(eager, values, strict=True)), 2)
        for side, values in seconds.items()
    }


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="dxseg-bench-") as name:
        folder = Path(name)
        if arguments.dataset is None:
            data = make_phantoms(folder / "data", images=arguments.images, size=arguments.native)
        else:
            data = Dataset.load(arguments.dataset)
        files = [data.image_path(row) for row in data.cases.head(arguments.images).itertuples()]
        channels, size = data.spec.channels, arguments.size
        models = make_models(folder, data.root, size, channels)
        eager = eager_networks(folder, size, channels)
        alone = measure_alone(models, eager, (BATCH, channels, size, size), arguments)
        whole = measure_whole(files, models, eager, folder, arguments)
        if arguments.nnunet is not None:
            whole |= nnunet_seconds(data, files, folder, arguments)
    return {
        "benchmark": "inference_backends",
        "dataset": "phantoms" if arguments.dataset is None else str(arguments.dataset),
        "images": len(files),
        "image_size": size,
        "torch_threads": torch.get_num_threads(),
        "rounds": arguments.rounds,
        "overlays": arguments.overlays,
        "clock": arguments.clock,
        "images_per_s": {
            side: round(statistics.median(len(files) / value for value in values), 1)
            for side, values in whole.items()
        },
        "of_eager": ratios(whole),
        "network_of_eager": ratios(alone),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = parser_of(__doc__)
    parser.add_argument(
        "--dataset", type=Path, help="a dxseg dataset of 8-bit images; phantoms if absent"
    )
    parser.add_argument("--images", type=int, default=64, help="images a round (64)")
    parser.add_argument("--native", type=int, default=512, help="side of phantoms, pixels (512)")
    parser.add_argument("--size", type=int, default=256, help="side of the network's input (256)")
    parser.add_argument(
        "--ways",
        nargs="+",
        choices=WAYS,
        default=USUAL_WAYS,
        metavar="WAY",
        help=f"of {', '.join(WAYS)} (all but bfloat16)",
    )
    parser.add_argument("--rounds", type=int, default=3, help="rounds of all sides (3)")
    parser.add_argument("--threads", type=int, help="threads of every network (torch's choice)")
    parser.add_argument(
        "--clock",
        choices=CLOCKS,
        default="wall",
        help="wall, or cpu: seconds of all cores, for a machine that is busy with other work",
    )
    parser.add_argument("--nnunet", type=Path, help="Python of an environment with nnU-Net v2")
    parser.add_argument("--overlays", action="store_true", help="draw overlays too")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure, print a table and a JSON line; gives what the line holds."""
    arguments = parse(argv)
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    result = measure(arguments)
    table = Table(
        title=f"{result['images']} images, network at {result['image_size']} px, "
        f"{result['torch_threads']} threads; of the eager loop"
    )
    for heading in ("", "images/s", "end to end", "network alone"):
        table.add_column(heading, justify="right" if heading else "left")
    for side, rate in result["images_per_s"].items():
        alone = result["network_of_eager"].get(side)
        whole = result["of_eager"][side]
        table.add_row(side, f"{rate:.1f}", f"{whole:.2f}", "" if alone is None else f"{alone:.2f}")
    Console().print(table)
    print(json.dumps(result))
    return result


if __name__ == "__main__":
    main(sys.argv[1:])

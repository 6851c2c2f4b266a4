"""Images a second of `dxseg predict` on each backend, end to end, against an eager U-Net loop.

Sides, all on the same files with the same encoder, decoder widths and input size, in turns within
each round:

- eager: what a script around segmentation-models-pytorch does, eight images at a time: open with
  PIL, resize, tensor, U-Net under `no_grad`, sigmoid, resize back, mask PNG. It is 1.00.
- eager, exported: the same loop around that U-Net's own ONNX export in ONNX Runtime.
- unet and sks-evidence (one branch and two): `predict_files` as `dxseg predict --no-overlays` calls
  it, on every backend; decoding, resizing that keeps the aspect ratio, label probabilities, a mask
  PNG and a row of predictions.csv. With `--overlays` it draws the overlays too, as is the default.

The network alone is measured besides (one batch of eight that is in memory). A distilled student
of `dxseg distill` is the architecture unet, so the row unet is its row too. Weights are random; the
int8 models are calibrated on the images themselves, and what they lose is no matter here. Ratios
are medians over rounds.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table

from dxseg.data.dataset import Dataset
from dxseg.data.phantom import make_phantoms
from dxseg.data.preprocess import Preprocessing
from dxseg.deploy.export import export_onnx
from dxseg.inference.bundle import BundleInfo, save_bundle
from dxseg.inference.loading import load_backend
from dxseg.inference.predict import predict_files
from dxseg.models.build import Task, build_segmenter
from dxseg.models.heads import PRIOR
from dxseg.models.pyramid import PyramidEncoder
from dxseg.presets import load_config

ARMS = ("unet", "sks-evidence")
BATCH = 8
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
CLOCKS = {"wall": perf_counter, "cpu": process_time}
Network = Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]


def make_models(
    folder: Path, dataset: Path, size: int, channels: int
) -> dict[str, dict[str, Path]]:
    """For each arm a bundle, its export and its int8 export."""
    models = {}
    for arm in ARMS:
        model = load_config("cpu", arm).model
        encoder = PyramidEncoder(model.backbone, channels)
        info = BundleInfo(
            threshold=PRIOR,  # untrained networks mark about half of an image then
            model=model,
            preprocessing=Preprocessing(
                image_size=size, channels=channels, mean=encoder.mean, std=encoder.std
            ),
            labels=["normal", "benign", "malignant"],
        )
        torch.manual_seed(0)
        bundle = folder / arm
        save_bundle(bundle, build_segmenter(model, Task(channels, 1, 3)), info)
        plain, small = folder / f"{arm}.onnx", folder / f"{arm}.int8.onnx"
        export_onnx(bundle, plain)
        export_onnx(bundle, small, int8=True, calibration=[dataset], max_dice_loss=1.0)
        models[arm] = {"bundle": bundle, "float32": plain, "int8": small}
    return models


def eager_networks(folder: Path, size: int, channels: int) -> dict[str, Network]:
    """The U-Net of the plain loop, and its export."""
    import onnxruntime
    import segmentation_models_pytorch as smp

    model = load_config("cpu", "unet").model
    network = smp.Unet(
        f"tu-{model.backbone}",
        encoder_weights=None,
        in_channels=channels,
        classes=1,
        decoder_channels=list(model.decoder_channels),
    ).eval()
    path = folder / "eager.onnx"
    torch.onnx.export(
        network,
        (torch.zeros(BATCH, channels, size, size),),
        str(path),
        dynamo=False,
        input_names=["x"],
        dynamic_axes={"x": {0: "batch"}},
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options)

    def eager(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        with torch.no_grad():
            return network(torch.from_numpy(x)).numpy()

    return {"eager": eager, "eager, exported": lambda x: session.run(None, {"x": x})[0]}


def plain_loop(files: list[Path], network: Network, output: Path, size: int) -> None:
    """What a short script does."""
    output.mkdir(parents=True)
    for start in range(0, len(files), BATCH):
        some = files[start : start + BATCH]
        sizes, inputs = [], []
        for path in some:
            with Image.open(path) as opened:
                image = opened.convert(opened.mode)
            sizes.append(image.size)
            pixels = np.asarray(image.resize((size, size), Image.Resampling.BILINEAR), np.float32)
            inputs.append((pixels.reshape(size, size, -1) / 255 - 0.5) / 0.5)
        batch = np.ascontiguousarray(np.stack(inputs).transpose(0, 3, 1, 2))
        found = 1 / (1 + np.exp(-network(batch)))
        for path, native, probability in zip(some, sizes, found, strict=True):
            restored = Image.fromarray(probability[0]).resize(native, Image.Resampling.BILINEAR)
            mask = (np.asarray(restored) >= 0.5).astype(np.uint8) * 255
            Image.fromarray(mask).save(output / f"{path.stem}.png")


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
    predict_files(
        files,
        model,
        output,
        batch_size=BATCH,
        backend=backend,
        precision=precision,
        overlays=overlays,
        progress=lambda *_: ticks.append(clock()),
    )
    return clock() - ticks[0]


def chosen(models: dict[str, Path], way: str) -> Path:
    backend, _, int8 = WAYS[way]
    if backend == "torch":
        return models["bundle"]
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
    for arm in models:
        for way, (backend, precision, _) in WAYS.items():
            loaded, _ = load_backend(chosen(models[arm], way), backend, "cpu", precision)
            sides[f"{arm}, {way}"] = lambda loaded=loaded: loaded.outputs(torch.from_numpy(x))
    return in_turns(sides, arguments.rounds, CLOCKS[arguments.clock])


def in_turns(
    sides: dict[str, Callable[[], object]], rounds: int, clock: Callable[[], float]
) -> dict[str, list[float]]:
    """Seconds of each side in each round; one more round before them is not counted."""
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(rounds + 1):
        for side, work in sides.items():
            seconds[side].append(timed(work, clock))
    return {side: values[1:] for side, values in seconds.items()}


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
        for arm in models:
            for way in WAYS:
                side = f"{arm}, {way}"
                model, output = chosen(models[arm], way), folder / f"{number}-{side}"
                elapsed = predict_seconds(files, model, way, output, arguments.overlays, clock)
                seconds.setdefault(side, []).append(elapsed)
    return {side: values[1:] for side, values in seconds.items()}


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
    description, _, details = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=description,
        epilog=details,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--dataset", type=Path, help="a dxseg dataset of 8-bit images; phantoms if absent"
    )
    parser.add_argument("--images", type=int, default=64, help="images a round (64)")
    parser.add_argument("--native", type=int, default=512, help="side of phantoms, pixels (512)")
    parser.add_argument("--size", type=int, default=256, help="side of the network's input (256)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of all sides (3)")
    parser.add_argument("--threads", type=int, help="threads of every network (torch's choice)")
    parser.add_argument(
        "--clock",
        choices=CLOCKS,
        default="wall",
        help="wall, or cpu: seconds of all cores, for a machine that is busy with other work",
    )
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
        whole, alone = result["of_eager"][side], result["network_of_eager"][side]
        table.add_row(side, f"{rate:.1f}", f"{whole:.2f}", f"{alone:.2f}")
    Console().print(table)
    print(json.dumps(result))
    return result


if __name__ == "__main__":
    main(sys.argv[1:])

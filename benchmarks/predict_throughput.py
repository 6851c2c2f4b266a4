"""Images a second of `dxseg predict`, end to end, against a plain loop over a U-Net.

The real side is `predict_files` as `dxseg predict` calls it: load the bundle, decode, resize,
network, restore, write a mask, an overlay and a row of predictions.csv an image; for the method
(sks-evidence) and for a U-Net (unet). The clock starts when the bundle is loaded, as the plain
loop's does when its network is built: both are paid once, not per image.

The plain loop is what a script around segmentation-models-pytorch does with the same files: open
with PIL, resize, tensor, U-Net with the same encoder and decoder widths under `no_grad`, sigmoid,
resize back, write a mask PNG with PIL's defaults; image by image, and eight at a time. It writes no
overlay and no table, and keeps no aspect ratio. Weights are random on all sides.

Sides alternate within each round; ratios are medians over rounds, to the plain loop of batch 8 (the
batch size of `dxseg predict`), and to the plain loop image by image.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import nn

from dxseg.data.dataset import Dataset
from dxseg.data.phantom import make_phantoms
from dxseg.data.preprocess import Preprocessing
from dxseg.inference.bundle import BundleInfo, save_bundle
from dxseg.inference.predict import predict_files
from dxseg.models.build import Task, build_segmenter
from dxseg.models.heads import PRIOR
from dxseg.models.pyramid import PyramidEncoder
from dxseg.presets import load_config

ARMS = ("sks-evidence", "unet")
BATCHES = (1, 8)


def make_bundle(folder: Path, arm: str, size: int, channels: int) -> Path:
    """A bundle of random weights."""
    model = load_config("cpu", arm).model
    task = Task(channels, 1, 3)
    encoder = PyramidEncoder(model.backbone, channels)
    preprocessing = Preprocessing(
        image_size=size, channels=channels, mean=encoder.mean, std=encoder.std
    )
    info = BundleInfo(
        threshold=PRIOR,  # untrained networks mark about half of an image then
        model=model,
        preprocessing=preprocessing,
        labels=["normal", "benign", "malignant"],
    )
    save_bundle(folder, build_segmenter(model, task, pretrained=False), info)
    return folder


def plain_network(channels: int) -> nn.Module:
    """The U-Net of the plain loop."""
    import segmentation_models_pytorch as smp

    model = load_config("cpu", "unet").model
    network: nn.Module = smp.Unet(
        f"tu-{model.backbone}",
        encoder_weights=None,
        in_channels=channels,
        classes=1,
        decoder_channels=list(model.decoder_channels),
    )
    return network.eval()


def real_seconds(files: list[Path], bundle: Path, output: Path) -> float:
    """Seconds of `predict_files` after it has loaded the bundle."""
    ticks: list[float] = []
    predict_files(files, bundle, output, progress=lambda *_: ticks.append(perf_counter()))
    return perf_counter() - ticks[0]


def plain_seconds(
    files: list[Path], network: nn.Module, output: Path, size: int, batch: int
) -> float:
    """Seconds of the plain loop."""
    started = perf_counter()
    plain_loop(files, network, output, size, batch)
    return perf_counter() - started


def plain_loop(files: list[Path], network: nn.Module, output: Path, size: int, batch: int) -> None:
    """What a short script does."""
    output.mkdir(parents=True)
    for start in range(0, len(files), batch):
        some = files[start : start + batch]
        sizes, inputs = [], []
        for path in some:
            with Image.open(path) as opened:
                image = opened.convert(opened.mode)  # phantoms are grey, BUSI is RGB
            sizes.append(image.size)
            pixels = np.asarray(image.resize((size, size), Image.Resampling.BILINEAR), np.float32)
            inputs.append((torch.from_numpy(pixels.reshape(size, size, -1)) / 255 - 0.5) / 0.5)
        with torch.no_grad():
            found = network(torch.stack(inputs).permute(0, 3, 1, 2).contiguous()).sigmoid()
        for path, native, probability in zip(some, sizes, found, strict=True):
            restored = Image.fromarray(probability[0].numpy()).resize(
                native, Image.Resampling.BILINEAR
            )
            mask = (np.asarray(restored) >= 0.5).astype(np.uint8) * 255
            Image.fromarray(mask).save(output / f"{path.stem}.png")


def find_files(arguments: argparse.Namespace, folder: Path) -> tuple[list[Path], int]:
    """The images, and their channels."""
    if arguments.dataset is None:
        dataset = make_phantoms(folder / "data", images=arguments.images, size=arguments.native)
    else:
        dataset = Dataset.load(arguments.dataset)
    rows = dataset.cases.head(arguments.images)
    return [dataset.image_path(row) for row in rows.itertuples()], dataset.spec.channels


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run all rounds; one more before them is not counted."""
    with tempfile.TemporaryDirectory(prefix="dxseg-bench-") as name:
        folder = Path(name)
        files, channels = find_files(arguments, folder)
        size, network = arguments.size, plain_network(channels)
        bundles = {arm: make_bundle(folder / "models" / arm, arm, size, channels) for arm in ARMS}
        seconds: dict[str, list[float]] = {}
        for number in range(arguments.rounds + 1):
            output = folder / f"round{number}"
            for arm, bundle in bundles.items():
                seconds.setdefault(arm, []).append(real_seconds(files, bundle, output / arm))
            for batch in BATCHES:
                side = f"plain batch {batch}"
                elapsed = plain_seconds(files, network, output / side, size, batch)
                seconds.setdefault(side, []).append(elapsed)
    counted = {side: values[1:] for side, values in seconds.items()}
    return {
        "benchmark": "predict_throughput",
        "dataset": "phantoms" if arguments.dataset is None else str(arguments.dataset),
        "images": len(files),
        "image_size": size,
        "channels": channels,
        "torch_threads": torch.get_num_threads(),
        "rounds": arguments.rounds,
        "images_per_s": {
            side: round(statistics.median(len(files) / value for value in values), 2)
            for side, values in counted.items()
        },
        "ratio": {arm: ratios(counted, arm) for arm in ARMS},
    }


def ratios(seconds: dict[str, list[float]], arm: str) -> dict[str, float]:
    """How many times as fast as each plain loop."""
    plain = {batch: seconds[f"plain batch {batch}"] for batch in BATCHES}
    return {
        f"plain batch {batch}": round(
            statistics.median(p / a for p, a in zip(values, seconds[arm], strict=True)), 3
        )
        for batch, values in plain.items()
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
    parser.add_argument("--native", type=int, default=256, help="side of phantoms, pixels (256)")
    parser.add_argument("--size", type=int, default=128, help="side of the network's input (128)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of all sides (5)")
    parser.add_argument("--threads", type=int, help="torch threads (torch's own choice)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure, print a table and a JSON line; gives what the line holds."""
    arguments = parse(argv)
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    result = measure(arguments)
    table = Table(
        title=f"Prediction, {result['images']} images, network at {result['image_size']} px, "
        f"{result['torch_threads']} torch threads"
    )
    table.add_column("")
    for heading in ("images/s", *(f"of plain batch {batch}" for batch in BATCHES)):
        table.add_column(heading, justify="right")
    for side, rate in result["images_per_s"].items():
        of_plain = result["ratio"].get(side, {}).values()
        table.add_row(side, f"{rate:.1f}", *(f"{ratio:.2f}" for ratio in of_plain))
    Console().print(table)
    print(json.dumps(result))
    return result


if __name__ == "__main__":
    main(sys.argv[1:])

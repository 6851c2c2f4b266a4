"""What patches at native resolution recover of lesions that a reduction to 128 px loses.

    python benchmarks/native_resolution.py LIDC --out runs/native --windows 900

LIDC is a folder of windows of 56 x 56 pixels around lung nodules, with `cases.csv` (columns image,
mask, diagnosis, patient). Each window is pasted into a phantom of a CT slice, 512 x 512 pixels, at
a random place: two ellipses of lung-like noise in a brighter body, with bright disks and lines for
vessels, which a nodule must be told from. So lesions, their labels and what surrounds them within
the window are real; the rest of the slice is not, and neither is how often nodules occur.

The same method is trained twice on the same split, masks and seed: on slices reduced to 128 px, and
on patches of 128 px at 512 px, with the coarse branch on slices reduced to 128 px
(`model.coarse_reduction=4`). Prints, for each, the Dice that a perfect network could reach, the
fraction of lesions that vanish, and the test figures. An interrupted call can be repeated.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

import dxseg
from dxseg.config.presets import parse_overrides
from dxseg.data.geometry import attainable_dice
from dxseg.data.readers.masks import read_mask
from dxseg.data.table.dataset import Dataset, DatasetSpec

SIDE = 512
FEATHER = 8
SIZES: dict[str, dict[str, Any]] = {
    "reduced to 128 px": {"data": {"image_size": 128}},
    "patches of 128 px at 512 px": {
        "data": {"image_size": SIDE, "patch_size": 128},
        "model": {"coarse_reduction": 4},
    },
}


def main(arguments: list[str] | None = None) -> pd.DataFrame:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("lidc", type=Path, help="folder of the windows")
    parser.add_argument("--out", type=Path, default=Path("runs/native"))
    parser.add_argument(
        "--windows", type=int, default=900, help="number of windows, whole patients"
    )
    parser.add_argument("--method", default="unet-stage1")
    parser.add_argument("--masks", type=int, default=35)
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE")
    args = parser.parse_args(arguments)
    data = args.out / "data"
    if not (data / "cases.csv").is_file():
        make_slices(args.lidc, data, args.windows)
    rows = [
        {"input": name, **oracle(data, sizes["data"]["image_size"]), **figures(args, data, sizes)}
        for name, sizes in SIZES.items()
    ]
    table = pd.DataFrame(rows)
    print(table.to_string(index=False, float_format="%.3f"))
    return table


def make_slices(windows: Path, root: Path, count: int) -> None:
    """Write the phantoms as a dataset."""
    table = pd.read_csv(windows / "cases.csv", keep_default_na=False)
    patients = table.groupby("patient").size().cumsum()
    table = table[table["patient"].isin(patients.index[patients <= count])]
    cases = []
    for number, row in enumerate(table.itertuples()):
        generator = np.random.default_rng(number)
        window = np.asarray(Image.open(windows / row.image).convert("L"), dtype=np.float32)
        top, left = generator.integers(90, SIDE - 90 - len(window), 2)
        pixels = paste(lung_slice(generator), window, top, left)
        name = f"{number:05}.png"
        for folder in ("images", "masks"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.round().clip(0, 255).astype(np.uint8)).save(root / "images" / name)
        mask = ""
        if row.mask:
            lesion = np.zeros((SIDE, SIDE), np.uint8)
            inner = read_mask(windows / row.mask, 1)
            lesion[top : top + len(inner), left : left + len(inner)] = inner * 255
            mask = f"masks/{name}"
            Image.fromarray(lesion).save(root / mask)
        cases.append((Path(name).stem, f"images/{name}", mask, row.diagnosis, row.patient))
    columns = ["case_id", "image", "mask", "label", "patient_id"]
    labels = sorted(table["diagnosis"].unique())
    spec = DatasetSpec(name="nodules in 512 px", labels=labels, lesion_free=["none"])
    Dataset.create(root, spec, pd.DataFrame(cases, columns=columns))


def lung_slice(generator: np.random.Generator) -> NDArray[np.float32]:
    """Two lungs in a body; gray values as in the windows: 30 for lung, up to 200 for vessels."""
    y, x = np.mgrid[:SIDE, :SIDE]
    body = 130 + 6 * generator.standard_normal((SIDE, SIDE))
    lung = np.zeros((SIDE, SIDE), bool)
    for center in (150, 362):
        lung |= ((x - center) / 110) ** 2 + ((y - 256) / 190) ** 2 < 1
    noise = sum(
        scale * gaussian_filter(generator.standard_normal((SIDE, SIDE)), sigma) * sigma
        for sigma, scale in ((1, 18), (4, 14), (16, 10))
    )
    air = np.maximum(30 + noise, 0)
    for _ in range(90):
        row, column, radius = generator.uniform((0, 0, 0.8), (SIDE, SIDE, 3.5))
        angle, length = generator.uniform(0, np.pi), generator.exponential(12)
        reach = length / 2 + 4 * radius  # beyond, it is darker than one gray value
        ends = (np.array([row, column])[:, None] + [-reach, reach]).clip(0, SIDE).astype(int)
        near = tuple(slice(first, last + 1) for first, last in ends)
        down, right = y[near] - row, x[near] - column
        along = right * np.cos(angle) + down * np.sin(angle)
        across = down * np.cos(angle) - right * np.sin(angle)
        distance = np.hypot(np.maximum(np.abs(along) - length / 2, 0), across)
        air[near] = np.maximum(air[near], 170 * np.exp(-((distance / radius) ** 2)))
    slice_ = np.where(lung, air, body)
    result: NDArray[np.float32] = gaussian_filter(slice_, 0.6).astype(np.float32)
    return result


def paste(
    canvas: NDArray[np.float32], window: NDArray[np.float32], top: int, left: int
) -> NDArray[np.float32]:
    """Blend a window into a canvas over `FEATHER` pixels at its edges."""
    edge = np.minimum(np.arange(len(window)), np.arange(len(window))[::-1]) / FEATHER
    weight = np.minimum.outer(edge, edge).clip(0, 1)
    place = np.s_[top : top + len(window), left : left + len(window)]
    canvas[place] = weight * window + (1 - weight) * canvas[place]
    return canvas


def oracle(root: Path, image_size: int) -> dict[str, float]:
    """What a perfect network could reach on all masks."""
    dice = np.array([attainable_dice(mask, image_size) for mask in masks(root)])
    return {"attainable": float(dice.mean()), "vanished": float((dice == 0).mean())}


def masks(root: Path) -> Iterator[NDArray[np.uint8]]:
    """The masks that show a lesion."""
    dataset = Dataset.load(root)
    for row in dataset.cases[dataset.cases["mask"].ne("")].itertuples():
        mask = read_mask(root / str(row.mask), 1)
        if mask.any():
            yield mask


def figures(args: argparse.Namespace, data: Path, sizes: dict[str, Any]) -> dict[str, float]:
    """Train and evaluate at one size."""
    run = args.out / f"{args.method}-{sizes['data']['image_size']}"
    overrides = parse_overrides(args.set)
    for section, values in sizes.items():
        overrides[section] = overrides.get(section, {}) | values
    dxseg.train(data, output=run, masks=args.masks, method=args.method, overrides=overrides)
    found = dxseg.evaluate(run)
    return {
        name: found[name]
        for name in ("dice_lesion", "dice_lesion_known", "dice_lesion_fp10", "false_positive_rate")
    }


if __name__ == "__main__":
    main()

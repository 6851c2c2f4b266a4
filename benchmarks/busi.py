"""The prompted method against its controls on BUSI: same split, pixels, steps and tuning.

    python benchmarks/busi.py SOURCE --out runs/busi

imports the public BUSI folder SOURCE, splits it by near-duplicate group, trains every arm on 35
masks for every seed (stage 1 once a seed), evaluates on the test images and prints the comparison.
It can be interrupted and run again: what is finished is kept. `--train-only` leaves the test
images alone, so that several processes can share the training by `--arms` and `--seeds`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

import dxseg
from dxseg.data.dataset import Dataset
from dxseg.data.splits import read_splits
from dxseg.presets import load_config

ARMS = (
    "sks-evidence",
    "unet-stage1",
    "unet",
    "sks",
    "unet-scratch",
    "unetplusplus",
)
"""The first arm trains the stage 1 that the others of its seed use."""


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path, help="folder with benign/, malignant/, normal/")
    parser.add_argument("--out", type=Path, default=Path("runs/busi"))
    parser.add_argument("--masks", type=int, default=35)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--reference", default="unet", help="the arm others are compared with")
    parser.add_argument("--train-only", action="store_true")
    args = parser.parse_args(arguments)
    console = Console(stderr=True)
    dataset, splits = prepare(args.source, args.out, console)
    runs = [
        train(dataset, splits, args.out, arm, seed, args.masks, console)
        for seed in args.seeds
        for arm in args.arms
    ]
    if args.train_only:
        return
    for run in runs:
        if not (run / "evaluation.json").is_file():
            dxseg.evaluate(run, console=console)
    comparison = dxseg.compare(runs, reference=args.reference, output=args.out)
    print(comparison.markdown)


def prepare(source: Path, out: Path, console: Console) -> tuple[Path, Path]:
    """Import and split, once."""
    dataset, splits = out / "dataset", out / "splits.csv"
    if not (dataset / "dataset.yaml").is_file():
        dxseg.import_busi(source, dataset)
    if not splits.is_file():
        dxseg.split(dataset, splits, console=console)
    read_splits(splits, Dataset.load(dataset))
    return dataset, splits


def train(
    dataset: Path, splits: Path, out: Path, arm: str, seed: int, masks: int, console: Console
) -> Path:
    """Train one arm; one that needs a stage 1 takes that of the first arm, trained before it."""
    run, first = out / f"{arm}-{seed}", out / f"{ARMS[0]}-{seed}"
    console.print(f"{arm}, seed {seed}")
    borrows = run != first and load_config("cpu", arm).model.needs_stage1
    dxseg.train(
        dataset,
        run,
        arm=arm,
        masks=masks,
        seed=seed,
        splits=splits,
        stage1=first if borrows else None,
        console=console,
    )
    return run


if __name__ == "__main__":
    main()

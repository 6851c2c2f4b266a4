"""Seconds of nnU-Net v2's own predictor on a CPU; runs in an environment that has nnU-Net.

    ENVIRONMENT/bin/python benchmarks/nnunet_seconds.py RAW_DATASET images.txt

`inference_backends.py --nnunet ENVIRONMENT/bin/python` calls it. RAW_DATASET is the output of
`dxseg export nnunet`: nnU-Net plans its 2D network for it, as before training. Weights are random.
images.txt has one path per line. Prints JSON: wall-clock and CPU seconds of predicting all of them
with the defaults (averaged over mirrored images) and without mirroring, after everything is loaded.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
from contextlib import redirect_stdout
from pathlib import Path
from time import perf_counter
from typing import Any

import torch


def processor_seconds() -> float:
    """Of this process and of those it has started and that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def set_folders(raw: Path, work: Path) -> None:
    """Tell nnU-Net its folders, before it is imported: it knows them in no other way."""
    for name in ("raw", "preprocessed", "results"):
        os.environ[f"nnUNet_{name}"] = str(raw.parent if name == "raw" else work / name)


def plan(raw: Path, work: Path) -> Path:
    """The file of the plans that nnU-Net makes for a dataset; `set_folders` comes before."""
    from nnunetv2.experiment_planning.plan_and_preprocess_api import (
        extract_fingerprints,
        plan_experiments,
    )

    plans = work / "preprocessed" / raw.name / "nnUNetPlans.json"
    if not plans.is_file():
        number = int(raw.name.removeprefix("Dataset").split("_")[0])
        extract_fingerprints([number], num_processes=1)
        plan_experiments([number])
    return plans


def make_predictor(raw: Path, work: Path, mirroring: bool) -> Any:
    """nnU-Net's predictor with the network that it plans for the dataset."""
    set_folders(raw, work)
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    manager = PlansManager(str(plan(raw, work)))
    configuration = manager.get_configuration("2d")
    description = json.loads((raw / "dataset.json").read_text(encoding="utf-8"))
    torch.manual_seed(0)
    network = get_network_from_plans(
        configuration.network_arch_class_name,
        configuration.network_arch_init_kwargs,
        configuration.network_arch_init_kwargs_req_import,
        len(description["channel_names"]),
        len(description["labels"]),
        deep_supervision=False,
    )
    predictor = nnUNetPredictor(
        use_mirroring=mirroring,
        perform_everything_on_device=False,
        device=torch.device("cpu"),
        allow_tqdm=False,
    )
    weights = [network.state_dict()]
    axes = (0, 1) if mirroring else None
    predictor.manual_initialization(
        network, manager, configuration, weights, description, "nnUNetTrainer", axes
    )
    return predictor


def measure(raw: Path, images: list[str], mirroring: bool, threads: int | None) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="nnunet-bench-") as name:
        work = Path(name)
        predictor = make_predictor(raw, work, mirroring)
        if threads is not None:
            torch.set_num_threads(threads)
        outputs = [str(work / "masks" / f"{number:05d}") for number in range(len(images))]
        (work / "masks").mkdir()
        before, used = perf_counter(), processor_seconds()
        predictor.predict_from_files(
            [[path] for path in images],
            outputs,
            num_processes_preprocessing=1,
            num_processes_segmentation_export=1,
        )
        seconds = {"wall": perf_counter() - before, "cpu": processor_seconds() - used}
        written = len(list((work / "masks").glob("*.png")))
        if written != len(images):
            raise SystemExit(f"nnU-Net wrote {written} masks for {len(images)} images")
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("raw", type=Path, help="a raw dataset, DatasetNNN_NAME")
    parser.add_argument("images", type=Path, help="a text file with the path of an image a line")
    parser.add_argument("--threads", type=int, help="threads of the network")
    args = parser.parse_args()
    images = args.images.read_text(encoding="utf-8").splitlines()
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
        seconds = {
            name: measure(args.raw, images, mirroring, args.threads)
            for name, mirroring in (("nnU-Net", True), ("nnU-Net, no mirroring", False))
        }
    print(json.dumps(seconds))


if __name__ == "__main__":
    main()

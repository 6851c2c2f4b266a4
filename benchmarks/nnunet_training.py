"""Trains nnU-Net v2's 2D network for so many seconds of one core, and predicts; see nnunet_2d.py.

    ENVIRONMENT/bin/python benchmarks/nnunet_training.py RAW_DATASET OUT --seconds 900

Runs in an environment that has nnU-Net. RAW_DATASET is the output of `dxseg export nnunet`. Seconds
are CPU time of one thread, so that what else runs on the machine takes none of them. What nnU-Net
plans is left as it is (network, patch, augmentation, loss, optimizer), but for two things: the
learning rate falls with the time instead of with 1000 epochs, and there is no validation, as the
weights of the last step are used, which is nnU-Net's default too. Probabilities of imagesTs go to
OUT/predicted, without averaging over mirrored images, as dxseg predicts. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from contextlib import redirect_stdout
from pathlib import Path
from time import process_time
from typing import Any

import torch

from nnunet_seconds import plan, set_folders


def preprocess(raw: Path, work: Path, batch_size: int | None) -> tuple[Any, Any]:
    """Plan the 2D network, perhaps with another batch; preprocess the images, unless they are.

    Returns:
        The plans and the description of the dataset.
    """
    from nnunetv2.experiment_planning.plan_and_preprocess_api import preprocess_dataset

    path = plan(raw, work)
    plans = json.loads(path.read_text("utf-8")) | {"continue_training": False}
    description = json.loads((raw / "dataset.json").read_text("utf-8"))
    if batch_size is not None:
        plans["configurations"]["2d"]["batch_size"] = batch_size
    if len(list(path.parent.glob("*_2d/*.pkl"))) < description["numTraining"]:
        number = int(raw.name.removeprefix("Dataset").split("_")[0])
        preprocess_dataset(number, configurations=["2d"], num_processes=[1])
    splits = path.parent / "splits_final.json"
    splits.write_bytes((raw / "splits_final.json").read_bytes())
    return plans, description


def train(plans: Any, description: Any, seconds: float) -> tuple[Any, int]:
    """Train fold 0 until the time is over; gives the trainer and the number of steps."""
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    torch.manual_seed(0)
    trainer = nnUNetTrainer(plans, "2d", 0, description, device=torch.device("cpu"))
    trainer.on_train_start()
    trainer.network.train()
    steps, begun = 0, process_time()
    while (elapsed := process_time() - begun) < seconds:
        trainer.lr_scheduler.step(elapsed / seconds * trainer.num_epochs)
        trainer.train_step(next(trainer.dataloader_train))
        steps += 1
        print(f"step {steps}, {process_time() - begun:.1f} s")
    return trainer, steps


def predict(trainer: Any, raw: Path, output: Path) -> int:
    """Save the probabilities of all test images; gives their number."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    trainer.set_deep_supervision_enabled(False)
    predictor = nnUNetPredictor(
        use_mirroring=False,
        perform_everything_on_device=False,
        device=torch.device("cpu"),
        allow_tqdm=False,
    )
    predictor.manual_initialization(
        trainer.network,
        trainer.plans_manager,
        trainer.configuration_manager,
        [trainer.network.state_dict()],
        trainer.dataset_json,
        type(trainer).__name__,
        None,
    )
    output.mkdir(parents=True, exist_ok=True)
    images = str(raw / "imagesTs")
    predictor.predict_from_files_sequential(images, str(output), save_probabilities=True)
    return len(list(output.glob("*.npz")))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("raw", type=Path, help="a raw dataset, DatasetNNN_NAME")
    parser.add_argument("out", type=Path, help="folder for what nnU-Net writes")
    parser.add_argument("--seconds", type=float, required=True, help="of training, CPU time")
    parser.add_argument("--batch-size", type=int, help="images of a step (as planned)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    set_folders(args.raw, args.out)
    with redirect_stdout(sys.stderr):
        begun = process_time()
        plans, description = preprocess(args.raw, args.out, args.batch_size)
        # nnU-Net's name: batches are made in this process. Its planning would fail on 0.
        os.environ["nnUNet_n_proc_DA"] = "0"  # noqa: SIM112
        prepared = process_time()
        trainer, steps = train(plans, description, args.seconds)
        trained = process_time()
        images = predict(trainer, args.raw, args.out / "predicted")
    configuration = trainer.configuration_manager
    result = {
        "steps": steps,
        "batch_size": configuration.batch_size,
        "patch_size": list(configuration.patch_size),
        "parameters": sum(p.numel() for p in trainer.network.parameters()),
        "prepare_seconds": round(prepared - begun, 1),
        "train_seconds": round(trained - prepared, 1),
        "predict_seconds": round(process_time() - trained, 1),
        "test_images": images,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()

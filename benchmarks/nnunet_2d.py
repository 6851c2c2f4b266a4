"""nnU-Net v2's 2D network on the masks of a split, in so many seconds, scored as dxseg scores.

    python benchmarks/nnunet_2d.py runs/data/lgg-volumes --splits RUN/splits.csv --seconds 900 \
        --nnunet ENVIRONMENT/bin/python --out runs/nnunet

ENVIRONMENT is one of its own with nnU-Net v2. The split is exported as by `dxseg export nnunet`:
training images whose mask may be used, those of lesion-free images too, which need none. There
nnunet_training.py plans, preprocesses, trains for the seconds given (CPU time of one thread; what
comes before does not count) and predicts the test images. Evaluated are nnU-Net's probabilities, by
the code of `dxseg evaluate`; without its figures at 10% false positives, for which validation
images would have to be predicted too. Writes `evaluation.json`, `per_image.csv`, `per_volume.csv`
and prints a line of JSON. An export that is there already is used again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

import dxseg
from command import parser_of
from dxseg.data.splits.split_table import read_splits
from dxseg.data.table.dataset import Dataset
from dxseg.evaluation.cases import EvaluationProtocol
from dxseg.evaluation.evaluate import Evaluation, evaluate_cases
from dxseg.evaluation.stream import predicted_cases, split_rows

RAW = "Dataset001_Lesions"
FIGURES = ("dice_lesion", "dice_lesion_known", "dice_all", "false_positive_rate")
VOLUME_FIGURES = ("volume_dice", "volume_hd95", "volume_nsd", "volume_lesion_f1")


@dataclass(frozen=True)
class SavedPrediction:
    """Probabilities that nnU-Net has saved, as evaluation reads a prediction."""

    probabilities: NDArray[np.float32]
    label_probabilities: None = None

    @property
    def network_probabilities(self) -> NDArray[np.float32]:
        """No image-level threshold has changed them."""
        return self.probabilities

    @property
    def mask(self) -> NDArray[np.uint8]:
        """The likeliest class of each pixel, as nnU-Net writes it."""
        background = 1 - self.probabilities.sum(axis=0, keepdims=True)
        likeliest = np.concatenate([background, self.probabilities]).argmax(axis=0)
        return likeliest.astype(np.uint8)


def saved_predictions(folder: Path, names: Sequence[str]) -> Iterator[tuple[str, SavedPrediction]]:
    """The predictions of images, in the order of their names."""
    for name in names:
        with np.load(folder / f"{name}.npz") as saved:
            probabilities = saved["probabilities"][1:, 0].astype(np.float32)
        yield name, SavedPrediction(probabilities)


def evaluate(data: Dataset, splits: Path, predicted: Path) -> Evaluation:
    """Score saved predictions of the test images as `dxseg evaluate` would."""
    rows, _ = split_rows(data, read_splits(splits, data), "test", splits)
    spec = data.spec
    return evaluate_cases(
        predicted_cases(data, rows, saved_predictions(predicted, list(rows["case_id"]))),
        protocol=EvaluationProtocol(spec.mask_classes, spec.lesion_free, spec.multi_label),
        average_by="patient" if bool(rows["patient_id"].ne("").all()) else "image",
    )


def train(arguments: argparse.Namespace, raw: Path) -> dict[str, Any]:
    """Train and predict in the environment of nnU-Net."""
    script = Path(__file__).with_name("nnunet_training.py")
    command = [arguments.nnunet, script, raw, arguments.out, "--seconds", arguments.seconds]
    if arguments.batch_size is not None:
        command += ["--batch-size", arguments.batch_size]
    done = subprocess.run(
        [str(word) for word in command], check=True, stdout=subprocess.PIPE, text=True
    )
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = parser_of(__doc__)
    parser.add_argument("dataset", type=Path, help="folder of the dataset")
    parser.add_argument("--splits", type=Path, required=True, help="splits.csv of a run")
    parser.add_argument("--nnunet", type=Path, required=True, help="Python of nnU-Net's own")
    parser.add_argument("--seconds", type=float, required=True, help="of training, CPU time")
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--batch-size", type=int, help="images of a step (as nnU-Net plans)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Export, train, predict and evaluate; gives what the line of JSON holds."""
    arguments = parse(argv)
    data = Dataset.load(arguments.dataset)
    raw = arguments.out / "raw" / RAW
    if not (raw / "dataset.json").is_file():
        dxseg.export_nnunet(data.root, raw, splits=arguments.splits)
    trained = train(arguments, raw)
    evaluation = evaluate(data, arguments.splits, arguments.out / "predicted")
    evaluation.write(arguments.out)
    summary = evaluation.summary
    figures = {name: summary.get(name) for name in (*FIGURES, *VOLUME_FIGURES)}
    images = pd.Series(json.loads((raw / "splits_final.json").read_text("utf-8"))[0]["train"])
    result = {"benchmark": "nnunet_2d", "training_images": len(images), **trained, **figures}
    print(json.dumps(result))
    return result


if __name__ == "__main__":
    main(sys.argv[1:])

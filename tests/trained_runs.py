"""What a run has learnt, read from its folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from safetensors.torch import load_file

from dxseg.data.readers.images import read_image
from dxseg.data.table.dataset import Dataset
from dxseg.inference.predictor import Predictor


def metrics_of(run: Path, stage: str = "stage2") -> pd.DataFrame:
    return pd.read_csv(run / stage / "metrics.csv")


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model" / "model.safetensors")


def same_weights(a: Path, b: Path) -> bool:
    mine, theirs = weights_of(a), weights_of(b)
    return mine.keys() == theirs.keys() and all(torch.equal(mine[n], theirs[n]) for n in mine)


def figures_on_test(predictor: Predictor, dataset: Dataset) -> tuple[float, float]:
    """Mean Dice on the lesions of the test split, and accuracy of the labels."""
    cases = dataset.cases[dataset.cases["split"] == "test"]
    predictions = predictor.predict([read_image(dataset.image_path(r)) for r in cases.itertuples()])
    dice, right = [], []
    for row, prediction in zip(cases.itertuples(), predictions, strict=True):
        mask = dataset.mask_path(row)
        if mask is not None:
            truth = np.asarray(Image.open(mask)) > 0
            found = prediction.mask > 0
            dice.append(2 * (truth & found).sum() / max(1, truth.sum() + found.sum()))
        labels = prediction.label_probabilities
        if labels:
            right.append(max(labels, key=lambda name: labels[name]) == row.label)
    return float(np.mean(dice)), float(np.mean(right)) if right else 0.0

"""Small bundles of every architecture, as after some training, for tests of exported models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from dxseg.config import load_config
from dxseg.data.preprocess import Preprocessing
from dxseg.inference.bundle import BundleInfo, save_bundle
from dxseg.models.build import Task, build_segmenter

SMALL = {"backbone": "test_efficientnet", "decoder_channels": [8, 8, 4, 4, 4]}
LABELS = ["normal", "benign", "malignant"]


def make_bundle(folder: Path, arm: str, *, size: int = 64, **changes: Any) -> Path:
    """Write a bundle of random weights whose masks are neither empty nor full."""
    model = load_config("cpu", arm, {"model": SMALL}).model
    info = BundleInfo.model_validate(
        {
            "model": model,
            "preprocessing": Preprocessing(image_size=size, channels=1, mean=(0.5,), std=(0.25,)),
            "labels": LABELS,
            "lesion_free": ["normal"],
            **changes,
        }
    )
    torch.manual_seed(0)
    task = Task(1, len(info.mask_classes), 3, info.multi_label, lesion_free=(0,))
    segmenter = build_segmenter(model, task, pretrained=False)
    for module in segmenter.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    save_bundle(folder, segmenter, info)
    return folder

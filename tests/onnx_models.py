"""Small model folders of every architecture, as after training, for tests of exports."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from dxseg.config.presets import load_config
from dxseg.data.preprocessing import Preprocessing
from dxseg.inference.model_folder import save_model_folder
from dxseg.inference.model_info import ModelInfo
from dxseg.models.factory import Task, build_model
from dxseg.models.segmentation_model import SegmentationModel
from dxseg.models.segmenter_with_classifier import without_classifier

SMALL = {"backbone": "test_efficientnet", "decoder_channels": [8, 8, 4, 4, 4]}
LABELS = ["normal", "benign", "malignant"]


def make_model_folder(
    folder: Path, method: str, *, size: int = 64, coarse_reduction: int = 1, **changes: Any
) -> Path:
    """Write a model folder of random weights whose masks are neither empty nor full."""
    overrides = {"model": {**SMALL, "coarse_reduction": coarse_reduction}}
    model = load_config("cpu", method, overrides).model
    info = ModelInfo.model_validate(
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
    segmenter = build_model(model, task, pretrained=False)
    for module in segmenter.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    _halve(segmenter)
    save_model_folder(folder, segmenter, info)
    return folder


def _halve(segmenter: SegmentationModel) -> None:
    """Make half of all pixels of noise lesion, and the network about as sure as a trained one."""
    segmenter.eval()
    with torch.no_grad():
        logits = segmenter(torch.randn(4, 1, 64, 64)).mask_logits.transpose(0, 1).flatten(1)
        scale = 2 / logits.std(dim=1)
        for head in reversed(list(without_classifier(segmenter).modules())):
            if isinstance(head, nn.Conv2d) and head.bias is not None:
                head.bias.copy_((head.bias - logits.median(dim=1).values) * scale)
                head.weight.mul_(scale[:, None, None, None])
                return

"""The columns of `predictions.csv`, and what stands in them for an image and for a volume."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dxseg.inference.files.volumes import VolumePrediction
from dxseg.inference.files.writers import Row
from dxseg.inference.model_folder import ModelInfo
from dxseg.inference.prediction import Prediction

KNOWN = "known_label"
AREA, VOLUME = "lesion_area_px", "lesion_volume_mm3"


def columns(info: ModelInfo) -> list[str]:
    """The header of the table that a model writes; volumes add columns where it knows them."""
    several = info.mask_classes if len(info.mask_classes) > 1 else []
    sliced = info.slicing is not None
    return [
        *("name", "height", "width"),
        *(("slices",) if sliced else ()),
        "status",
        *((KNOWN,) if info.labels else ()),
        *(f"p_{label}" for label in info.labels),
        *(AREA, *(f"{AREA}_{name}" for name in several)),
        *((VOLUME, *(f"{VOLUME}_{name}" for name in several)) if sliced else ()),
        *("confidence", "error", "source", "model"),
    ]


def model_name(info: ModelInfo) -> str:
    """The first digits of the weights' SHA-256."""
    return info.weights_sha256[:12]


def image_values(prediction: Prediction, info: ModelInfo) -> Row:
    """What the table says of an image."""
    height, width = prediction.mask.shape
    return {
        "height": str(height),
        "width": str(width),
        **_known(prediction.known, info),
        **_labels(prediction.label_probabilities),
        **{name: str(count) for name, count in _sizes(AREA, prediction.mask, info).items()},
        "confidence": f"{prediction.confidence:.6f}",
    }


def volume_values(prediction: VolumePrediction, info: ModelInfo) -> Row:
    """What the table says of a volume; height and width are those of its slices."""
    slices, height, width = prediction.slice_shape
    sizes = _sizes(VOLUME, prediction.mask, info)
    return {
        "height": str(height),
        "width": str(width),
        "slices": str(slices),
        **_known(prediction.known, info),
        **_labels(prediction.label_probabilities),
        **{name: f"{count * prediction.voxel_mm3:.3f}" for name, count in sizes.items()},
        "confidence": f"{prediction.confidence:.6f}",
    }


def _labels(probabilities: dict[str, float] | None) -> Row:
    return {f"p_{label}": f"{value:.6f}" for label, value in (probabilities or {}).items()}


def _known(text: str, info: ModelInfo) -> Row:
    return {KNOWN: text} if info.labels else {}


def _sizes(column: str, mask: NDArray[np.uint8], info: ModelInfo) -> dict[str, int]:
    """Pixels or voxels of all classes, and of each where there are several."""
    # Class by class: numpy's bincount turns every pixel into an int64 first.
    numbers = range(1, len(info.mask_classes) + 1)
    counts = [int(np.count_nonzero(mask == number)) for number in numbers]
    sizes = {column: sum(counts)}
    if len(counts) > 1:
        sizes |= {
            f"{column}_{name}": count for name, count in zip(info.mask_classes, counts, strict=True)
        }
    return sizes

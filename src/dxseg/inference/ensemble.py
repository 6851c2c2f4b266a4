"""Several models as one: a backend that averages the probabilities of others."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dxseg.errors import UsageError
from dxseg.inference.backends import Backend
from dxseg.inference.components import ComponentFilter
from dxseg.inference.load import load_backend
from dxseg.inference.model_info import ModelInfo
from dxseg.models.segmentation_model import SegmenterOutput
from dxseg.models.whole_view import WholeView

_EPS = 1e-7
"""Keeps logits of mean probabilities finite."""


class EnsembleBackend:
    """Averages the probabilities of several models, each after its own temperatures.

    The mean is of probabilities, as in test-time augmentation: a model that is far too sure does
    not outvote the others.
    """

    def __init__(self, members: Sequence[tuple[Backend, ModelInfo]], info: ModelInfo) -> None:
        """Combine models.

        Args:
            members: The models.
            info: Of all of them, by `ensemble_info`.
        """
        self.device = members[0][0].device
        self._members, self._info = members, info

    @torch.inference_mode()
    def forward(
        self, images: Tensor, label_prompt: Tensor | None = None, whole: WholeView | None = None
    ) -> SegmenterOutput:
        """See `Backend.forward`; there are no features, which differ between networks."""
        masks, labels, evidence = [], [], []
        for backend, info in self._members:
            view = whole and replace(whole, image=self._normalize(whole.image, info))
            output = backend.forward(self._normalize(images, info), label_prompt, view)
            masks.append((output.mask_logits.float() / info.mask_temperature).sigmoid())
            if output.label_logits is not None:
                tempered = output.label_logits.float() / info.label_temperature
                labels.append(tempered.sigmoid() if info.multi_label else tempered.softmax(1))
            if output.evidence is not None:
                evidence.append(output.evidence)
        count = len(self._members)
        return SegmenterOutput(
            torch.logit(torch.stack(masks).mean(0), eps=_EPS),
            self._label_logits(torch.stack(labels).mean(0)) if len(labels) == count else None,
            torch.stack(evidence).mean(0) if len(evidence) == count else None,
        )

    def _normalize(self, images: Tensor, info: ModelInfo) -> Tensor:
        """Make a member's input of that of the ensemble."""
        preprocessing = self._info.preprocessing
        stored = images * (preprocessing.high - preprocessing.low) + preprocessing.low
        return info.preprocessing.normalize(stored)

    def _label_logits(self, probabilities: Tensor) -> Tensor:
        if self._info.multi_label:
            return torch.logit(probabilities, eps=_EPS)
        return probabilities.clamp_min(_EPS).log()  # softmax gives the probabilities back


def load_ensemble(
    paths: Sequence[str | Path], backend: str | None, device: str, precision: str
) -> tuple[Backend, ModelInfo]:
    """Load several models as one.

    Args:
        paths: See `dxseg.inference.load.load_backend`.
        backend: Of all of them.
        device: Torch device string.
        precision: Number format of the networks.

    Raises:
        UsageError: As `load_backend`, or the models do not predict the same of the same input.
        DxsegError: A model is absent, damaged or refused.
    """
    members = [load_backend(path, backend, device, precision) for path in paths]
    info = ensemble_info([info for _, info in members], [str(path) for path in paths])
    return EnsembleBackend(members, info), info


def ensemble_info(infos: Sequence[ModelInfo], names: Sequence[str]) -> ModelInfo:
    """The content of `model.json` of an ensemble.

    Thresholds and the smoothing along the axis of volumes are the means of those of the members; an
    image-level threshold that one of them has switched off is off. Only components that all of them
    remove are removed; where some do so by volume and others by slice, none is.

    Args:
        infos: Of the models.
        names: Of the models, for errors.

    Raises:
        UsageError: Two have different labels, mask classes or inputs, or are the same model.
    """
    require_one_input(infos, names)
    first, digests = infos[0], [info.weights_sha256 for info in infos]
    channels = first.preprocessing.channels
    # The members standardize by themselves.
    preprocessing = first.preprocessing.model_copy(
        update={
            "low": min(info.preprocessing.low for info in infos),
            "high": max(info.preprocessing.high for info in infos),
            "mean": (0.0,) * channels,
            "std": (1.0,) * channels,
        }
    )
    update = {
        "preprocessing": preprocessing,
        "threshold": sum(info.threshold for info in infos) / len(infos),
        "rule_out_threshold": _mean_or_none([info.rule_out_threshold for info in infos]),
        "rule_in_threshold": _mean_or_none([info.rule_in_threshold for info in infos]),
        "mask_temperature": 1.0,
        "label_temperature": 1.0,
        "smoothing_mm": sum(info.smoothing_mm for info in infos) / len(infos),
        "components": _common_filter([info.components for info in infos]),
        "weights_sha256": hashlib.sha256("".join(digests).encode()).hexdigest(),
    }
    return first.model_copy(update=update)


def require_one_input(infos: Sequence[ModelInfo], names: Sequence[str]) -> None:
    """Check that models predict the same labels and classes of the same input.

    Args:
        infos: Of the models.
        names: Of the models, for errors.

    Raises:
        UsageError: What differs, or that a model is given twice.
    """
    first = infos[0]
    for info, name in zip(infos[1:], names[1:], strict=True):
        for field, expected in _contract(first).items():
            if (found := _contract(info)[field]) != expected:
                raise UsageError(
                    f"{name}: {field} {found}, but {names[0]} has {expected}; models of one "
                    "ensemble predict the same labels and classes of the same input; leave one out"
                )
    digests = [info.weights_sha256 for info in infos]
    if len(set(digests)) < len(digests):
        raise UsageError(f"{', '.join(names)}: a model is given twice; leave one out")


def _contract(info: ModelInfo) -> dict[str, Any]:
    return {
        "labels": info.labels,
        "lesion_free": info.lesion_free,
        "organs_only": info.organs_only,
        "multi_label": info.multi_label,
        "mask classes": info.mask_classes,
        "lesion classes": info.lesion_names,
        "predicts labels": info.model.predicts_labels,
        "image size": info.preprocessing.image_size,
        "spacing": info.preprocessing.spacing,
        "channels": info.preprocessing.channels,
        "type of images": info.preprocessing.dtype,
        "sliding window": info.sliding_window,
        "slicing": info.slicing,
    }


def _common_filter(filters: Sequence[ComponentFilter | None]) -> ComponentFilter | None:
    known = [one for one in filters if one is not None]
    if len(known) < len(filters) or len({one.by_volume for one in known}) > 1:
        return None
    return ComponentFilter(
        by_volume=known[0].by_volume,
        largest_only=all(one.largest_only for one in known),
        min_area=min(one.min_area for one in known),
        min_volume_mm3=min(one.min_volume_mm3 for one in known),
    )


def _mean_or_none(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None

"""The diagnosis that is known before the network looks: the label prompt at inference (ours)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dxseg.errors import UsageError
from dxseg.inference.model_folder import ModelInfo

Names = tuple[str, ...]
"""Labels of an image in the model's order; none where nothing is known."""


def label_names(text: str | None, info: ModelInfo) -> Names:
    """Read a known label as `cases.csv` writes it.

    Args:
        text: A label; where an image may have several, all that it has, with ";" between them.
            None or "" where nothing is known.
        info: Of the model.

    Raises:
        UsageError: The model does not know the label.
    """
    if not text:
        return ()
    if not info.labels:
        raise UsageError(f"label {text!r}: the model knows no labels; predict without them")
    given = {part.strip() for part in text.split(";")} if info.multi_label else {text}
    strangers = sorted(given - set(info.labels))
    if strangers:
        several = ", several with ';' between them" if info.multi_label else ""
        raise UsageError(
            f"label {strangers[0]!r} is not one of the model's: {', '.join(info.labels)}{several}"
        )
    return tuple(name for name in info.labels if name in given)


def label_text(names: Names) -> str:
    """Write labels as `cases.csv` does; "" for none."""
    return ";".join(names)


def has_lesion(names: Names, info: ModelInfo) -> bool | None:
    """Whether known labels say that there is a lesion; None where nothing is known.

    As in a dataset, labels mean lesion-free if all of them do.
    """
    return not set(names) <= set(info.lesion_free) if names else None


def label_prompt(known: Sequence[Names], info: ModelInfo) -> Tensor | None:
    """The labels of a batch as `SegmentationModel` takes them.

    Args:
        known: The labels of each image.
        info: Of the model.

    Returns:
        (B,) int64 or (B, L) float32. None where no image has a known label, or the network never
        learnt what labels mean; rules apply then all the same.
    """
    if not info.model.has_label_head or not any(known):
        return None
    if not info.multi_label:
        return torch.tensor([info.labels.index(names[0]) if names else -1 for names in known])
    unknown = [float("nan")] * len(info.labels)
    return torch.tensor(
        [[float(label in names) for label in info.labels] if names else unknown for names in known]
    )

"""What a student of self-training sees: images, what their masks should be, which pixels count.

Images are mixed as their masks are, after CutMix (Yun et al. 2019), as in UniMatch (Yang et al.
2023), and after bidirectional copy-paste (BCP, Bai et al. 2023).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Literal

import torch
from torch import Tensor


@dataclass(frozen=True)
class Views:
    """N images with what is known of them.

    Attributes:
        image: (N, C, H, W).
        mask: (N, K, H, W), true masks and pseudo-labels.
        true: booleans (N, K, H, W), the pixels whose mask is a true one.
        pseudo: booleans (N, K, H, W), the pixels whose pseudo-label may be used.
        label: as in `dxseg.data.batches.batches.Batch`.
        label_prompt: as in the same.
        row: (N,) the position of each image in that batch.
    """

    image: Tensor
    mask: Tensor
    true: Tensor
    pseudo: Tensor
    label: Tensor
    label_prompt: Tensor
    row: Tensor

    def __len__(self) -> int:
        return len(self.image)

    def select(self, rows: Tensor) -> Views:
        """Some of the images, by position."""
        return Views(*(values[rows] for values in self._values()))

    def paste(self, other: Views, box: Tensor) -> Views:
        """Replace what lies in a box (N, 1, H, W) of each image by the same place of another.

        An image that is changed has no label of its own any more.
        """
        changed = box.flatten(1).any(dim=1)
        return replace(
            self,
            image=torch.where(box, other.image, self.image),
            mask=torch.where(box, other.mask, self.mask),
            true=torch.where(box, other.true, self.true),
            pseudo=torch.where(box, other.pseudo, self.pseudo),
            label=_forget(self.label, changed),
            label_prompt=_forget(self.label_prompt, changed),
        )

    @staticmethod
    def concatenate(parts: Sequence[Views]) -> Views:
        """All images of several."""
        values = zip(*(part._values() for part in parts), strict=True)
        return Views(*(torch.cat(tensors) for tensors in values))

    def _values(self) -> list[Tensor]:
        return [getattr(self, field.name) for field in fields(self)]


def mix(
    masked: Views,
    views: Sequence[Views],
    boxes: Sequence[Tensor],
    kind: Literal["cutmix", "copy-paste"] | None,
) -> Views:
    """Mix images with and without a mask.

    Args:
        masked: images with a mask.
        views: of the images without one.
        boxes: (N, 1, H, W) of each of the views, what is replaced.
        kind: see `dxseg.config.stages.SelfTrainingConfig.mix`; None for unmixed images.

    Returns:
        The images with a mask, then the views one after another.
    """
    count = len(views[0])
    if kind == "cutmix":
        others = torch.arange(count).roll(1)
        pairs = zip(views, boxes, strict=True)
        mixed = [view.paste(view.select(others), box) for view, box in pairs]
        return Views.concatenate([masked, *mixed])
    if kind == "copy-paste" and len(masked) and count:
        partners = masked.select(torch.arange(count) % len(masked))
        mixed = [view.paste(partners, box) for view, box in zip(views, boxes, strict=True)]
        own = torch.arange(len(masked)) % count
        return Views.concatenate([masked.paste(views[0].select(own), boxes[0][own]), *mixed])
    return Views.concatenate([masked, *views])


def _forget(label: Tensor, rows: Tensor) -> Tensor:
    """Labels that are unknown in some rows."""
    unknown = float("nan") if label.is_floating_point() else -1
    return label.masked_fill(rows.reshape(-1, *[1] * (label.ndim - 1)), unknown)

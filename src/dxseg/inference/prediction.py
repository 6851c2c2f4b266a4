"""What a model says of one image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8] | NDArray[np.uint16]
"""A decoded image, (H, W, C)."""


@dataclass(frozen=True)
class Prediction:
    """What the network says of one image.

    Attributes:
        probabilities: (K, H, W) in 0..1 at the image's own size, one sigmoid a mask class.
        mask: (H, W) label map: 0 where no class reaches the threshold, else 1 + the likeliest;
            the image-level gate and a known label have their say (`dxseg.inference.postprocess`).
        label_probabilities: By label name; softmax, or a sigmoid each where an image may have
            several labels. The network's own opinion, also where the label is known. None for a
            network without image-level labels.
        evidence: (L, h, w) in 0..1 at the network's resolution, h and w in proportion to the
            image. None for a network without evidence.
        image: The decoded pixels (H, W, C), where `Predictor.stream` was asked to keep them.
        known: The known label that was used, as `cases.csv` writes it; "" for none.
        features: (F,) the encoder's deepest level, averaged over the image: what the image looks
            like to the network. None from an exported network.
    """

    probabilities: NDArray[np.float32]
    mask: NDArray[np.uint8]
    label_probabilities: dict[str, float] | None = None
    evidence: NDArray[np.float32] | None = None
    image: Pixels | None = None
    known: str = ""
    features: NDArray[np.float32] | None = None

    @property
    def confidence(self) -> float:
        """How sure the mask is, in 0..1; higher is surer.

        With a lesion: the mean of max(p, 1 - p) over its pixels, p being the probability of the
        class shown. Without: 1 - the highest probability anywhere.
        """
        peaks = self.probabilities.max(axis=0)
        lesion = peaks[self.mask > 0]
        if lesion.size == 0:
            return float(1 - peaks.max())
        return float(np.maximum(lesion, 1 - lesion).mean(dtype=np.float64))

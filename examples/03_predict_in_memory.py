"""Keep a model in memory and give it arrays, as a program of your own would."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from dxseg.inference.predictor import Predictor
from dxseg.phantoms.ultrasound import make_phantom


def main(model: Path = Path("example-runs/method/model"), *, size: int = 128) -> Iterator[str]:
    """Segment an image of each kind; gives a line for each."""
    predictor = Predictor.from_folder(model)
    for label in ("normal", "benign", "malignant"):
        # Any array (H, W, C) of the bit depth that was trained on; files: readers.read_image.
        image, truth = make_phantom(label, size=size, seed=(1, 2))
        [found] = predictor.predict([image[:, :, np.newaxis]])
        probabilities = found.label_probabilities or {}  # None for a model without labels
        likely = max(probabilities, key=probabilities.__getitem__)
        yield (
            f"{label}: thought to be {likely}; {int((found.mask > 0).sum())} pixels found, "
            f"{int(truth.sum())} are lesion"
        )


if __name__ == "__main__":
    print("\n".join(main()))

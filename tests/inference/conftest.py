"""Predictors of a network that finds bright pixels, and images for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from brightness import Maker, bright_square


@pytest.fixture
def make_predictor() -> Maker:
    return Maker()


@pytest.fixture
def write_image() -> Callable[..., Path]:
    def write(path: Path, image: np.ndarray | None = None) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = bright_square(32, 32) if image is None else image
        Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(path)
        return path

    return write

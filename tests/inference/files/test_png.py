"""Our PNG, as Pillow reads it."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from dxseg.errors import DxsegError
from dxseg.inference.files.png import encode_png, write_mask_png


@pytest.mark.parametrize(
    "shape", [(1, 1), (7, 1), (1, 9), (33, 50), (2, 1, 3), (1, 4, 3), (40, 31, 3)]
)
@pytest.mark.parametrize("kind", ["noise", "flat", "steps"])
def test_pillow_reads_what_was_written(shape: tuple[int, ...], kind: str) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    if kind != "noise":
        pixels = (pixels > 250).astype(np.uint8) * np.uint8(255 if kind == "steps" else 0)
    with Image.open(io.BytesIO(encode_png(pixels))) as checked:
        checked.verify()  # the checksums
    with Image.open(io.BytesIO(encode_png(pixels))) as stored:
        assert stored.mode == ("L" if len(shape) == 2 else "RGB")
        assert np.array_equal(np.asarray(stored), pixels)


def test_pixels_may_lie_anywhere_in_memory() -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    for view in (pixels[::2, ::3], pixels[:, :, 1], pixels.transpose(1, 0, 2), pixels[::-1]):
        with Image.open(io.BytesIO(encode_png(view))) as stored:
            assert np.array_equal(np.asarray(stored), view)


def square(height: int, width: int, top: int, left: int, side: int, value: int = 1) -> np.ndarray:
    mask = np.zeros((height, width), np.uint8)
    mask[top : top + side, left : left + side] = value
    return mask


@pytest.mark.parametrize(("classes", "expected"), [(1, {0, 255}), (3, {0, 1})])
def test_mask_png_values_and_size(tmp_path, classes, expected):
    write_mask_png(tmp_path / "m.png", square(7, 11, 2, 3, 4), classes)
    with Image.open(tmp_path / "m.png") as stored:
        assert (stored.mode, stored.size) == ("L", (11, 7))
        values = np.array(stored)
    assert set(np.unique(values)) == expected
    assert (values > 0).sum() == 16


@pytest.mark.parametrize("mask", [square(4, 4, 0, 0, 2, value=2), np.zeros((2, 2, 1), np.uint8)])
def test_mask_of_other_classes_or_shape_is_refused(tmp_path, mask):
    with pytest.raises(DxsegError, match=r"\(H, W\)"):
        write_mask_png(tmp_path / "m.png", mask, 1)
    assert not list(tmp_path.iterdir())

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter, minimum_filter

from dxseg.errors import DxsegError
from dxseg.inference.files.overlay import (
    PREDICTION_COLORS,
    TRUTH_COLOR,
    display_rgb,
    render_overlay,
    write_overlay_png,
)


def square(height: int, width: int, top: int, left: int, side: int, value: int = 1) -> np.ndarray:
    mask = np.zeros((height, width), np.uint8)
    mask[top : top + side, left : left + side] = value
    return mask


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_overlay_of_any_image_has_its_size_and_keeps_the_inside(tmp_path, channels, dtype):
    image = np.full((40, 60, channels), 7, dtype)
    mask = square(40, 60, 10, 10, 12)
    write_overlay_png(tmp_path / "o.png", image, mask)
    with Image.open(tmp_path / "o.png") as stored:
        drawn = np.array(stored)
    assert drawn.shape == (40, 60, 3)
    colored = (drawn == PREDICTION_COLORS[0]).all(-1)
    assert colored.sum() == 4 * 12 - 4, "the boundary of a 12 x 12 square, one pixel wide"
    assert (drawn[12:20, 12:20] == drawn[0, 0]).all(), "nothing inside a lesion is covered"


def test_outline_reaches_the_image_edge():
    drawn = render_overlay(np.zeros((30, 30, 1), np.uint8), np.ones((30, 30), np.uint8))
    assert (drawn[0] == PREDICTION_COLORS[0]).all()
    assert (drawn[:, -1] == PREDICTION_COLORS[0]).all()
    assert not drawn[5, 5].any()


@pytest.mark.parametrize(("side", "size"), [(90, 3), (700, 7)])
def test_the_outline_is_what_erosion_takes_away(side, size):
    """Against scipy's minimum filter; 3 and 7 pixels are the filters of images of these sides."""
    noise = np.random.default_rng(5).standard_normal((side, side + 9))
    mask = (gaussian_filter(noise, side / 20) > 0).astype(np.uint8)
    core = minimum_filter(mask, size=size, mode="constant", cval=0)
    drawn = render_overlay(np.zeros((*mask.shape, 1), np.uint8), mask)
    assert np.array_equal(drawn.any(axis=-1), (mask == 1) & (core == 0))


def test_overlay_shows_truth_and_every_class_in_its_own_color():
    mask = square(50, 50, 5, 5, 8) + square(50, 50, 30, 30, 8, value=2)
    drawn = render_overlay(np.zeros((50, 50, 3), np.uint8), mask, truth=square(50, 50, 15, 15, 10))
    assert tuple(drawn[5, 5]) == PREDICTION_COLORS[0]
    assert tuple(drawn[30, 30]) == PREDICTION_COLORS[1]
    assert tuple(drawn[15, 15]) == TRUTH_COLOR


def test_overlay_refuses_a_mask_of_another_size():
    with pytest.raises(DxsegError, match="mask"):
        render_overlay(np.zeros((5, 5, 1), np.uint8), np.zeros((5, 6), np.uint8))


def test_caption_only_where_it_fits():
    blank = np.zeros((200, 200, 1), np.uint8)
    none = np.zeros((200, 200), np.uint8)
    assert render_overlay(blank, none, caption="benign 0.93")[-14:].any()
    assert not render_overlay(blank[:20, :20], none[:20, :20], caption="benign 0.93").any()


def test_display_stretches_16_bit_and_leaves_8_bit():
    eight = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    assert (display_rgb(eight)[..., 1] == eight[..., 0]).all()
    dim = np.linspace(1000, 1400, 400, dtype=np.uint16).reshape(20, 20, 1)
    shown = display_rgb(dim)
    assert shown.min() == 0
    assert shown.max() == 255

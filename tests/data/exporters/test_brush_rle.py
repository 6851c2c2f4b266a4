"""Brush masks of Label Studio, against code of others that reads and writes them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dxseg.data.exporters.brush_rle import decode_brush, encode_brush
from dxseg.errors import DxsegError

MASKS = arrays(bool, st.tuples(st.integers(1, 40), st.integers(1, 40)))

# What @thi.ng/rle-pack 3.2.12 (npm), which Label Studio's page uses, makes of a soft-edged stroke
# on a canvas of 7 x 5 pixels: color (200, 30, 30) where alpha is not 0.
ALPHA = np.array(
    [
        [0, 0, 0, 0, 0, 0, 0],
        [0, 64, 127, 128, 200, 0, 0],
        [0, 90, 255, 255, 255, 130, 1],
        [0, 10, 255, 255, 255, 127, 0],
        [0, 0, 40, 180, 128, 0, 0],
    ]
)
STROKE = list(
    bytes.fromhex(
        "0000008c391bfe1f00032211e05032211e05ff2211e06032211e0322d80019108f02b591"
        "08f03ff9108f03ff9108f03ff9108f03059108f0003180019108f02159108f03ff9108f0"
        "3ff9108f03ff9108f00ff6c000c88478128c884781b4c884780809c000"
    )
)


def test_a_stroke_of_the_page_is_read_where_it_covers_half_a_pixel() -> None:
    assert np.array_equal(decode_brush(STROKE, 5, 7), ALPHA >= 128)


@given(MASKS)
def test_another_implementation_writes_the_same_bytes_and_reads_ours(mask: np.ndarray) -> None:
    theirs = pytest.importorskip("label_studio_brush_rle_rs")
    values = np.repeat(mask.ravel().astype(np.uint8) * 255, 4)
    ours = encode_brush(mask)
    assert ours == list(theirs.encode_rle(values, 8, [3, 4, 8, 16]))
    assert np.array_equal(np.asarray(theirs.decode_rle(ours, False)), values)


@given(MASKS)
def test_what_is_written_is_read(mask: np.ndarray) -> None:
    assert np.array_equal(decode_brush(encode_brush(mask), *mask.shape), mask)


def test_long_runs_are_cut() -> None:
    mask = np.zeros((300, 300), bool)
    mask[-1, -1] = True
    assert np.array_equal(decode_brush(encode_brush(mask), 300, 300), mask)


def test_every_beginning_and_another_size_are_refused() -> None:
    for end in range(len(STROKE) - 2):
        with pytest.raises(DxsegError, match="rle"):
            decode_brush(STROKE[:end], 5, 7)
    with pytest.raises(DxsegError, match="7 x 7"):
        decode_brush(STROKE, 7, 7)
    for odd in ([256], [-1], ["a"], [1.5]):
        with pytest.raises(DxsegError, match="0 to 255"):
            decode_brush([*STROKE, *odd], 5, 7)  # type: ignore[list-item]


@given(st.lists(st.integers(0, 255), max_size=60))
def test_whatever_comes_is_a_mask_or_refused(tail: list[int]) -> None:
    try:
        mask = decode_brush([0, 0, 0, 140, 57, *tail], 5, 7)
    except DxsegError:
        return
    assert mask.shape == (5, 7)

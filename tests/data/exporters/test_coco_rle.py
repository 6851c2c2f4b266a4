"""Run lengths of COCO, compared with pycocotools and held to the size of the image."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dxseg.data.exporters.coco_rle import decode_runs, encode_runs, pack_runs, unpack_runs
from dxseg.errors import DxsegError

masks = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=24))


@given(masks)
def test_masks_come_back_and_the_text_is_that_of_pycocotools(mask: np.ndarray) -> None:
    coco = pytest.importorskip("pycocotools.mask")
    runs = encode_runs(mask)
    assert np.array_equal(decode_runs(runs, *mask.shape), mask)
    text = pack_runs(runs)
    assert unpack_runs(text) == runs
    assert np.array_equal(decode_runs(text, *mask.shape), mask)
    theirs = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    assert text == theirs["counts"].decode()


@pytest.mark.parametrize("value", [False, True])
def test_large_masks(value: bool) -> None:
    mask = np.full((3000, 2000), value)
    mask[1000:1003, 5:1999] = not value
    assert np.array_equal(decode_runs(pack_runs(encode_runs(mask)), 3000, 2000), mask)


@pytest.mark.parametrize(
    "counts", [[], [5], [17], [-1, 17], [2**62, 4], "", "1", "\xff", "oo", "zzz"]
)
def test_runs_that_do_not_fill_the_image_are_refused(counts: str | list[int]) -> None:
    with pytest.raises(DxsegError, match="counts"):
        decode_runs(counts, 4, 4)


@given(st.text(max_size=30))
def test_any_text_is_a_mask_or_refused(text: str) -> None:
    with suppress(DxsegError):
        assert decode_runs(text, 3, 5).shape == (3, 5)

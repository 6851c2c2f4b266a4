"""Run lengths of COCO: masks column by column, as numbers or packed into text.

Own code: pycocotools returns whatever was in memory where runs end before the image does, so its
decoder cannot be given files of others. The tests compare both.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dxseg.errors import DxsegError

# Five bits per character, the sixth says that more follow, and 48 makes them printable.
_BITS, _MORE, _SIGN, _FIRST = 5, 0x20, 0x10, 48
_LONGEST = 13


def encode_runs(mask: NDArray[np.bool_]) -> list[int]:
    """Encode a mask as the lengths of its runs of 0 and 1 in turn, the first of 0.

    Args:
        mask: (H, W).
    """
    flat = np.concatenate(([False], mask.ravel(order="F"), [False]))
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    runs = np.diff(np.concatenate(([0], changes, [mask.size])))
    return [int(run) for run in (runs if runs[-1] or len(runs) == 1 else runs[:-1])]


def pack_runs(runs: Sequence[int]) -> str:
    """Pack run lengths into text, as `pycocotools` reads it.

    Args:
        runs: From `encode_runs`.
    """
    text = []
    for position, run in enumerate(runs):
        rest = run - runs[position - 2] if position > 2 else run
        more = True
        while more:
            bits, rest = rest & (_MORE - 1), rest >> _BITS
            more = rest != (-1 if bits & _SIGN else 0)
            text.append(chr((bits | _MORE if more else bits) + _FIRST))
    return "".join(text)


def unpack_runs(text: str) -> list[int]:
    """Unpack run lengths from text.

    Args:
        text: From COCO's `counts`.

    Raises:
        DxsegError: It is damaged.
    """
    runs: list[int] = []
    value = shift = 0
    for character in text:
        code = ord(character) - _FIRST
        if not 0 <= code < 2 * _MORE or shift > _BITS * _LONGEST:
            raise DxsegError("counts: damaged run lengths; export them again")
        value |= (code & (_MORE - 1)) << shift
        shift += _BITS
        if not code & _MORE:
            if code & _SIGN:
                value -= 1 << shift
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    if shift:
        raise DxsegError("counts: cut short; export them again")
    return runs


def decode_runs(counts: str | Sequence[int], height: int, width: int) -> NDArray[np.bool_]:
    """Decode a mask; no array is larger than the image, whatever the counts claim.

    Args:
        counts: Run lengths, or their text.
        height: Height of the image, pixels.
        width: Width of the image, pixels.

    Returns:
        (H, W).

    Raises:
        DxsegError: The runs are damaged or do not fill the image exactly.
    """
    runs = unpack_runs(counts) if isinstance(counts, str) else list(counts)
    if min(runs, default=0) < 0 or sum(runs) != height * width:
        raise DxsegError(
            f"counts: runs of {sum(runs)} pixels; expected {height * width}, for {height} x {width}"
        )
    flat = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return flat.reshape(width, height).T

"""Asymmetric volumes with a known position in space, in any of the 48 orders of axes."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Turn = tuple[tuple[int, int, int], tuple[int, int, int]]
"""Which patient axis (right, front, head) each array axis follows, and its direction."""

TURNS: list[Turn] = [
    (order, signs)
    for order in itertools.permutations(range(3))
    for signs in itertools.product((1, -1), repeat=3)
]
RAS: Turn = ((0, 1, 2), (1, 1, 1))
SHAPE = (32, 24, 10)
SPACING = (0.75, 0.8, 5.0)
ORIGIN = (-20.0, 35.0, -110.0)


def turned(array: NDArray[Any], turn: Turn) -> NDArray[Any]:
    """Store an array whose axes lead right, front, head in another order and direction."""
    order, signs = turn
    flips = tuple(slice(None, None, sign) for sign in signs)
    return array.transpose(order)[flips]


def turned_affine(
    turn: Turn,
    shape: tuple[int, int, int] = SHAPE,
    spacing: tuple[float, float, float] = SPACING,
) -> NDArray[np.float64]:
    """The affine of `turned`, written down without a library."""
    order, signs = turn
    affine = np.zeros((4, 4))
    affine[3, 3] = 1
    affine[:3, 3] = ORIGIN
    for axis, (patient, sign) in enumerate(zip(order, signs, strict=True)):
        affine[patient, axis] = sign * spacing[patient]
        if sign < 0:
            affine[patient, 3] += spacing[patient] * (shape[patient] - 1)
    return affine


def ct(seed: int = 0, tumour: bool = True) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """A body in air with a liver (label 1) and, unless it is healthy, a tumour (2) in it.

    The liver lies on the patient's right; the tumour is no box and lies off its center, so no flip
    or turn maps the volume to itself.

    Returns:
        Hounsfield units and label map, axes leading right, front, head, of `SHAPE`.
    """
    rng = np.random.default_rng(seed)
    x, y, z = np.indices(SHAPE)
    body = ((x - 15.5) / 14) ** 2 + ((y - 11) / 10) ** 2 < 1
    liver = body & (x > 17) & (y > 6) & (z > 2) & (z < 9)
    lesion = liver & (x > 20) & (x < 26) & (y > 9) & (y < 9 + z) & (z > 3) & (z < 7) & tumour
    hounsfield = np.where(body, 20, -1000) + 40 * liver + 90 * lesion
    noise = rng.integers(-8, 9, SHAPE)
    return (hounsfield + noise).astype(np.int16), liver.astype(np.uint8) + lesion


def save(
    path: Path, array: NDArray[Any], turn: Turn = RAS, affine: NDArray[Any] | None = None
) -> Path:
    """Write an array as NIfTI, stored in the given order of axes."""
    import nibabel

    stored = turned(array, turn)
    own = turned_affine(turn, array.shape) if affine is None else affine
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.Nifti1Image(np.ascontiguousarray(stored), own).to_filename(path)
    return path


def depth_in_ball(
    points: NDArray[np.float64], center: tuple[float, float, float], radius: float
) -> NDArray[np.float64]:
    """How deep points (..., 3) lie in a ball, in mm; negative outside."""
    depth: NDArray[np.float64] = radius - np.linalg.norm(points - np.array(center), axis=-1)
    return depth


def dice(one: NDArray[Any], other: NDArray[Any]) -> float:
    """Dice of two masks."""
    both = np.count_nonzero((one > 0) & (other > 0))
    return 2 * both / (np.count_nonzero(one) + np.count_nonzero(other))
